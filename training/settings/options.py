"""A configuration changed by options: those of a command line, or those of a mapping."""

import contextlib
import difflib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from data import TASKS
from zoo import LAYERS

from .config import RunConfig
from .errors import UsageError
from .presets import SCALES


def with_arguments(config: RunConfig[Any, Any], argv: Sequence[str]) -> RunConfig[Any, Any]:
    """`config` with the options of a command line. `UsageError` in one line; `--help` exits.

    tyro reads the options from the dataclasses; those of `_command_options` are explained by
    `--help`, and do nothing here.
    """
    options = _command_options(config)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            changed = tyro.cli(
                options,
                args=list(argv),
                default=options(config),
                prog="scripts/train.py",
                description=_description(),
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(_one_line(said.getvalue(), config, argv)) from None
    except ValueError as error:  # what a config's __post_init__ has to say
        raise UsageError(str(error)) from None
    return changed.run


def with_options(config: RunConfig[Any, Any], options: Mapping[str, Any]) -> RunConfig[Any, Any]:
    """`config` with options by their dotted names, `compression.tolerance`, or by nested mappings.

    `UsageError` for a name that there is not, or a value that does not fit.
    """
    known = option_names(config)
    argv: list[str] = []
    for name, value in _leaves(options):
        name = name.replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f", did you mean {near[0]}?" if near else f", known are {', '.join(known)}"
            raise UsageError(f"unknown key {name}{hint}")
        values = value if isinstance(value, list | tuple) else [value]
        argv += [f"--{name.replace('_', '-')}", *map(str, values)]
    return with_arguments(config, argv) if argv else config


def option_names(config: RunConfig[Any, Any]) -> list[str]:
    """The dotted names of all options of a configuration."""
    return [name for name, _ in _leaves(asdict(config))]


def _command_options(config: RunConfig[Any, Any]) -> Any:
    """A dataclass for tyro: the options of the command, around those of the run."""
    shape = RunConfig[type(config.layer), type(config.data)]

    @dataclass(frozen=True)
    class Options:
        run: Annotated[shape, tyro.conf.arg(name="")]  # pyright: ignore[reportInvalidTypeForm]
        out: Path | None = None
        """Run directory (default: a new one under runs/)."""
        config: Path | None = None
        """YAML file with any of these options, as `compression: {tolerance: 0.1}`."""
        resume: Path | None = None
        """Go on with an interrupted run: --resume runs/NAME."""
        plugin: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
        """Python file or module that registers layers or tasks, imported first; may be repeated."""
        coordinator: str | None = None
        """For several processes that train together: the address of process 0, HOST:PORT, the same
        for all; auto on a cluster that JAX knows. They need one --out on a shared disk."""
        processes: int | None = None
        """How many they are."""
        process: int | None = None
        """Which one this is, from 0."""

    return Options


def _description() -> str:
    return (
        "Train a state-space model that shrinks while it trains. "
        f"Models: {', '.join(LAYERS)}. Tasks: {', '.join(TASKS)}. Scales: {', '.join(SCALES)}. "
        "The defaults below are those of the chosen --model, --task and --scale; --list shows them "
        "all."
    )


def _one_line(said: str, config: RunConfig[Any, Any], argv: Sequence[str]) -> str:
    """tyro's boxed message in one line, with the nearest option where one was unknown."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", said)
    text = " ".join(re.sub(r"[╭╮╰╯│─━]+", " ", text).split())
    known = option_names(config)
    for argument in argv:
        name = argument.split("=")[0].removeprefix("--").replace("-", "_")
        if argument.startswith("--") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f", did you mean --{near[0].replace('_', '-')}?" if near else ""
            return f"unknown option {argument}{hint} (--help lists all)"
    text = re.sub(
        r"^.*?(Value error|Invalid choice|Missing argument|Unrecognized options)\s", "", text
    )
    text = re.sub(r"^Error parsing run[\w.]*: ", "", text)
    text = re.split(r" Argument helptext:| For full helptext", text)[0]
    return f"{text} (--help explains the options)"


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(dotted name, value) of all values that are not mappings."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
