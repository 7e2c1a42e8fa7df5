"""Options that only mode `auto` has, or only the others: elsewhere they would do nothing."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .config import RunConfig
from .errors import UsageError
from .options import leaves

NOT_AUTO = (
    *("tolerance", "shrinks", "every", "start", "window", "settled", "guard"),
    *("share", "slack", "gate", "keep"),
)
"""Options of `compression` that mode `auto` does not have."""
ONLY_AUTO = ("loss", "smallest", "speed")
"""Options of `compression` that only mode `auto` has."""

USED_BY = {"share": "pragmatic", "slack": "pragmatic"}
"""The mode that an option is for, if it is not `tolerance`."""


def names_in(options: Mapping[str, Any]) -> set[str]:
    """The dotted names of a file's options, or of a mapping's; none of a saved configuration, which
    has all options, whatever its mode."""
    names = {name.replace("-", "_") for name, _ in leaves(options)}
    return set() if {"compression.loss", "compression.tolerance"} <= names else names


def names_of(argv: Sequence[str]) -> set[str]:
    """The dotted names of the options of a command line."""
    options = (argument.split("=")[0] for argument in argv if argument.startswith("--"))
    return {option.removeprefix("--").replace("-", "_") for option in options}


def check_given(names: Iterable[str], config: RunConfig[Any, Any]) -> None:
    """Raise a `UsageError` for an option of `names` that mode `auto` does not have, if that is the
    mode of `config`, or that only `auto` has, if it is not."""
    mode = config.compression.mode
    idle = NOT_AUTO if mode == "auto" else ONLY_AUTO
    for name in sorted(names):
        group, _, option = name.partition(".")
        if group == "compression" and option in idle:
            other = "auto" if mode != "auto" else USED_BY.get(option, "tolerance")
            raise UsageError(
                f"`{name}` must be left out with compression.mode {mode}, which does not use it as "
                f"compression.mode {other} does, got {getattr(config.compression, option)}"
            )
