"""Tokens per second of language models of the shape of mamba-130m and mamba2-130m.

    python benchmarks/generate.py [--repeats 5]
    python benchmarks/generate.py --quick     # small models, once; writes no results

Weights are drawn at random. Three tables: single tokens after one another at batch 1 and 16 and the
prefill of a prompt, in float32, in 8 bits, and by transformers on the same weights where the extra
`hf` is installed; batches of models with fewer states, as compression leaves them; programs that
are compiled for other lengths of the same buckets. The weights have to be read once for each token:
what that takes of the memory's bandwidth, which a copy on all cores measures in the same run, is
told beside it. All jobs of a table take turns in one process. Writes `results/generate.json` (with
versions and hardware) and `results/generate.md`.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from harness import alternate, table, write

from zoo import LanguageModel, Mamba, Mamba2, generate, language_model, quantize, scanned
from zoo.pretrained import save
from zoo.recurrence.choice import usable_cores

SHAPE = {"vocabulary": 50280, "d_model": 768, "blocks": 24}
QUICK = {"vocabulary": 503, "d_model": 64, "blocks": 3}

LAYERS: dict[str, Callable[..., Any]] = {"mamba": Mamba.init, "mamba2": Mamba2.init}
STATES = {"mamba": (16, 8), "mamba2": (128, 64, 32)}
"""States before compression, and after it."""

BATCHES = (1, 16)
PREFILL = 512
COPIED = 2**28
"""Bytes of the copy that the memory's bandwidth is measured by."""


def make(kind: str, d_state: int, shape: dict[str, int]) -> LanguageModel:
    """A model of random weights."""
    model, _ = language_model(
        lambda key: LAYERS[kind](shape["d_model"], d_state, key=key),
        vocabulary=shape["vocabulary"],
        d_model=shape["d_model"],
        blocks=shape["blocks"],
        key=jax.random.key(0),
    )
    return model


def size_of(model: Any) -> int:
    """Bytes of all weights."""
    return sum(x.nbytes for x in jax.tree.leaves(model) if eqx.is_array(x))


def bandwidth() -> float:
    """Bytes read and written in a second by a copy on all cores, the best of some."""
    cores = usable_cores()
    each = COPIED // cores
    pairs = [(np.ones(each, np.uint8), np.zeros(each, np.uint8)) for _ in range(cores)]
    with ThreadPoolExecutor(cores) as pool:
        seconds = []
        for _ in range(7):
            start = time.perf_counter()
            list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs))
            seconds.append(time.perf_counter() - start)
    return 2 * COPIED / min(seconds)


def prompts(batch: int, length: int, shape: dict[str, int]) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, shape["vocabulary"], (batch, length)).astype(np.int32)


def ours(model: Any, prompt: np.ndarray, tokens: int) -> Callable[[], Any]:
    return lambda: generate(model, prompt, tokens, temperature=0)[0]


def theirs(folder: Path, kind: str) -> Any:
    """The model of transformers from a folder, on as many threads as there are cores."""
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(usable_cores())
    name = {"mamba": "MambaForCausalLM", "mamba2": "Mamba2ForCausalLM"}[kind]
    return getattr(transformers, name).from_pretrained(folder).eval()


def by_them(model: Any, prompt: np.ndarray, tokens: int) -> Callable[[], Any]:
    import torch  # pyright: ignore[reportMissingImports]

    rows = torch.as_tensor(prompt, dtype=torch.long)

    def job() -> np.ndarray:
        with torch.inference_mode():
            made = model.generate(
                rows,
                attention_mask=torch.ones_like(rows),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
            )
        return made[:, prompt.shape[1] :].numpy()

    return job


def measure_speed(kind: str, shape: dict[str, int], tokens: int, repeats: int) -> list[Any]:
    """Rows of the first table: tokens, prefill, by whom."""
    model = make(kind, STATES[kind][0], shape)
    kinds = {"float32": scanned(model), "8 bits": scanned(quantize(model))}
    bytes_read = {name: size_of(each) for name, each in kinds.items()}
    peer = None
    if importlib.util.find_spec("transformers") and importlib.util.find_spec("torch"):
        with tempfile.TemporaryDirectory() as folder:
            save(folder, model)
            peer = theirs(Path(folder), kind)
        bytes_read["transformers"] = bytes_read["float32"]
    rows = []
    tasks = [(batch, 1, tokens) for batch in BATCHES] + [(1, PREFILL, 1)]
    for batch, length, made in tasks:
        prompt = prompts(batch, length, shape)
        jobs = {name: ours(each, prompt, made) for name, each in kinds.items()}
        if peer is not None:
            jobs["transformers"] = by_them(peer, prompt, made)
        speed = bandwidth()
        found = {name: np.asarray(job()) for name, job in jobs.items()}
        seconds = alternate(jobs, repeats)
        each = batch * (length if made == 1 else made)
        for name, taken in seconds.items():
            row = {
                "model": kind,
                "by": name,
                "batch": batch,
                "prompt": length,
                "tokens": made,
                "seconds": taken,
                "tokens_per_second": each / taken["median"],
                "as_float32": float(np.mean(found[name] == found["float32"])),
            }
            if made > 1:
                read = bytes_read[name] * made / taken["median"]
                row |= {"weights_mb": bytes_read[name] / 1e6, "share_of_copy": read / speed}
                row["copy_gb_per_second"] = speed / 1e9
            rows.append(row)
    return rows


def measure_states(kind: str, shape: dict[str, int], tokens: int, repeats: int) -> list[Any]:
    """Rows of the second table: a batch, with states as they are before and after compression."""
    batch = BATCHES[-1]
    prompt = prompts(batch, 1, shape)
    models = {N: scanned(make(kind, N, shape)) for N in STATES[kind]}
    jobs = {N: ours(model, prompt, tokens) for N, model in models.items()}
    return [
        {
            "model": kind,
            "d_state": N,
            "batch": batch,
            "seconds": taken,
            "tokens_per_second": batch * tokens / taken["median"],
        }
        for N, taken in alternate(jobs, repeats).items()
    ]


def programs_compiled(kind: str, shape: dict[str, int]) -> dict[str, int]:
    """Programs compiled for a first call, and for three more of other lengths of its buckets."""
    events: list[str] = []

    def listen(event: str, *_: Any, **__: Any) -> None:
        events.append(event) if event.endswith("backend_compile_duration") else None

    jax.monitoring.register_event_duration_secs_listener(listen)
    model = scanned(make(kind, 4, shape | {"blocks": 2}))
    counts = []
    for lengths in ([(24, 20)], [(17, 17), (32, 32), (25, 29)]):
        events.clear()
        for length, tokens in lengths:
            jax.block_until_ready(generate(model, prompts(1, length, shape), tokens, temperature=0))
        counts.append(len(events))
    return {"first": counts[0], "others": counts[1]}


def lines(content: dict[str, Any]) -> list[str]:
    speed = [
        [
            row["model"],
            row["batch"],
            f"{row['prompt']} + {row['tokens']}",
            row["by"],
            f"{row['tokens_per_second']:.1f}",
            f"{row['weights_mb']:.0f}" if "weights_mb" in row else "",
            f"{row['share_of_copy']:.0%}" if "share_of_copy" in row else "",
            f"{row['as_float32']:.0%}",
        ]
        for row in content["speed"]
    ]
    states = [
        [row["model"], row["d_state"], row["batch"], f"{row['tokens_per_second']:.1f}"]
        for row in content["states"]
    ]
    columns = ["model", "batch", "prompt + tokens", "by", "tokens/s", "weights, MB"]
    compiled = "; ".join(
        f"{kind} {counts['first']} and {counts['others']}"
        for kind, counts in content["programs"].items()
    )
    return [
        "Language models of the shapes of mamba-130m and mamba2-130m, with random weights: tokens "
        "in a second, medians of jobs that take turns. The share is that of what a copy on all "
        "cores reads and writes, taken by reading the weights once for each token; the last column "
        "says how many tokens are those of float32.",
        "",
        *table([*columns, "share of a copy", "same tokens"], speed),
        "",
        "Fewer states, as after compression:",
        "",
        *table(["model", "states", "batch", "tokens/s"], states),
        "",
        "Programs compiled by a first call, and by three more with other lengths of the same "
        f"buckets: {compiled}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="turns of each job")
    parser.add_argument("--tokens", type=int, default=32, help="tokens that are made")
    parser.add_argument("--quick", action="store_true", help="small models, written nowhere")
    options = parser.parse_args()
    shape, repeats = (QUICK, 1) if options.quick else (SHAPE, options.repeats)
    content: dict[str, Any] = {"shape": shape, "speed": [], "states": [], "programs": {}}
    for kind in LAYERS:
        content["speed"] += measure_speed(kind, shape, options.tokens, repeats)
        content["states"] += measure_states(kind, shape, options.tokens, repeats)
        content["programs"][kind] = programs_compiled(kind, QUICK)
    if options.quick:
        print("\n".join(lines(content)))
    else:
        write("generate", content, lines(content))


if __name__ == "__main__":
    main()
