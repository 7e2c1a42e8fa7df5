"""A run directory from a command: prepare, train, report."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import equinox as eqx
import rich.progress
from rich.console import Console

from compress import AbstractMethod, AbstractPolicy
from data import Progress, Task, import_builders, save_task, task_label
from data.store.download import locked

from ..finished.kept_task import keep_task
from ..model.network import check_model
from ..reporting.display import LiveDisplay, PlainDisplay, make_display
from ..reporting.environment import note_environment
from ..reporting.events import (
    EventLog,
    read_events,
    truncate_after,
    write_atomically,
    write_json,
)
from ..reporting.mlflow import MLflowSink
from ..reporting.report import write_report
from ..reporting.trackers import TensorBoardMirror
from ..run.clock import Clock
from ..run.compilation import missing_kernels, use_compilation_cache
from ..run.describe import describe
from ..run.interrupt import Interrupt
from ..run.loop import Run
from ..run.memory import keep_freed_memory
from ..run.placement import Placement, check_devices
from ..run.together import PeerLost, alert, join
from ..settings.command import Command
from ..settings.config import RunConfig
from ..settings.errors import UsageError, check_cache, check_new, check_writable
from ..settings.methods import POLICIES
from ..settings.tuned import describe_settings
from ..settings.yaml import flat_config, write_yaml
from .data import check_data, load_data, note_data
from .trained import check_trained, load_trained


def execute(
    command: Command,
    console: Console,
    method: AbstractMethod | None = None,
    policy: AbstractPolicy | None = None,
) -> Path:
    """Run `command` and return the run directory, which then holds the report. `method` and
    `policy`, if given, replace the configured ones. The run directory does not store them: pass
    them again to resume the run. Mistakes in the command raise a `UsageError` before the directory
    exists. Raises `Interrupted` after saving, and `Diverged`.
    """
    config, clock = command.config, Clock()
    placement = _placed(command)
    folder = command.out or new_folder(config.model, task_label(config.task), config.seed)
    _check_places(command, folder)
    if (folder / "summary.json").exists():
        if placement.is_first:
            with _as_usage_error():
                write_report(folder)
        placement.wait("the report is written")
        return folder
    if advice := missing_kernels():
        console.print(advice, soft_wrap=True, highlight=False)
    check_trained(config)
    use_compilation_cache(config.cache_dir)
    with clock.phase("data"), _preparation_progress(console) as progress:
        task = command.task or load_data(config, progress)
    config = _settled(command, task, console if placement.is_first else None)
    _check_fits(config, task, method)
    _check_policy(config, policy)
    if command.resume:
        check_data(folder, task)
    teacher = _teacher(config, task)
    placement.wait("all have found the folder as it must be")
    folder.mkdir(parents=True, exist_ok=True)
    with claimed(folder) if placement.is_first else nullcontext():
        if placement.is_first:
            _note(command, config, task, folder)
        with Interrupt(lambda: _say_expired(folder, console)) as interrupt:
            run = Run(config, task, folder, clock, teacher, method=method, policy=policy)
            summary = _train(run, make_display(console), interrupt)
        if placement.is_first:
            write_json(folder / "summary.json", summary)
            write_report(folder)
    placement.wait("the report is written")
    return folder


def _placed(command: Command) -> Placement:
    """The devices that this process uses, and those of the processes that train with it."""
    keep_freed_memory()
    if command.together is not None:
        join(command.together)
    check_devices()
    return Placement()


def _note(command: Command, config: RunConfig[Any, Any], task: Task, folder: Path) -> None:
    """Write the configuration of the run in `folder`, its data's fingerprint and its
    environment."""
    if not command.resume:
        write_atomically(folder / "config.yaml", write_yaml(config))
        keep_task(folder, task)
        if command.task is not None:
            save_task(task, Path(config.task))
        note_data(folder, config, task)
    with _as_usage_error():
        note_environment(folder / "environment.json")


def _check_places(command: Command, folder: Path) -> None:
    """`UsageError` unless the run can be kept in `folder`, and prepared data in their cache."""
    if command.resume:
        check_writable("--out", folder)
    else:
        check_new("--out", folder, f"; or continue with --resume {folder}")
    check_cache(command.config.cache_dir)


def _say_expired(folder: Path, console: Console) -> None:
    """The message if SIGTERM ends the process during other work."""
    console.show_cursor(True)
    console.print(
        f"stopped by SIGTERM; continue from the last checkpoint: "
        f"scripts/train.py --resume {folder}",
        soft_wrap=True,
    )


@contextmanager
def _as_usage_error() -> Iterator[None]:
    """The error in a file of a run directory, in one line."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UsageError(" ".join(str(error).split())) from None


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Inside this context, the run directory is locked for this process; a UsageError if another
    process has it. The lock ends with the process, also after a crash.
    """
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(folder / "metrics.jsonl", wait=False))
        except BlockingIOError as error:
            raise UsageError(f"{folder} belongs to a run in progress: wait for its end") from error
        except OSError as error:
            raise UsageError(" ".join(str(error).split())) from error
        yield


def _train(run: Run, display: LiveDisplay | PlainDisplay, interrupt: Interrupt) -> dict[str, Any]:
    """Train, or resume training, and return the summary."""
    session, restored = run.session, run.saves.restore()
    log = session.folder / "metrics.jsonl"
    if not session.placement.is_first:  # the first process reports
        with _ending(run):
            return run.run(interrupt)
    start = _start_of(log, run.step) if restored else None
    if start is None:
        _check_nothing_lost(log)
    options = flat_config(run.config)
    resumed = run.step if restored else None
    mirror = TensorBoardMirror(session.folder / "tensorboard", resumed, options)
    where = run.config.loop.mlflow
    trackers = [] if where is None else [MLflowSink(where, session.folder, options)]
    with display:
        log_sink = EventLog(log, append=restored)
        session.reporter.sinks = [log_sink, mirror, display, *trackers]
        with _ending(run):
            if start is not None:
                for sink in (mirror, display, *trackers):
                    sink.write(start)
                session.emit("resume", damaged=run.saves.damaged)
            else:
                session.emit("start", **describe(run.config, session.task, session.beginning))
            return run.run(interrupt)


@contextmanager
def _ending(run: Run) -> Iterator[None]:
    """Close the run and its sinks after the context; at once if another process is lost."""
    lost = False
    try:
        with alert(str(run.session.folder)):
            yield
    except PeerLost:
        lost = True
        raise
    finally:
        try:
            if not lost:  # a checkpoint would wait for the process that is gone
                run.close()
        finally:
            for sink in run.session.reporter.sinks:
                sink.close()


def _start_of(log: Path, step: int) -> dict[str, Any]:
    """The "start" event of a log, which is taken back to the checkpoint of `step`."""
    try:
        starts = [event for event in read_events(log) if event["event"] == "start"]
        truncate_after(log, step)
    except (OSError, ValueError) as error:
        raise UsageError(f"{log} must be the log of this run, got: {error}") from None
    if not starts:
        raise UsageError(f"{log} must begin with a start event, got none")
    return starts[0]


def _check_nothing_lost(log: Path) -> None:
    """`UsageError` if the run would begin anew although its log names a checkpoint, which is gone.
    The log names complete checkpoints only.
    """
    if not log.exists():
        return
    try:
        saved = [event["step"] for event in read_events(log) if event["event"] == "checkpoint"]
    except ValueError as error:
        raise UsageError(f"{log} must be the log of this run, got: {error}") from None
    if saved:
        raise UsageError(
            f"{log.parent / 'checkpoints'} must hold a checkpoint, got none, but the log has "
            f"one of step {saved[-1]}: start a new run with --config "
            f"{log.parent / 'config.yaml'} --out FOLDER"
        )


def _teacher(config: RunConfig[Any, Any], task: Task) -> tuple[Any, eqx.nn.State] | None:
    """The teacher of this run, if there is one."""
    folder = config.distillation.teacher
    try:
        return None if folder is None else load_trained(folder, task)
    except ValueError as error:
        raise UsageError(f"`distillation.teacher` {folder}: {error}") from error


def _settled(command: Command, task: Task, console: Console | None) -> RunConfig[Any, Any]:
    """The configuration after the data are loaded. Settings that follow from the data are
    reported."""
    if command.settle is None:
        return command.config
    config = command.settle(task)
    if console is not None:
        for line in describe_settings(config, task):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    return config


def _check_fits(config: RunConfig[Any, Any], task: Task, method: AbstractMethod | None) -> None:
    """`UsageError` if the configuration does not fit the data."""
    try:
        check_model(config, task, method)
    except (ValueError, OverflowError, MemoryError) as error:
        raise UsageError(" ".join(str(error).split())) from error
    available = len(task.splits["train"])
    if config.batch_size > available:
        raise UsageError(
            f"`batch_size` must be at most {available}, all there is, got {config.batch_size}"
        )
    devices = Placement().devices
    if config.batch_size % devices:
        raise UsageError(
            f"`batch_size` must be a multiple of the {devices} devices of all processes, got "
            f"{config.batch_size}"
        )


def _check_policy(config: RunConfig[Any, Any], policy: AbstractPolicy | None) -> None:
    """`UsageError` for a policy that the mode would not use."""
    mode = config.compression.mode
    if policy is not None and mode not in POLICIES:
        raise UsageError(f"`policy` must be None with compression.mode {mode}, got {policy!r}")


@contextmanager
def _preparation_progress(console: Console) -> Iterator[Progress]:
    """A progress bar for each preparation on a terminal; elsewhere a line at its beginning."""
    import_builders()
    with rich.progress.Progress(
        *rich.progress.Progress.get_default_columns(),
        console=console,
        disable=not console.is_terminal,
    ) as bars:
        known: dict[str, rich.progress.TaskID] = {}

        def progress(done: int, total: int, what: str) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total)
                if not console.is_terminal:
                    console.print(what, highlight=False)
            bars.update(known[what], completed=done, total=total)

        yield progress


def new_folder(model: str, task: str, seed: int) -> Path:
    """A folder under runs/ that says what and when."""
    return Path("runs") / f"{model}-{task}-seed{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
