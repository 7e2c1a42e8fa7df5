"""The effect of keeping freed memory in the process for its next step.

    python benchmarks/memory.py [--quick]

The same work in processes of two kinds, in turns: in one, `training.run.memory.keep_freed_memory`
lets the C library keep freed memory; in the other it returns to the system, as by glibc's default.
Training steps of ours, one to a dispatch, and the time-varying recurrence, with their page faults
and the time that the system took for them. Writes `results/memory.json` and `results/memory.md`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from harness import alternate, table, write
from layer import time_varying_programs
from programs import Program
from step import QUICK, SETTINGS

HABITS = ("kept", "given back")
NEUTRAL = {"MALLOC_PERTURB_": "0"}
"""A setting that changes nothing, except that `keep_freed_memory` leaves the library alone."""


def jobs(quick: bool) -> Iterator[tuple[str, Callable[[], Any]]]:
    for name, (setting, states) in (QUICK if quick else SETTINGS).items():
        yield f"{name}, {states[-1]} states", Program(setting, states[-1], "ours")
    yield "time-varying recurrence", time_varying_programs(16 if quick else 1024)["ours"]


def measure(job: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Of one call: median of the time, page faults, seconds of the processor in the system."""
    seconds = alternate({"job": job}, repeats)["job"]["median"]
    before, calls = resource.getrusage(resource.RUSAGE_SELF), 10
    for _ in range(calls):
        jax.block_until_ready(job())
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds,
        "faults": (after.ru_minflt - before.ru_minflt) / calls,
        "system": (after.ru_stime - before.ru_stime) / calls,
        "peak_mib": after.ru_maxrss / 1024,
    }


def child(habit: str, quick: bool) -> dict[str, dict[str, float]]:
    """All jobs in a process of their own."""
    command = [sys.executable, str(Path(__file__)), "--child", *(["--quick"] if quick else [])]
    settings = ("MALLOC_", "GLIBC_TUNABLES")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(settings)}
    environment |= NEUTRAL if habit == "given back" else {}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def lines(measured: dict[str, list[dict[str, dict[str, float]]]]) -> list[str]:
    def cells(name: str) -> list[str]:
        rounds = {habit: [r[name] for r in measured[habit]] for habit in HABITS}
        pairs = zip(rounds["kept"], rounds["given back"], strict=True)
        ratio = np.median([back["seconds"] / kept["seconds"] for kept, back in pairs])
        middle = {
            habit: {key: float(np.median([r[key] for r in of])) for key in of[0]}
            for habit, of in rounds.items()
        }
        both = [
            " / ".join(f"{scale * middle[habit][key]:.{digits}f}" for habit in HABITS)
            for key, scale, digits in (("seconds", 1e3, 1), ("system", 1e3, 1), ("faults", 1, 0))
        ]
        return [name, *both, f"{ratio:.2f}"]

    names = list(measured[HABITS[0]][0])
    peak = {
        habit: np.median([max(j["peak_mib"] for j in r.values()) for r in of])
        for habit, of in measured.items()
    }
    return [
        "Training steps one by one and `linear_recurrence` forward and backward, where freed "
        "memory is kept / given back to the system. Gain: how many times faster a call is with "
        f"memory kept, median of {len(measured[HABITS[0]])} pairs of processes.",
        "",
        *table(
            ["work", "ms", "of the system, ms", "page faults", "gain"], [cells(n) for n in names]
        ),
        "",
        "Peak memory of a process that does all of it: "
        + ", ".join(f"{peak[habit]:.0f} MiB {habit}" for habit in HABITS)
        + ".",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3, help="processes of each kind")
    parser.add_argument("--quick", action="store_true", help="small sizes, written nowhere")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        repeats = 2 if options.quick else 7
        print(json.dumps({name: measure(job, repeats) for name, job in jobs(options.quick)}))
        return
    measured: dict[str, list] = {habit: [] for habit in HABITS}
    for _ in range(1 if options.quick else options.pairs):
        for habit in HABITS:
            measured[habit].append(child(habit, options.quick))
    if options.quick:
        print("\n".join(lines(measured)))
    else:
        write("memory", {"processes": measured}, lines(measured))


if __name__ == "__main__":
    main()
