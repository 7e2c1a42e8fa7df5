"""Options of compression that the mode of a run does not use: they would do nothing."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .config import RunConfig
from .errors import UsageError
from .options import leaves

SCHEDULED = ("tolerance", "fixed", "budget", "pragmatic")
"""Modes that cut at planned steps."""
USED_BY: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("shrinks", "every", "start", "window", "guard", "keep"), SCHEDULED),
    **dict.fromkeys(("loss", "smallest", "speed"), ("auto",)),
    **dict.fromkeys(("tolerance", "gate"), ("tolerance",)),
    **dict.fromkeys(("share", "slack"), ("pragmatic",)),
    "settled": ("tolerance", "fixed"),
    "multiple": ("tolerance", "auto"),
}
"""The modes that use an option of `compression`; the other options belong to all modes."""


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
    """Raise a `UsageError` for an option of `names` that the mode of `config` does not use. Mode
    `none` is the exception: it turns off the cuts of any command.
    """
    mode = config.compression.mode
    for name in sorted(names):
        group, _, option = name.partition(".")
        modes = USED_BY.get(option, (mode,)) if group == "compression" else (mode,)
        if mode not in ("none", *modes):
            raise UsageError(
                f"`{name}` must be left out with compression.mode {mode} ({' and '.join(modes)} "
                f"{'uses' if len(modes) == 1 else 'use'} it), got "
                f"{getattr(config.compression, option)}"
            )
