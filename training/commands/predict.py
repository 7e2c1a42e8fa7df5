"""Predictions of a trained model for the sequences in a file."""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.readers.sequences import read_sequences
from data.task import Task

from ..finished.trained import TrainedRun
from ..reporting.events import write_atomically
from ..settings.errors import UsageError

CLASSES = ("classification", "pair")
"""Kinds of tasks whose outputs are logits of the classes of a sequence."""

SUFFIXES = (".npz", ".csv")

WINDOWS = 1024
"""Forecasts that are made before all but their last step is let go."""


def read_inputs(file: Path, run: TrainedRun) -> dict[str, np.ndarray]:
    """The `inputs` in a file for `run`, `lengths` and `intervals` if there are any.

    Of a series there are `rows` too: the time at which each forecast is made. `UsageError` for
    another file, and for one without inputs.
    """
    try:
        return read_sequences(file, run.config.data, run.task)
    except (OSError, ValueError) as error:
        raise UsageError(" ".join(str(error).split())) from None


def predictions(
    run: TrainedRun, arrays: Mapping[str, np.ndarray], *, scaled: bool = False
) -> dict[str, np.ndarray]:
    """The `outputs` of the model for `inputs`, `lengths` and `intervals`.

    Where they are logits, the `labels` and the `probabilities` too: the likeliest class of each
    sequence, or which of several labels it has. Of a series, the `rows` and what is forecast at
    each, [n k]. `scaled` is as in `TrainedRun.predict`.
    """
    if "rows" in arrays:
        return {"rows": arrays["rows"], "outputs": _forecasts(run, arrays, scaled)}
    given = [arrays.get(name) for name in ("inputs", "lengths", "intervals")]
    outputs = run.predict(*given, scaled=scaled)
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


def _forecasts(run: TrainedRun, arrays: Mapping[str, np.ndarray], scaled: bool) -> np.ndarray:
    """What is said at the end of each window."""
    inputs, intervals = arrays["inputs"], arrays.get("intervals")
    found = []
    for first in range(0, len(inputs), WINDOWS):
        part = slice(first, first + WINDOWS)
        times = None if intervals is None else intervals[part]
        found.append(run.predict(inputs[part], None, times, scaled=scaled)[:, -1])
    return np.concatenate(found)


def write_predictions(
    file: Path,
    found: Mapping[str, np.ndarray],
    lengths: np.ndarray | None = None,
    task: Task | None = None,
) -> None:
    """Write what `predictions` gives, as arrays (.npz) or as a table (.csv).

    The table has a row for each sequence, for each of its samples that is no padding, or for each
    row of a series. Classes, labels and values are called as in `task`, where they have names.
    """
    if file.suffix == ".csv":
        names = None if task is None else task.output_names
        write_atomically(file, (_line(row) for row in _rows(found, lengths, names)))
        return
    part = file.with_name(f".{file.name}.tmp.npz")
    np.savez(part, **found)  # pyright: ignore[reportArgumentType]
    part.replace(file)


def _line(row: list[Any]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue().encode()


def _rows(
    found: Mapping[str, np.ndarray], lengths: np.ndarray | None, names: tuple[str, ...] | None
) -> Iterator[list[Any]]:
    if "labels" in found and found["labels"].ndim == 1:
        shares = found["probabilities"]
        called = range(shares.shape[1]) if names is None else names
        yield ["sequence", "label", *(f"p{k}" if names is None else f"p({k})" for k in called)]
        for k, (label, row) in enumerate(zip(found["labels"], shares, strict=True)):
            yield [k, called[label], *row]
        return
    outputs = found.get("labels", found["outputs"])
    columns = [f"y{k}" for k in range(outputs.shape[-1])] if names is None else list(names)
    if outputs.ndim == 2:  # values of each sequence, or of each row of a series
        yield ["time" if "rows" in found else "sequence", *columns]
        at = found.get("rows", range(len(outputs)))
        yield from ([k, *row] for k, row in zip(at, outputs, strict=True))
        return
    yield ["sequence", "sample", *columns]
    for k, sequence in enumerate(outputs):
        own = len(sequence) if lengths is None else lengths[k]
        for t, values in enumerate(sequence[:own]):
            yield [k, t, *values]
