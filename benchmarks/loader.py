"""Batches per second from memory, by the storage of a split.

    python benchmarks/loader.py

Draws shuffled batches of 64 sequences of 1024 samples by `data.train_batch`, as a run does, 25 at a
time, from 16384 sequences (64 MiB as bytes, 256 MiB as floats), and writes `results/loader.json`
and `results/loader.md`. Batches are float32 [64 1024 1] (262 144 bytes) unless the row says
otherwise. Stored float32 is copied row by row, stored bytes are converted as well, so they cost
more here and a quarter of the memory.
"""

import time

import numpy as np
from harness import table, write

from data import Split, text_split, train_batch

N, L, B, COUNT = 16_384, 1024, 64, 25


def splits() -> dict[str, Split]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, N).astype(np.int32)
    pixels = rng.integers(0, 256, (N, L, 1)).astype(np.uint8)
    tokens, text = pixels[:, :, 0], pixels.reshape(-1)
    return {
        "float32 values": Split(pixels.astype(np.float32), labels),
        "bytes, to float32": Split(pixels, labels),
        "bytes, to float32, scaled": Split(pixels, labels, offset=127.5, scale=1 / 127.5),
        "tokens in bytes, to int32 [64 1024]": Split(tokens, labels, input_kind="tokens"),
        "windows of a text, to int32 [64 1024] and labels": text_split(text[: N * 64], L, 1),
    }


def batches_per_second(split: Split, seconds: float = 4.0) -> float:
    """The best of stretches of a fifth of `seconds`, after a first draw for the permutation."""
    train_batch(split, B, 0, 0, COUNT)
    best, step = 0.0, 0
    for _ in range(5):
        start, before = time.perf_counter(), step
        while time.perf_counter() - start < seconds / 5:
            train_batch(split, B, 0, step, COUNT)
            step += COUNT
        best = max(best, (step - before) / (time.perf_counter() - start))
    return best


def main() -> None:
    rates = {name: batches_per_second(split) for name, split in splits().items()}
    rows = [[name, f"{rate:,.0f}"] for name, rate in rates.items()]
    note = f"Batches of {B} sequences of {L} samples, {COUNT} in a call, best of 5 stretches."
    write(
        "loader",
        {"batches_per_second": rates},
        [*table(["stored as", "batches/s"], rows), "", note],
    )


if __name__ == "__main__":
    main()
