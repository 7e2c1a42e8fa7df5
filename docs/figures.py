#!/usr/bin/env python3
"""Draw the pictures of the documentation, from records and formulas. Nothing is trained.

docs/figures.py
"""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from compress import balanced_truncation, hankel_singular_values, hinf_error
from training.studies import RECORDS, STUDIES, finished_runs
from training.studies.figures import ranks, score_against_state, spectra
from training.studies.rows import rows_of, score_name
from training.studies.stability import stability
from training.studies.style import looks, paper_style, write_figure
from zoo import LRU

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
VARIANTS = {
    "lru uncompressed": "whole, 256 states",
    "lru tolerance 0.02": "shrinks in the first tenth",
    "lru from the start as 0.02": "small from the start",
}
"""Of the study `smnist-short`: the names in the picture."""
OF_STUDIES = {
    "smnist-short": ["accuracy_state"],
    "smnist": ["accuracy_state", "ranks"],
    "smnist-paper": ["ranks"],
    "ours": ["spectra"],
}
"""The figures of studies that pages show, by the folder of the study."""


def of_studies() -> None:
    """Figures of `OF_STUDIES`, as `scripts/reproduce.py` draws them."""
    for folder, names in OF_STUDIES.items():
        study = STUDIES[folder.removesuffix("-paper")]
        records = finished_runs(ROOT / "results" / folder / RECORDS)
        rows = rows_of(study, records)
        drawn = {
            "accuracy_state": lambda rows=rows, r=records: score_against_state(score_name(r), rows),
            "ranks": lambda study=study, r=records: ranks(study, r),
            "spectra": lambda study=study, r=records: spectra(study, r),
        }
        for name in names:
            write_figure(drawn[name](), PICTURES, f"{folder}-{name}")


def shrinking() -> None:
    """States and validation accuracy over the steps of `smnist-short`, mean over seeds."""
    records = finished_runs(ROOT / "results" / "smnist-short" / RECORDS).values()
    figure, (states, accuracy) = plt.subplots(1, 2, figsize=(7, 2.6))
    for (variant, name), look in zip(VARIANTS.items(), looks(len(VARIANTS)), strict=True):
        style = {"color": look.color, "linestyle": look.linestyle}
        runs = [record for record in records if record["variant"] == variant]
        end = runs[0]["config"]["steps"]
        steps = np.arange(0, end + 1, 10)
        mean = np.mean([_states(run, steps) for run in runs], axis=0)
        states.plot(steps, mean, **style, marker="", label=name)
        seen = [_validation(run) for run in runs]
        at = [step for step, _ in seen[0]]
        values = 100 * np.array([[value for _, value in run] for run in seen])
        middle = values.mean(axis=0)
        accuracy.plot(at, middle, **style, marker=look.marker, markersize=3, label=name)
        low, high = values.min(axis=0), values.max(axis=0)
        accuracy.fill_between(at, low, high, color=look.color, alpha=0.12, linewidth=0)
    states.set(yscale="log", xlabel="step", ylabel="states of the layer")
    states.set_yticks([10, 20, 50, 100, 256], ["10", "20", "50", "100", "256"])
    states.minorticks_off()
    accuracy.set(xlabel="step", ylabel="validation accuracy, %")
    states.legend(loc="center right")
    _write(figure, "shrinking")


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
    kept = list(range(1, 26, 2))  # beyond them errors are the rounding of single precision
    cuts = [balanced_truncation(lti, rank=rank) for rank in kept]
    errors = [hinf_error(lti, cut.lti) for cut in cuts]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.6))
    value, bound, error = looks(3)
    left.semilogy(np.arange(1, len(sigma) + 1), sigma, ".-", color=value.color)
    left.set(xlabel="number of the value", ylabel="Hankel singular value")
    right.semilogy(
        kept, [cut.bound for cut in cuts], "--", marker="", color=bound.color, label="bound"
    )
    right.semilogy(kept, errors, "o-", color=error.color, markersize=3, label="measured error")
    right.set(xlabel="states that stay", ylabel="H-infinity error")
    right.legend()
    _write(figure, "bounds")


def steadiness() -> None:
    """The moves of the values in the study `stability`, as `scripts/reproduce.py` draws them."""
    kept = json.loads((ROOT / "results" / "stability" / "stability.json").read_text())
    moves = {
        name: [
            SimpleNamespace(**dict(zip(run, row, strict=True)))
            for row in zip(*run.values(), strict=True)
        ]
        for name, run in kept.items()
    }
    _write(stability(moves), "stability")


def _write(figure, name: str) -> None:
    write_figure(figure, PICTURES, name)
    plt.close(figure)


if __name__ == "__main__":
    with paper_style():
        of_studies()
        shrinking()
        bounds()
        steadiness()
