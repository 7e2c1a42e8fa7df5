"""The command line of `scripts/train.py`."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from data import Task, kept_name

from .config import RunConfig
from .errors import UsageError, shown
from .given import check_given, names_in, names_of
from .help import Help
from .options import with_arguments
from .parser import Parser, asks_for_all, asks_for_help
from .saved import DEFAULTS, complete, config_file
from .train_help import page, page_of_all
from .tuned import Settle, settle_later
from .yaml import read_yaml


@dataclass(frozen=True)
class Together:
    """This process among several, as `jax.distributed.initialize` takes it."""

    coordinator: str | None
    """Address of process 0, HOST:PORT; None, like the others: as the cluster announces."""
    processes: int | None
    process: int | None


@dataclass(frozen=True)
class Command:
    """The parsed command of `scripts/train.py`."""

    config: RunConfig[Any, Any]
    out: Path | None
    """Run directory; None: a new one with a name of its own under runs/."""
    resume: bool
    together: Together | None = None
    """The processes that train together; None: this one alone."""
    settle: Settle | None = None
    """The function of `config` after the data are loaded. None: it does not change."""
    task: Task | None = None
    """Data in memory, which are kept in the run directory; None: those that `config` names."""


def parse_command(argv: Sequence[str]) -> Command:
    """Read the command line of `scripts/train.py`.

    `--model`, `--task` and `--scale` choose the preset, a file given by `--config` (or the run that
    `--resume` goes on with) changes it, and the other options change that. Files and modules of
    `--plugin` are imported first. Raises `UsageError` in one line, and `Help` where `--help` or
    `--help-all` is given: with the defaults of the model, task and scale that are chosen.
    """
    first, rest = _first_options(argv)
    together = _together(first.coordinator, first.processes, first.process)
    out, resume = first.out, first.resume is not None
    if together and not out and not resume:
        raise UsageError("--out must be given where several processes train together")
    file: Path | None = first.config
    if resume:
        if first.config:
            raise UsageError(
                "--config cannot be given with --resume: a run keeps its configuration"
            )
        out = _run_to_resume(first.resume, first.out)
        file = config_file(out)
    given = read_yaml(file) if file else {}
    for name, default in DEFAULTS.items():
        typed, saved = getattr(first, name), given.get(name, default)
        if name == "task" and typed is not None:
            typed = kept_name(typed)
        if resume and typed not in (None, saved):
            raise UsageError(f"--{name} {typed}, but the run to resume has {saved}")
        given[name] = saved if typed is None else typed
    plugins = given.get("plugins") or []
    given["plugins"] = [*plugins, *first.plugin] if isinstance(plugins, list) else plugins
    config = complete(given, file)
    if resume and list(config.plugins) != plugins:
        had = " ".join(plugins) or "none"
        raise UsageError(f"--plugin {' '.join(first.plugin)}, but the run to resume has {had}")
    if asks_for_help(rest):
        raise Help(page_of_all(config) if asks_for_all(rest) else page(config))
    changed = with_arguments(config, rest)
    if resume and changed != config:
        raise UsageError(
            f"{_first_difference(config, changed)} cannot change in a resumed run; "
            f"start a new one with --config {file}"
        )
    if not resume:
        check_given(names_in(given) | names_of(rest), changed)
    settle = None if resume else settle_later(given, file, rest)
    return Command(changed, out, resume, together, settle)


OUT = Path("--out")
"""Stands for the run that `--out` names, where `--resume` is given alone."""


def _first_options(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options that are needed before the others can be read, and the others."""
    parser = Parser()
    for name in DEFAULTS:
        parser.add_argument(f"--{name}")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resume", type=Path, nargs="?", const=OUT)
    parser.add_argument("--plugin", action="append", default=[])
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    return parser.parse_known_args(argv)


def _together(
    coordinator: str | None, processes: int | None, process: int | None
) -> Together | None:
    """The value of `--coordinator`, `--processes` and `--process`."""
    if coordinator is None and processes is None and process is None:
        return None
    if coordinator == "auto" and processes is None and process is None:
        return Together(None, None, None)
    if coordinator in (None, "auto") or processes is None or process is None:
        raise UsageError(
            "--coordinator HOST:PORT, --processes and --process go together, or --coordinator auto "
            "alone"
        )
    if not re.fullmatch(r"\S+:\d{1,5}", coordinator):
        raise UsageError(f"--coordinator must be HOST:PORT or auto, got {shown(coordinator)}")
    if not 0 <= process < processes:
        raise UsageError(
            f"--process must be 0 to {processes - 1} (--processes {processes}), got {process}"
        )
    return Together(coordinator, processes, process)


def _run_to_resume(resume: Path, out: Path | None) -> Path:
    """The run directory that `--resume [RUN]` and `--out RUN` mean."""
    if resume != OUT and out is not None and resume != out:
        raise UsageError(f"--resume {resume} and --out {out} name two runs: give one")
    folder = out if resume == OUT else resume
    if folder is None:
        raise UsageError("--resume needs the run directory: --resume runs/NAME")
    return folder


def _first_difference(a: Any, b: Any, prefix: str = "") -> str:
    """The dotted name of the first field in which two configurations differ."""
    for f in fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if x != y:
            name = f"{prefix}{f.name}"
            return _first_difference(x, y, f"{name}.") if is_dataclass(x) else name
    raise ValueError("the configurations are equal")
