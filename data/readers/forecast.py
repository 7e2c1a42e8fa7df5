"""Forecasts from windows of one long series."""

import numpy as np
from jaxtyping import Float32

from ..task import Split, Task
from ..typing import checked
from .baselines import MOST_ROWS

MOST_FEATURES = 4096
"""Numbers in a window up to which ridge regression is fitted on it."""


@checked
def forecast_task(
    name: str,
    values: Float32[np.ndarray, "T c"],
    columns: tuple[str, ...],
    targets: tuple[str, ...],
    *,
    window: int,
    horizon: int,
    shares: tuple[float, float] = (0.1, 0.2),
    intervals: Float32[np.ndarray, " T"] | None = None,
    notes: tuple[str, ...] = (),
) -> Task:
    """From `window` rows the next `horizon` values of the columns `targets`.

    NaN in `values` is missing. `shares` of the rows, before the end and at the end, are for
    validation and testing; mean and deviation are those of the rows for training. In training,
    every step of the second half of a window has a forecast; evaluations use those at its end.
    Windows are views of one array: they take no memory. ValueError for a series that is too short
    for its windows.
    """
    bounds = _bounds(len(values), window, horizon, shares)
    first_validation = bounds["train"][1]
    known = np.isfinite(values)
    offset, scale = _statistics(values[:first_validation], known[:first_validation])
    places = tuple(columns.index(target) for target in targets)
    chosen = np.array(places)
    ahead = np.where(known[:, chosen], (values[:, chosen] - offset[chosen]) * scale[chosen], 0)
    series = _Series(
        np.where(known, values, 0),
        None if known.all() else known,
        np.ascontiguousarray(ahead, np.float32),
        None if known[:, chosen].all() else np.ascontiguousarray(known[:, chosen]),
        intervals,
        offset,
        scale,
    )
    splits = {
        name: series.split(
            (low - window, high - window - horizon + 1),
            window,
            horizon,
            asked_from=window // 2 if name == "train" else window - 1,
        )
        for name, (low, high) in bounds.items()
    }
    return Task(
        name=name,
        kind="regression",
        length=window,
        input_kind="real",
        input_size=splits["train"].channels,
        splits=splits,
        baselines=_baselines(splits, places, horizon),
        output_names=tuple(f"{t}+{k + 1}" for k in range(horizon) for t in targets),
        output_offset=tuple(map(float, np.tile(offset[chosen], horizon))),
        output_scale=tuple(map(float, np.tile(1 / scale[chosen], horizon))),
        targets=places,
        input_names=columns,
        notes=notes,
    )


def _bounds(
    T: int, window: int, horizon: int, shares: tuple[float, float]
) -> dict[str, tuple[int, int]]:
    """The first row that a split predicts, and the row after its last one."""
    first_test = T - round(shares[1] * T)
    first_validation = first_test - round(shares[0] * T)
    bounds = {
        "train": (window, first_validation),
        "validation": (max(first_validation, window), first_test),
        "test": (max(first_test, window), T),
    }
    for split, (low, high) in bounds.items():
        if high - low < horizon:
            raise ValueError(
                f"split {split} must have at least window + horizon = {window} + {horizon} rows, "
                f"got {T} rows in all"
            )
    return bounds


def _statistics(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and 1 / deviation of each column where it is known."""
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0).sum(axis=0, dtype=np.float64) / count
    spread = np.where(known, values - mean, 0)
    deviation = np.sqrt((spread**2).sum(axis=0) / count)
    constant = deviation <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
    return mean.astype(np.float32), (1 / np.where(constant, 1, deviation)).astype(np.float32)


class _Series:
    """A series, from which windows are cut as views."""

    def __init__(
        self,
        values: np.ndarray,
        known: np.ndarray | None,
        ahead: np.ndarray,
        ahead_known: np.ndarray | None,
        intervals: np.ndarray | None,
        offset: np.ndarray,
        scale: np.ndarray,
    ):
        self._values, self._known = values, known
        self._ahead, self._ahead_known = ahead, ahead_known
        self._intervals, self._offset, self._scale = intervals, offset, scale

    def split(self, rows: tuple[int, int], window: int, horizon: int, asked_from: int) -> Split:
        """The windows that begin at `rows`, with forecasts from step `asked_from` on."""
        first, last = rows
        labels = _ahead(self._ahead, first, last, window, horizon)
        asked = np.zeros((window, 1), bool)
        asked[asked_from:] = True
        label_mask = np.broadcast_to(asked, labels.shape)
        if self._ahead_known is not None:
            label_mask = label_mask & _ahead(self._ahead_known, first, last, window, horizon)
        return Split(
            _windows(self._values, first, last, window),
            labels,
            offset=self._offset,
            scale=self._scale,
            mask=None if self._known is None else _windows(self._known, first, last, window),
            intervals=(
                None
                if self._intervals is None
                else _windows(self._intervals[:, None], first, last, window)[..., 0]
            ),
            label_mask=label_mask,
        )


def _windows(series: np.ndarray, first: int, last: int, window: int) -> np.ndarray:
    """[last - first, window, channels]: the rows from each place on."""
    views = np.lib.stride_tricks.sliding_window_view(series, window, axis=0)
    return views[first:last].swapaxes(1, 2)


def _ahead(series: np.ndarray, first: int, last: int, window: int, horizon: int) -> np.ndarray:
    """[last - first, window, horizon * targets]: at each step the rows that follow it."""
    k = series.shape[1]
    following = np.lib.stride_tricks.sliding_window_view(series.reshape(-1), horizon * k)[::k][1:]
    views = np.lib.stride_tricks.sliding_window_view(following, window, axis=0)
    return views[first:last].swapaxes(1, 2)


def _baselines(
    splits: dict[str, Split], targets: tuple[int, ...], horizon: int
) -> dict[str, float]:
    """Mean squared errors on the test split: of the last value, and of ridge regression."""
    from sklearn.linear_model import Ridge

    test, train = splits["test"], splits["train"]
    seen = {name: _flat(splits[name]) for name in ("validation", "test")}
    last = _at_end(test, seen["test"], targets, horizon)
    found = {"persistence": _error(test, last)}
    if seen["test"].shape[1] > MOST_FEATURES:
        return found
    if len(train) > MOST_ROWS:
        train = train.select(np.linspace(0, len(train) - 1, MOST_ROWS).astype(np.int64))
    inputs, labels = _flat(train), train.labels[:, -1]
    start = _at_end(train, inputs, targets, horizon)
    assert train.label_mask is not None
    known = train.label_mask[:, -1].all(axis=1)
    if known.sum() < 2:
        return found
    trials = []
    for alpha in (1e-1, 1e1, 1e2, 1e3, 1e4):  # of the change from the last value
        model = Ridge(alpha).fit(inputs[known], (labels - start)[known])
        said = {
            name: _at_end(splits[name], seen[name], targets, horizon)
            + model.predict(seen[name]).reshape(len(seen[name]), -1)
            for name in ("validation", "test")
        }
        trials.append((_error(splits["validation"], said["validation"]), said["test"]))
    best = min(trials, key=lambda trial: trial[0])[1]
    return {**found, "ridge": _error(test, best)}


def _flat(split: Split) -> np.ndarray:
    """The inputs of each window as one row."""
    return split.take(np.arange(len(split))).inputs.reshape(len(split), -1)


def _at_end(split: Split, flat: np.ndarray, targets: tuple[int, ...], horizon: int) -> np.ndarray:
    """The last value of each target, for each step ahead."""
    return np.tile(flat[:, -split.channels :][:, list(targets)], horizon)


def _error(split: Split, answers: np.ndarray) -> float:
    """Mean squared error of the forecasts at the ends of the windows."""
    assert split.label_mask is not None
    known = split.label_mask[:, -1]
    errors = np.where(known, answers - split.labels[:, -1], 0)
    return float((errors**2).sum() / max(known.sum(), 1))
