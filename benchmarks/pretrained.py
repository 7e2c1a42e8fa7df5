"""Memory and time of a pretrained model at size: loading, writing, judging, shrinking.

    python benchmarks/pretrained.py [--repeats 3]
    python benchmarks/pretrained.py --quick     # a small model, once; writes no results

Weights are drawn at random in the shape of mamba-130m (24 layers, 768 channels, 16 states, 50 280
tokens). Each job is a process of its own, with an empty compilation cache, in turns. Its peak is
that of the whole process (`VmHWM`, on Linux), whose C library has the settings of the scripts; the
memory of the imports is listed beside it.
Shrinking is as `scripts/shrink.py` does it by default, on texts of two lengths. Writes
`results/pretrained.json` (with versions and hardware) and `results/pretrained.md`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from training.commands.shrink import judge_language_model, shrink_language_model
from zoo import Mamba, generate, language_model, scanned
from zoo.pretrained import load, save

SHAPE = {"vocabulary": 50280, "d_model": 768, "blocks": 24, "d_state": 16}
QUICK = {"vocabulary": 503, "d_model": 32, "blocks": 3, "d_state": 8}

TEXTS = {"short": 20_000, "long": 200_000}
"""Tokens of a text."""


def make(folder: Path, shape: dict[str, int]) -> None:
    """A checkpoint of random weights."""
    model, _ = language_model(
        lambda key: Mamba.init(shape["d_model"], shape["d_state"], key=key),
        vocabulary=shape["vocabulary"],
        d_model=shape["d_model"],
        blocks=shape["blocks"],
        key=jax.random.key(0),
    )
    save(folder, model)


def text(shape: dict[str, int], tokens: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, shape["vocabulary"], tokens).astype(np.int32)


def do_nothing(folder: Path, shape: dict[str, int]) -> dict[str, float]:
    """The memory of imports and JAX itself."""
    jax.block_until_ready(jnp.zeros(1))
    return {}


def do_load(folder: Path, shape: dict[str, int]) -> dict[str, float]:
    jax.block_until_ready(jax.tree.leaves(load(folder)))
    return {}


def do_generate(folder: Path, shape: dict[str, int]) -> dict[str, float]:
    """20 tokens after a prompt of 12, the first time and again."""
    model, prompt = load(folder), text(shape, 12)[None]
    deep, seconds = scanned(model), []
    for length in (12, 12, 9):
        start = time.perf_counter()
        jax.block_until_ready(generate(deep, prompt[:, :length], 20, temperature=0)[0])
        seconds.append(time.perf_counter() - start)
    names = ("first", "again", "another length of the bucket")
    return {f"seconds, {name}": each for name, each in zip(names, seconds, strict=True)}


def do_judge(folder: Path, shape: dict[str, int]) -> dict[str, float]:
    """Perplexity of 16 pieces of 256 tokens."""
    judge_language_model(load(folder), text(shape, TEXTS["short"]), judged=16)
    return {}


def shrinking(tokens: int) -> Callable[[Path, dict[str, int]], dict[str, float]]:
    def do_shrink(folder: Path, shape: dict[str, int]) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as work:
            shrink_language_model(
                load(folder), text(shape, tokens), tau=0.1, judged=8, work=Path(work)
            )
        return {}

    return do_shrink


JOBS: dict[str, Callable[[Path, dict[str, int]], dict[str, float]]] = {
    "imports": do_nothing,
    "load": do_load,
    "generate": do_generate,
    "judge": do_judge,
    **{f"shrink, {name} text": shrinking(tokens) for name, tokens in TEXTS.items()},
}


def peak_mb() -> float:
    """The most memory that this process has had: `ru_maxrss` would count its parent's before it."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1.024 / 1e3


def child(job: str, folder: Path, shape: dict[str, int]) -> dict[str, float]:
    """One job in a process of its own."""
    with tempfile.TemporaryDirectory() as cache:
        options = [*(["--quick"] if shape is QUICK else []), "--folder", str(folder)]
        command = [sys.executable, str(Path(__file__)), "--child", job, *options]
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
        start = time.perf_counter()
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    measured = json.loads(done.stdout.splitlines()[-1])
    return measured | {"seconds": time.perf_counter() - start}


def lines(measured: dict[str, list[dict[str, float]]], size: float) -> list[str]:
    from harness import table

    def middle(job: str, key: str) -> float:
        return float(np.median([each[key] for each in measured[job]]))

    rows = []
    for job in measured:
        peak = middle(job, "peak_mb")
        own = peak - middle("imports", "peak_mb")
        rows.append([job, f"{peak:.0f}", f"{own / size:.2f}", f"{middle(job, 'seconds'):.1f}"])
    generated = measured.get("generate", [{}])[0]
    more = [
        f"- {key.removeprefix('seconds, ')}: {middle('generate', key):.2f} s"
        for key in generated
        if key.startswith("seconds, ")
    ]
    times = len(measured["imports"])
    processes = "One process" if times == 1 else f"Medians of {times} processes"
    return [
        f"A model of the shape of mamba-130m, {size:.0f} MB of weights in float32. {processes} for "
        "each job, with an empty compilation cache; seconds are those of the whole process.",
        "",
        *table(["job", "peak, MB", "beyond imports, of the file", "s"], rows),
        "",
        "20 tokens after 12, within the process:",
        "",
        *more,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="processes of each job")
    parser.add_argument("--quick", action="store_true", help="a small model, written nowhere")
    parser.add_argument("--jobs", nargs="+", choices=tuple(JOBS), default=list(JOBS))
    parser.add_argument("--child", choices=tuple(JOBS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = QUICK if options.quick else SHAPE
    if options.child:
        told = JOBS[options.child](options.folder, shape)
        print(json.dumps({"peak_mb": peak_mb(), **told}))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        make(folder, shape)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        measured: dict[str, list[Any]] = {job: [] for job in options.jobs}
        for _ in range(1 if options.quick else options.repeats):
            for job in options.jobs:
                measured[job].append(child(job, folder, shape))
    if options.quick:
        print("\n".join(lines(measured, size)))
    else:
        from harness import write  # only here: it sets how the process keeps freed memory

        write("pretrained", {"file_mb": size, "processes": measured}, lines(measured, size))


if __name__ == "__main__":
    main()
