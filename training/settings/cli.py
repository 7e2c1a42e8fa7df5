"""From the command line, or a YAML file, to a configuration."""

import argparse
import contextlib
import difflib
import io
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from data import TASKS
from zoo import LAYERS

from .config import RunConfig
from .errors import UsageError
from .presets import SCALES, preset


@dataclass(frozen=True)
class Command:
    """What `scripts/train.py` was asked to do."""

    config: RunConfig[Any, Any]
    out: Path | None
    """Run directory; None: a new one with a name of its own under runs/."""
    resume: bool
    together: "Together | None" = None
    """The processes that train together; None: this one alone."""


@dataclass(frozen=True)
class Together:
    """This process among several, as `jax.distributed.initialize` takes it."""

    coordinator: str | None
    """Address of process 0, HOST:PORT; None, like the others: as the cluster tells."""
    processes: int | None
    process: int | None


def parse_command(argv: Sequence[str]) -> Command:
    """Read the command line of `scripts/train.py`.

    `--model`, `--task` and `--scale` choose the preset, a file given by `--config` (or the run that
    `--resume` goes on with) changes it, and the other options change that. Raises `UsageError` in
    one line; `--help` exits.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model")
    parser.add_argument("--task")
    parser.add_argument("--scale")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resume", type=Path, nargs="?", const=OUT)
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            first, rest = parser.parse_known_args(argv)
    except SystemExit:
        raise UsageError(said.getvalue().strip().splitlines()[-1].split("error: ")[-1]) from None
    together = _together(first.coordinator, first.processes, first.process)
    out, resume = first.out, first.resume is not None
    if together and not out and not resume:
        raise UsageError("--out must be given where several processes train together")
    if resume:
        out = _run_to_resume(first.resume, first.out)
    if resume and first.config:
        raise UsageError("--config cannot be given with --resume: a run keeps its configuration")
    file = out / "config.yaml" if resume and out else first.config
    given = read_yaml(file) if file else {}
    names = {}
    for name, default in (("model", "s5"), ("task", "pathfinder"), ("scale", "small")):
        asked, saved = getattr(first, name), given.pop(name, default)
        if resume and asked not in (None, saved):
            raise UsageError(f"--{name} {asked}, but the run to resume has {saved}")
        names[name] = saved if asked is None else asked
    try:
        base = preset(**names)
    except ValueError as error:
        raise UsageError(
            f"--{error}" if str(error).split("=")[0] in names else str(error)
        ) from None
    config = base
    if given:
        try:
            config = _parse_options(config, _as_options(given, config, file))
        except UsageError as error:
            raise UsageError(f"{file}: {error}") from None
    asked_for = _parse_options(config, rest)
    if resume and asked_for != config:
        raise UsageError(
            f"{_first_difference(config, asked_for)} cannot change in a resumed run; "
            f"start a new one with --config {file}"
        )
    return Command(asked_for, out, resume, together)


OUT = Path("--out")
"""Stands for the run that `--out` names, where `--resume` is given alone."""


def _together(
    coordinator: str | None, processes: int | None, process: int | None
) -> Together | None:
    """What `--coordinator`, `--processes` and `--process` mean."""
    if coordinator is None and processes is None and process is None:
        return None
    if coordinator == "auto" and processes is None and process is None:
        return Together(None, None, None)
    if coordinator in (None, "auto") or processes is None or process is None:
        raise UsageError(
            "--coordinator HOST:PORT, --processes and --process go together, or --coordinator auto "
            "alone"
        )
    if not 0 <= process < processes:
        raise UsageError(
            f"--process {process}, allowed: 0 to {processes - 1} (--processes {processes})"
        )
    return Together(coordinator, processes, process)


def _run_to_resume(resume: Path, out: Path | None) -> Path:
    """The run directory that `--resume [RUN]` and `--out RUN` mean."""
    if resume != OUT and out is not None and resume != out:
        raise UsageError(f"--resume {resume} and --out {out} name two runs: give one")
    folder = out if resume == OUT else resume
    if folder is None:
        raise UsageError("--resume needs the run directory: --resume runs/NAME")
    if not (folder / "config.yaml").is_file():
        raise UsageError(f"--resume {folder}: there is no run, {folder / 'config.yaml'} is missing")
    return folder


def _parse_options(default: RunConfig[Any, Any], argv: Sequence[str]) -> RunConfig[Any, Any]:
    """`default` with the options of `argv` applied, as tyro reads them from the dataclasses."""
    shape = RunConfig[type(default.layer), type(default.data)]

    @dataclass(frozen=True)
    class Options:
        run: Annotated[shape, tyro.conf.arg(name="")]  # pyright: ignore[reportInvalidTypeForm]
        out: Path | None = None
        """Run directory (default: a new one under runs/)."""
        config: Path | None = None
        """YAML file with any of these options, as `compression: {tolerance: 0.1}`."""
        resume: Path | None = None
        """Go on with an interrupted run: --resume runs/NAME."""
        coordinator: str | None = None
        """For several processes that train together: the address of process 0, HOST:PORT, the same
        for all; auto on a cluster that JAX knows. They need one --out on a shared disk."""
        processes: int | None = None
        """How many they are."""
        process: int | None = None
        """Which one this is, from 0."""

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = tyro.cli(
                Options,
                args=list(argv),
                default=Options(default),
                prog="scripts/train.py",
                description=DESCRIPTION,
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(_one_line(said.getvalue(), default, argv)) from None
    except ValueError as error:  # what a config's __post_init__ has to say
        raise UsageError(str(error)) from None
    return options.run


DESCRIPTION = (
    "Train a state-space model that shrinks while it trains. "
    f"Models: {', '.join(LAYERS)}. Tasks: {', '.join(TASKS)}. Scales: {', '.join(SCALES)}. "
    "The defaults below are those of the chosen --model, --task and --scale; --list shows them all."
)


def _one_line(said: str, default: RunConfig[Any, Any], argv: Sequence[str]) -> str:
    """tyro's boxed message in one line, with the nearest option where one was unknown."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", said)
    text = " ".join(re.sub(r"[╭╮╰╯│─━]+", " ", text).split())
    known = [name for name, _ in _leaves(asdict(default))]
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


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text, let alone YAML") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold `option: value` lines, it holds {content!r}")
    return content


def write_yaml(config: RunConfig[Any, Any]) -> str:
    """The configuration as YAML that `--config` reads."""
    return yaml.safe_dump(plain_config(config), sort_keys=False)


def plain_config(config: RunConfig[Any, Any]) -> dict[str, Any]:
    """The configuration as mappings, strings and numbers."""
    return _plain(asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return str(value) if isinstance(value, Path) else value


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted name, value) of all values that are not mappings."""
    leaves = []
    for name, value in tree.items():
        if isinstance(value, dict):
            leaves += _leaves(value, f"{prefix}{name}.")
        else:
            leaves.append((f"{prefix}{name}", value))
    return leaves


def _as_options(given: dict[str, Any], config: RunConfig[Any, Any], file: Path | None) -> list[str]:
    """The values of a YAML file as command-line options; unknown keys are errors."""
    known = [name for name, _ in _leaves(asdict(config))]
    options = []
    for name, value in _leaves(given):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f", did you mean {near[0]}?" if near else f", known are {', '.join(known)}"
            raise UsageError(f"unknown key {name}{hint}")
        values = value if isinstance(value, list) else [value]
        options += [f"--{name.replace('_', '-')}", *map(str, values)]
    return options


def _first_difference(a: Any, b: Any, prefix: str = "") -> str:
    """The dotted name of the first field in which two configurations differ."""
    for f in fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if x != y:
            name = f"{prefix}{f.name}"
            return _first_difference(x, y, f"{name}.") if is_dataclass(x) else name
    raise ValueError("the configurations are equal")
