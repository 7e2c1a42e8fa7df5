"""Scores of predictors with one cheap feature, which a model has to beat."""

import numpy as np
from jaxtyping import Int, Int32

from ..typing import checked
from .split import Split


@checked
def majority_baseline(train: Split, test: Split) -> float:
    """Accuracy on `test` of the most frequent label of `train`."""
    return float(np.mean(test.labels == np.bincount(train.labels).argmax()))


@checked
def cell_baseline(
    train: Int[np.ndarray, " n"],
    train_labels: Int32[np.ndarray, " n"],
    test: Int[np.ndarray, " m"],
    test_labels: Int32[np.ndarray, " m"],
) -> float:
    """Accuracy on `test` of a two-class predictor that sees one small integer per sample.

    It answers the more frequent label in `train` among the samples with that integer.
    """
    cells = int(max(train.max(), test.max())) + 1
    vote = np.bincount(train, weights=2.0 * train_labels - 1, minlength=cells)
    return float(np.mean((vote > 0)[test] == (test_labels == 1)))
