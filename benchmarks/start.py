"""How long a command takes to its first training step, and where that goes.

    python benchmarks/start.py [--repeats 5]
    python benchmarks/start.py --quick     # a small task, once; writes no results

First imports, each in a process of its own, in turns: JAX and Equinox, and what stands on them.
Then `scripts/train.py` from the start of its process to the end of its first training step, with
compiled programs in the cache and without; data is prepared before. Tracing, lowering and compiling
are as JAX counts them (`jax.monitoring`), of all programs up to there; a program that is found in
the cache is compiled in the time that it takes to be read. Last, networks of 2 and 24 blocks.
Writes `results/start.json` (with versions and hardware) and `results/start.md`.
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
from harness import table, write

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


def measure_depth(quick: bool) -> dict[str, float]:
    """Seconds to trace and to compile a step's gradient, by the number of blocks."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from zoo import BATCH_AXIS, S5, classifier

    jax.config.update("jax_enable_compilation_cache", False)
    seconds = {}
    for blocks in (2, 4) if quick else (2, 24):
        model, state = classifier(
            lambda key: S5.init(64, 64, key=key),
            input_kind="real",
            input_size=1,
            classes=2,
            d_model=64,
            blocks=blocks,
            key=jax.random.key(0),
        )

        @eqx.filter_grad
        def loss(model, state, x):
            run = jax.vmap(lambda x: model(x, state)[0], axis_name=BATCH_AXIS)
            return jnp.mean(run(x) ** 2)

        start = time.perf_counter()
        eqx.filter_jit(loss).lower(model, state, jnp.zeros((8, 256, 1))).compile()
        seconds[str(blocks)] = time.perf_counter() - start
    return seconds


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
    depth = "; ".join(f"{blocks} blocks {s:.1f} s" for blocks, s in content["depth"].items())
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
        f"Gradient of a classifier, traced and compiled: {depth}.",
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
        "depth": measure_depth(options.quick),
    }
    if options.quick:
        print("\n".join(lines(content)))
    else:
        write("start", content, lines(content))


if __name__ == "__main__":
    main()
