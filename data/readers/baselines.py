"""Scores of linear predictors on the user's sequences."""

import warnings
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from ..task import Split
from ..typing import checked

BINS = 8
"""Number of equal parts of a sequence whose means are a linear predictor's features."""
MOST_ROWS = 5000
"""Training sequences that a linear predictor is fitted on, at equal distances."""


@checked
def features(split: Split) -> Float[np.ndarray, "n f"]:
    """The means of each channel over `BINS` parts of the sequence without padding."""
    n = len(split)
    rows = [_row(split, k) for k in range(n)]
    return np.stack(rows)


def _row(split: Split, k: int) -> np.ndarray:
    batch = split.take(np.array([k]))
    steps = batch.inputs.shape[1] if batch.lengths is None else int(batch.lengths[0])
    ends = np.linspace(0, steps, min(BINS, steps) + 1).astype(int)
    means = [batch.inputs[0, a:b].mean(axis=0) for a, b in pairwise(ends)]
    means += [means[-1]] * (BINS - len(means))
    return np.concatenate(means).astype(np.float64)


def _fitted_rows(split: Split) -> Split:
    if len(split) <= MOST_ROWS:
        return split
    return split.select(np.linspace(0, len(split) - 1, MOST_ROWS).astype(np.int64))


@checked
def logistic_baseline(train: Split, test: Split) -> float:
    """Accuracy on `test` of logistic regression on the `features`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    train = _fitted_rows(train)
    if len(np.unique(train.labels)) < 2:
        return float(np.mean(test.labels == train.labels[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=300).fit(features(train), train.labels)
    return float(model.score(features(test), test.labels))


@checked
def mean_baseline(train: Split, test: Split) -> float:
    """Mean squared error on `test` of always answering the mean of each value in `train`."""
    axes = tuple(range(train.labels.ndim - 1))
    known = np.ones(train.labels.shape, bool) if train.label_mask is None else train.label_mask
    known = known & _inside(train)
    values = np.where(known, train.labels, 0)
    mean = values.sum(axis=axes) / np.maximum(known.sum(axis=axes), 1)
    return mean_squared_error(np.broadcast_to(mean, test.labels.shape), test)


@checked
def ridge_baseline(train: Split, test: Split) -> float:
    """Mean squared error on `test` of ridge regression on the `features`."""
    from sklearn.linear_model import RidgeCV

    train = _fitted_rows(train)
    if train.label_mask is not None:
        train = train.select(np.flatnonzero(train.label_mask.all(axis=1)))
    model = RidgeCV(np.logspace(-2, 4, 13)).fit(features(train), train.labels)
    return mean_squared_error(model.predict(features(test)).reshape(test.labels.shape), test)


def mean_squared_error(answers: np.ndarray, split: Split) -> float:
    """Mask of the known labels inside the sequences."""
    known = np.ones(split.labels.shape, bool) if split.label_mask is None else split.label_mask
    known = known & _inside(split)
    errors = np.where(known, answers - np.where(known, split.labels, 0), 0)
    return float((errors**2).sum() / max(known.sum(), 1))


def _inside(split: Split) -> np.ndarray:
    if split.lengths is None or split.labels.ndim < 3:
        return np.ones((1,) * split.labels.ndim, bool)
    return (np.arange(split.labels.shape[1]) < split.lengths[:, None])[..., None]
