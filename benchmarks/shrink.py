"""The stall of training by a shrink: with and without background work, first run and later.

    python benchmarks/shrink.py [--model s5] [--task pathfinder] [--repeats 3]
    python benchmarks/shrink.py --quick     # the digits, once; writes no results

The small preset, stopped some steps after its last shrink and the takeover that follows. A stall
is the wall time from the end of the last step before a shrink to the first dispatch of steps after
it, with all that lies between: planning, reducing, measuring the loss before and after, compiling,
saving; and the wait for the programs of the smaller state where they take over. Every run is a
process of its own; a "first run" finds an empty compilation cache, a "later run" that of the first.
Writes `results/shrink.json` (with versions and hardware) and `results/shrink.md`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from harness import write

from data import default_cache_dir, load_task
from training.run.clock import Clock
from training.run.compilation import use_compilation_cache
from training.run.interrupt import Interrupt, Interrupted
from training.run.loop import Run
from training.settings.config import RunConfig
from training.settings.presets import preset

AFTER = 1000
"""Steps after the last shrink: beyond the takeover."""


def configuration(model: str, task: str, rehearsal: int | None) -> RunConfig[Any, Any]:
    """The small preset without evaluations and checkpoints."""
    config = preset(model, task, "small")
    compression = replace(config.compression, mode="tolerance")
    if rehearsal is not None:
        compression = replace(compression, rehearsal=rehearsal)
    loop = replace(config.loop, evaluate_every=config.steps, checkpoint_every=config.steps)
    return replace(config, compression=compression, loop=loop)


class Stalls:
    """Notes when the last step of a run before a shrink ends and the next steps begin."""

    def __init__(self, run: Run):
        self.noted: list[dict[str, Any]] = []
        self._run, self._left = run, None
        self._shrink, self._program = run.shrinks.shrink, run.session.engine._program
        run.shrinks.shrink, run.session.engine._program = self._leave, self._find

    def _leave(self) -> None:
        self._left = time.perf_counter()
        self._shrink()

    def _find(self, name: str, *args: Any) -> Any:
        program = self._program(name, *args)
        if name == "train step" and self._left is not None:
            stall = time.perf_counter() - self._left
            self.noted.append({"step": self._run.step, "seconds": stall})
            self._left = None
        return program


class AtStep(Interrupt):
    """Stops a run after a given step."""

    def __init__(self, run: Run, step: int):
        self._run, self._step = run, step
        super().__init__()

    @property
    def requested(self) -> bool:
        return self._run.step >= self._step

    @requested.setter
    def requested(self, value: bool) -> None:
        """Only the step counts."""


class Notes:
    """A sink that keeps the events."""

    def __init__(self):
        self.events: list[dict[str, Any]] = []

    def write(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def close(self) -> None:
        pass


def one_run(model: str, task_name: str, rehearsal: int | None) -> dict[str, Any]:
    """Train in this process; the stalls, and what the events say of them."""
    config = configuration(model, task_name, rehearsal)
    use_compilation_cache()
    task = load_task(
        config.task,
        config.data,
        data_dir=None,
        cache_dir=default_cache_dir(),
        progress=lambda done, total, what: None,
    )
    notes = Notes()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, task, Path(folder), Clock())
        run.session.reporter.sinks = [notes]
        stalls = Stalls(run)
        start = time.perf_counter()
        with suppress(Interrupted):
            run.run(AtStep(run, round(config.compression.window * config.steps) + AFTER))
        seconds = time.perf_counter() - start
        run.close()
    at = {name: {} for name in ("shrink", "rehearsal", "takeover")}
    for event in notes.events:
        if event["event"] in at:
            at[event["event"]][event["step"]] = event
    for stall in stalls.noted:
        shrink, rehearsal_event = at["shrink"][stall["step"]], at["rehearsal"].get(stall["step"])
        stall["d_state"] = [[row["before"], row["after"]] for row in shrink["layers"]]
        stall["shrink"] = shrink["duration"]
        stall["plan"], stall["compress"] = shrink["plan_seconds"], shrink["compress_seconds"]
        stall["compiled"] = sum(
            event["seconds"]
            for event in notes.events
            if event["event"] == "compile"
            and event["step"] == stall["step"]
            and not event["background"]
        )
        if rehearsal_event:
            stall["waited"] = rehearsal_event["waited"]
            stall["rehearsal"] = rehearsal_event["seconds"]
    takeovers = [
        {name: event[name] for name in ("step", "d_state", "seconds", "waited")}
        for event in at["takeover"].values()
    ]
    return {"stalls": stalls.noted, "takeovers": takeovers, "seconds": seconds}


def in_a_process(model: str, task: str, rehearsed: bool, cache: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--model", model, "--task", task, "--child"]
    command += [] if rehearsed else ["--no-rehearsal"]
    done = subprocess.run(
        command,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(model: str, task: str, repeats: int) -> list[dict[str, Any]]:
    """All cases, in turns."""
    rows = []
    for repeat in range(repeats):
        for rehearsed in (True, False) if repeat % 2 == 0 else (False, True):
            with tempfile.TemporaryDirectory() as cache:
                for which in ("first run", "later run"):
                    result = in_a_process(model, task, rehearsed, cache)
                    rows.append({"rehearsed": rehearsed, "cache": which, **result})
    return rows


def report(content: dict[str, Any]) -> list[str]:
    """The table, in Markdown."""
    lines = [
        f"Stall of a shrink in seconds, {content['model']} on {content['task']}, small preset: "
        "from the last step before it to the next steps' dispatch. "
        f"{content['repeats']} runs of each kind, in turns.",
        "",
        "| | in the background | stall, median | worst | of it compiling, median "
        "| waiting for the rehearsal (first shrink) | plan + compress, median "
        "| waiting at takeovers, in all | whole run, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for which in ("first run", "later run"):
        for rehearsed in (True, False):
            runs = [
                r for r in content["runs"] if (r["cache"], r["rehearsed"]) == (which, rehearsed)
            ]
            stalls = [s for r in runs for s in r["stalls"]]
            if not stalls:
                continue

            def median(key: str, stalls: list[dict[str, Any]] = stalls) -> str:
                found = [s[key] for s in stalls if key in s]
                return f"{np.median(found):.2f}" if found else "–"

            reduction = np.median([s["plan"] + s["compress"] for s in stalls])
            takeovers = np.median([sum(t["waited"] for t in r["takeovers"]) for r in runs])
            lines.append(
                f"| {which} | {'yes' if rehearsed else 'no'} | {median('seconds')} "
                f"| {max(s['seconds'] for s in stalls):.2f} | {median('compiled')} "
                f"| {median('waited')} | {reduction:.2f} "
                f"| {f'{takeovers:.2f}' if rehearsed else '–'} "
                f"| {np.median([r['seconds'] for r in runs]):.1f} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="s5")
    parser.add_argument("--task", default="pathfinder")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="the digits, once; writes no results")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--no-rehearsal", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        rehearsal = 0 if options.no_rehearsal else None
        print(json.dumps(one_run(options.model, options.task, rehearsal)))
        return
    task = "digits" if options.quick else options.task
    repeats = 1 if options.quick else options.repeats
    configuration(options.model, task, None)  # says what is wrong with the names
    content = {
        "model": options.model,
        "task": task,
        "repeats": repeats,
        "runs": measure(options.model, task, repeats),
    }
    if options.quick:
        print("\n".join(report(content)))
    else:
        write("shrink", content, report(content))


if __name__ == "__main__":
    main()
