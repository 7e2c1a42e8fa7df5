"""Predictions of a trained model for the sequences in a file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.readers.sequences import read_sequences

from ..finished.trained import TrainedRun
from ..reporting.events import write_atomically
from ..settings.errors import UsageError

CLASSES = ("classification", "pair")
"""Kinds of tasks whose outputs are logits of the classes of a sequence."""

SUFFIXES = (".npz", ".csv")


def read_inputs(file: Path, run: TrainedRun) -> dict[str, np.ndarray]:
    """The `inputs` in a file, and `lengths` and `intervals` if there are any, for `run`.

    `UsageError` for another file, and for one without inputs.
    """
    try:
        return read_sequences(file, run.config.data, run.task.input_kind)
    except (OSError, ValueError) as error:
        raise UsageError(" ".join(str(error).split())) from None


def predictions(run: TrainedRun, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The `outputs` of the model for `inputs`, `lengths` and `intervals`.

    For logits also the `labels` (the likeliest class of each sequence, or its labels in a
    multi-label task) and the `probabilities`.
    """
    outputs = run.predict(arrays["inputs"], arrays.get("lengths"), arrays.get("intervals"))
    if run.task.kind == "multilabel":
        probabilities = 1 / (1 + np.exp(-outputs))
        labels = (outputs > 0).astype(np.int32)
        return {"outputs": outputs, "labels": labels, "probabilities": probabilities}
    if run.task.kind not in CLASSES:
        return {"outputs": outputs}
    weights = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    probabilities = weights / weights.sum(axis=-1, keepdims=True)
    labels = outputs.argmax(axis=-1)
    return {"outputs": outputs, "labels": labels, "probabilities": probabilities}


def write_predictions(
    file: Path, found: Mapping[str, np.ndarray], lengths: np.ndarray | None = None
) -> None:
    """Write what `predictions` gives, as arrays (.npz) or as a table (.csv).

    The table has a row for each sequence, or for each of its samples that is not padding.
    """
    if file.suffix == ".csv":
        rows = _rows(found, lengths)
        write_atomically(file, ((",".join(map(str, row)) + "\n").encode() for row in rows))
        return
    part = file.with_name(f".{file.name}.tmp.npz")
    np.savez(part, **found)  # pyright: ignore[reportArgumentType]
    part.replace(file)


def _rows(found: Mapping[str, np.ndarray], lengths: np.ndarray | None) -> Iterator[list[Any]]:
    if "labels" in found and found["labels"].ndim == 1:
        shares = found["probabilities"]
        yield ["sequence", "label", *(f"p{k}" for k in range(shares.shape[1]))]
        for k, (label, row) in enumerate(zip(found["labels"], shares, strict=True)):
            yield [k, label, *row]
        return
    outputs = found.get("labels", found["outputs"])
    if outputs.ndim == 2:  # values of each sequence
        yield ["sequence", *(f"y{k}" for k in range(outputs.shape[1]))]
        yield from ([k, *row] for k, row in enumerate(outputs))
        return
    yield ["sequence", "sample", *(f"y{k}" for k in range(outputs.shape[-1]))]
    for k, sequence in enumerate(outputs):
        own = len(sequence) if lengths is None else lengths[k]
        for t, values in enumerate(sequence[:own]):
            yield [k, t, *values]
