"""How long a command takes to its first training step, and where that goes.

    python benchmarks/start.py [--repeats 5]
    python benchmarks/start.py --quick     # a small task, once; writes no results

First imports, each in a process of its own, in turns: JAX and Equinox, and what stands on them.
Then `scripts/train.py` from the start of its process to the end of its first training step, with
compiled programs in the cache and without; data is prepared before. Tracing, lowering and compiling
are as JAX counts them (`jax.monitoring`), of all programs up to there; a program that is found in
the cache is compiled in the time that it takes to be read. Last, networks of 2 and 24
blocks, in one scan and block by block. Writes `results/start.json` (with versions and hardware) and
`results/start.md`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import milliseconds, table, write

IMPORTS = {
    "jax, equinox": "import jax, equinox",
    "jax, equinox, optax": "import jax, equinox, optax",
    "zoo, compress": "import zoo, compress",
    "a layer, a network": "from zoo import LRU, classifier",
    "these and compress": "from zoo import LRU, classifier; from compress import compress",
    "all of the training script": "import training.commands.train",
}

TRAIN = ["--model", "s5", "--task", "pathfinder"]
QUICK = ["--model", "s5", "--task", "digits"]

TOLD = {
    "jaxpr_trace_duration": "tracing",
    "jaxpr_to_mlir_module_duration": "lowering",
    "backend_compile_duration": "compiling",
}
PHASES = ("imports", "data", *TOLD.values(), "all")
BEGAN = "COMPRESSM_START_BEGAN"


def child(arguments: list[str]) -> None:
    """`scripts/train.py` up to the end of its first training step, and what took how long."""
    began, seconds = float(os.environ[BEGAN]), dict.fromkeys(PHASES, 0.0)

    from rich.console import Console

    from training.commands import train
    from training.run.engine import Engine
    from training.settings.command import parse_command

    seconds["imports"] = time.time() - began

    import jax

    def listen(event: str, duration: float, **_: Any) -> None:
        if name := TOLD.get(event.rsplit("/", 1)[-1]):
            seconds[name] += duration

    jax.monitoring.register_event_duration_secs_listener(listen)
    load, first = train.load_data, Engine.train

    def load_data(*given: Any) -> Any:
        start = time.perf_counter()
        task = load(*given)
        seconds["data"] += time.perf_counter() - start
        return task

    def one_step(*given: Any) -> Any:
        jax.block_until_ready(jax.tree.leaves(first(*given)))
        seconds["all"] = time.time() - began
        print(json.dumps(seconds), flush=True)
        os._exit(0)

    train.load_data, Engine.train = load_data, one_step
    train.execute(parse_command(arguments), Console(file=sys.stderr))


def to_first_step(arguments: list[str], cache: Path) -> dict[str, float]:
    """Seconds of each phase, of a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        more = ["--out", str(Path(folder) / "run")]
        command = [sys.executable, str(Path(__file__)), "--child", *arguments, *more]
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
        environment[BEGAN] = str(time.time())
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_imports(repeats: int) -> dict[str, list[float]]:
    """Seconds of processes that import and end, in turns; the first turn fills the disk's cache."""
    seconds: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for k in range(repeats + 1):
        for name, what in IMPORTS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", what], check=True)
            if k:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def measure_steps(arguments: list[str], repeats: int) -> dict[str, list[dict[str, float]]]:
    """Phases of runs with an empty cache, and with one that holds their programs."""
    found: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as place:
        to_first_step(arguments, Path(place) / "prepared")  # data as well
        for k in range(repeats):
            cache = Path(place) / str(k)
            for name in found:
                found[name].append(to_first_step(arguments, cache))
    return found


def measure_depth(quick: bool, repeats: int) -> list[dict[str, Any]]:
    """The gradient of few and of many blocks, in one scan and block by block: seconds to trace and
    compile it, and of a call."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    from harness import alternate

    from zoo import BATCH_AXIS, S5, classifier

    jax.config.update("jax_enable_compilation_cache", False)
    few, many = (2, 4) if quick else (2, 24)
    rows, jobs = [], {}
    for blocks, scan_above in ((few, many), (many, few), (many, many)):
        model, state = classifier(
            lambda key: S5.init(64, 64, key=key),
            input_kind="real",
            input_size=1,
            classes=2,
            d_model=64,
            blocks=blocks,
            scan_above=scan_above,
            key=jax.random.key(0),
        )
        arrays, static = eqx.partition(model, eqx.is_inexact_array)

        def loss(arrays: Any, state: Any, x: Any, static: Any = static) -> Any:
            model = eqx.combine(arrays, static)
            run = jax.vmap(lambda x: model(x, state)[0], axis_name=BATCH_AXIS)
            return jnp.mean(run(x) ** 2)

        start = time.perf_counter()
        given = arrays, state, jax.random.normal(jax.random.key(1), (8, 256, 1))
        compiled = jax.jit(jax.grad(loss)).lower(*given).compile()
        seconds = time.perf_counter() - start
        jobs[len(rows)] = lambda compiled=compiled, given=given: compiled(*given)
        rows.append({"blocks": blocks, "in_one_scan": scan_above < blocks, "compile": seconds})
    for k, taken in alternate(jobs, repeats).items():
        rows[k]["seconds"] = taken
    return rows


def lines(content: dict[str, Any]) -> list[str]:
    base = float(np.median(content["imports"]["jax, equinox"]))
    imports = []
    for name, seconds in content["imports"].items():
        low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75))
        imports.append([name, f"{median:.2f} ({low:.2f}-{high:.2f})", f"{median / base:.2f}"])
    steps = [
        [
            phase,
            *[
                f"{np.median([run[phase] for run in content['steps'][cache]]):.2f}"
                for cache in ("cold", "warm")
            ],
        ]
        for phase in PHASES
    ]
    depth = [
        [
            row["blocks"],
            "one scan" if row["in_one_scan"] else "one by one",
            f"{row['compile']:.1f}",
            milliseconds(row["seconds"]),
        ]
        for row in content["depth"]
    ]
    return [
        "Imports, each in a process of its own: median and quartiles, and the ratio to the first.",
        "",
        *table(["import", "s", "ratio"], imports),
        "",
        f"From the command `scripts/train.py {' '.join(content['command'])}` to the end of its "
        f"first training step, medians of {len(content['steps']['cold'])} runs, in seconds. Two "
        "threads trace and compile at the same time, so their phases add up to more than all:",
        "",
        *table(["where it goes", "no cache", "warm cache"], steps),
        "",
        "Gradient of a classifier of S5 layers, 64 channels and states, 8 sequences of 256 "
        "samples:",
        "",
        *table(["blocks", "run", "trace and compile, s", "call, ms"], depth),
    ]


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="processes of each kind")
    parser.add_argument("--quick", action="store_true", help="a small task, written nowhere")
    options = parser.parse_args()
    repeats, command = (1, QUICK) if options.quick else (options.repeats, TRAIN)
    content = {
        "command": command,
        "imports": measure_imports(repeats),
        "steps": measure_steps(command, repeats),
        "depth": measure_depth(options.quick, repeats),
    }
    if options.quick:
        print("\n".join(lines(content)))
    else:
        write("start", content, lines(content))


if __name__ == "__main__":
    main()
