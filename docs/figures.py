#!/usr/bin/env python3
"""Draw the pictures of the documentation that no study draws. Nothing is trained.

docs/figures.py
"""

from pathlib import Path

import jax
import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from compress import balanced_truncation, hankel_singular_values, hinf_error
from training.studies.runner import finished_runs
from zoo import LRU

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.fonttype": "none",
    "svg.hashsalt": "compressm-zoo",
    "font.family": "sans-serif",
    "legend.frameon": False,
}
VARIANTS = {
    "lru uncompressed": ("whole, 256 states", "#0072B2", "-"),
    "lru tolerance 0.02": ("shrinks in the first tenth", "#D55E00", "-"),
    "lru born as 0.02": ("born small", "#555555", "--"),
}
"""Of the study `smnist-short`: the name in the picture, the colour and the line."""


def shrinking() -> None:
    """States and validation accuracy over the steps of `smnist-short`, mean over seeds."""
    records = finished_runs(ROOT / "results" / "smnist-short" / "runs").values()
    figure, (states, accuracy) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    for variant, (name, color, line) in VARIANTS.items():
        runs = [record for record in records if record["variant"] == variant]
        end = runs[0]["config"]["steps"]
        steps = np.arange(0, end + 1, 10)
        mean = np.mean([_states(run, steps) for run in runs], axis=0)
        states.plot(steps, mean, color=color, linestyle=line, label=name)
        seen = [_validation(run) for run in runs]
        at = [step for step, _ in seen[0]]
        values = 100 * np.array([[value for _, value in run] for run in seen])
        middle = values.mean(axis=0)
        accuracy.plot(at, middle, color=color, linestyle=line, marker="o", markersize=3, label=name)
        accuracy.fill_between(at, values.min(axis=0), values.max(axis=0), color=color, alpha=0.12)
    states.set(yscale="log", xlabel="step", ylabel="states of the layer")
    states.set_yticks([10, 20, 50, 100, 256], ["10", "20", "50", "100", "256"])
    states.minorticks_off()
    accuracy.set(xlabel="step", ylabel="validation accuracy, %")
    states.legend(loc="center right")
    _save(figure, "shrinking.svg")


def _states(record, steps):
    """The states of the first layer at each of `steps`."""
    size = np.full(len(steps), record["summary"]["layers"][0]["before"], float)
    for shrink in record["shrinks"]:
        size[steps >= shrink["step"]] = shrink["after"][0]
    return size


def _validation(record):
    rows = [e for e in record["evaluations"] if e["split"] == "validation"]
    return [(e["step"], e["accuracy"]) for e in rows]


def bounds() -> None:
    """The values of a new LRU, and the error of a cut to each rank beside its bound."""
    lti = LRU.init(4, 32, key=jax.random.key(0), r_min=0.5, r_max=0.99, max_phase=1.0).to_lti()
    sigma = hankel_singular_values(lti)
    ranks = list(range(1, 26, 2))  # beyond them errors are the rounding of single precision
    cuts = [balanced_truncation(lti, rank=rank) for rank in ranks]
    errors = [hinf_error(lti, cut.lti) for cut in cuts]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    left.semilogy(np.arange(1, len(sigma) + 1), sigma, ".-", color="#0072B2")
    left.set(xlabel="number of the value", ylabel="Hankel singular value")
    right.semilogy(ranks, [cut.bound for cut in cuts], "--", color="#555555", label="bound")
    right.semilogy(ranks, errors, "o-", color="#D55E00", markersize=3, label="measured error")
    right.set(xlabel="states that stay", ylabel="H-infinity error")
    right.legend()
    _save(figure, "bounds.svg")


def _save(figure, name: str) -> None:
    figure.savefig(PICTURES / name, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    with plt.rc_context(STYLE):
        shrinking()
        bounds()
