"""Whole runs of every kind of task, on data of a few numbers that can be learned in seconds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data import DigitsConfig, Split, Task, text_split
from training.model.network import check_model, check_network
from training.model.objective import OBJECTIVES
from training.reporting.events import EventLog, read_events
from training.reporting.report import write_report
from training.run.clock import Clock
from training.run.describe import describe
from training.run.interrupt import Interrupt
from training.run.loop import Run
from training.settings.config import (
    CompressionConfig,
    DistillationConfig,
    LoopConfig,
    NetworkConfig,
    OptimizerConfig,
    RunConfig,
)
from zoo import DLinOSSConfig, LinOSSConfig, LRUConfig, MambaConfig, S4DConfig, S5Config

L = 12
LENGTHS = {"train": 64, "validation": 21, "test": 19}
"""Sizes of the splits; none is a multiple of the evaluation batch."""


def splits(make) -> dict[str, Split]:
    seeds = {"train": 0, "validation": 1, "test": 2}
    return {name: make(np.random.default_rng(seeds[name]), n) for name, n in LENGTHS.items()}


def texts(rng, n) -> Split:
    """Is the first token of the text a high one? The padding is a token like the others."""
    inputs = rng.integers(0, 8, (n, L)).astype(np.uint8)
    lengths = rng.integers(1, L + 1, n).astype(np.int32)
    labels = (inputs[:, 0] >= 4).astype(np.int32)
    for row, length in zip(inputs, lengths, strict=True):
        row[:length] = row[0]
    return Split(inputs, labels, lengths=lengths, input_kind="tokens")


def pairs(rng, n) -> Split:
    """Do both texts repeat the same of two tokens?"""
    first, second = rng.integers(0, 2, (2, n))
    inputs = np.stack([np.repeat(x[:, None], L, axis=1) for x in (first, second)], axis=1)
    lengths = rng.integers(1, L + 1, (n, 2)).astype(np.int32)
    labels = (first == second).astype(np.int32)
    return Split(inputs.astype(np.uint8), labels, lengths=lengths, input_kind="tokens")


def pictures(rng, n) -> Split:
    """How bright is each picture, and what is the mean of all before?"""
    inputs = rng.integers(0, 256, (n, L, 1)).astype(np.uint8).repeat(64, axis=2)
    values = inputs[:, :, 0] / 255.0
    mean = np.cumsum(values, axis=1) / np.arange(1, L + 1)
    labels = np.stack([values, mean], axis=-1).astype(np.float32)
    intervals = rng.uniform(0.5, 2, (n, L)).astype(np.float32)
    lengths = rng.integers(1, L + 1, n).astype(np.int32)
    return Split(inputs, labels, scale=1 / 255, intervals=intervals, lengths=lengths)


def words(rng, n) -> Split:
    """A text of four tokens in their order, again and again."""
    del rng
    return text_split(np.tile(np.arange(4, dtype=np.uint8), n), L, 3)


TASKS = {
    "classification": {"classes": 2, "make": texts, "input_kind": "tokens", "input_size": 8},
    "pair": {"classes": 2, "make": pairs, "input_kind": "tokens", "input_size": 2},
    "regression": {"make": pictures, "input_kind": "real", "input_size": 64, "frame": (8, 8)},
    "language": {"make": words, "input_kind": "tokens", "input_size": 4},
}


def task_of(kind: str) -> Task:
    fields = dict(TASKS[kind])
    return Task(name=kind, kind=kind, length=L, splits=splits(fields.pop("make")), **fields)


LAYERS = {
    "lru": LRUConfig(d_state=6),
    "s5": S5Config(d_state=6),
    "s4d": S4DConfig(d_state=6),
    "linoss": LinOSSConfig(d_state=6),
    "imex": LinOSSConfig(d_state=6, scheme="imex"),
    "d_linoss": DLinOSSConfig(d_state=6),
    "mamba": MambaConfig(d_state=6),
}
STEPS = 40


def config_of(model: str, kind: str, bidirectional: bool = False) -> RunConfig:
    return RunConfig(
        layer=LAYERS[model],
        data=DigitsConfig(),  # not read: the task is given
        model="linoss" if model == "imex" else model,
        task="digits",
        steps=STEPS,
        batch_size=8 if kind == "regression" else 16,  # its convolutions are slow here
        network=NetworkConfig(
            d_model=8,
            blocks=1,
            norm="rms" if kind == "language" else "batch",
            bidirectional=bidirectional,
        ),
        optimizer=OptimizerConfig(learning_rate=2e-2, weight_decay=0.0),
        compression=CompressionConfig(
            mode="fixed", rank=3, shrinks=1, window=0.5, calibration=20, rehearsal=0
        ),
        loop=LoopConfig(
            log_every=10,
            evaluate_every=STEPS,
            checkpoint_every=STEPS,
            steps_per_dispatch=5,
            evaluation_batch=8,
        ),
    )


@pytest.mark.parametrize(
    ("model", "kind", "bidirectional"),
    [
        pytest.param("s5", "classification", True, marks=pytest.mark.slow),
        pytest.param("mamba", "classification", True, marks=pytest.mark.slow),
        pytest.param("lru", "pair", False, marks=pytest.mark.slow),
        pytest.param("lru", "pair", True, marks=pytest.mark.slow),
        ("s5", "regression", False),
        pytest.param("s5", "regression", True, marks=pytest.mark.slow),
        pytest.param("lru", "regression", True, marks=pytest.mark.slow),
        pytest.param("lru", "language", False, marks=pytest.mark.slow),
        pytest.param("mamba", "language", False, marks=pytest.mark.slow),
        ("s4d", "classification", False),
        pytest.param("s4d", "language", False, marks=pytest.mark.slow),
        pytest.param("linoss", "classification", False, marks=pytest.mark.slow),
        pytest.param("imex", "classification", False, marks=pytest.mark.slow),
        pytest.param("d_linoss", "classification", True, marks=pytest.mark.slow),
        pytest.param("d_linoss", "language", False, marks=pytest.mark.slow),
    ],
)
def test_every_kind_trains_shrinks_and_reports(model, kind, bidirectional, tmp_path):
    check_run(config_of(model, kind, bidirectional), task_of(kind), tmp_path)


BOTH_WAYS = S5Config(6, both_ways=True, current_twice=False, conjugate_pairs=False)
PUBLISHED = {
    "norm": "batch-ema",
    "norm_affine": False,
    "norm_first": False,
    "gate": "half_glu2",
    "pooling": "last",
    "dropout": 0.05,
    "dropout_mask": "batch",
}
HYBRID = {"blocks": 2, "attention_every": 1, "attention_window": 4, "attention_heads": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "layer", "network"),
    [
        ("classification", BOTH_WAYS, PUBLISHED | {"norm_first": True}),
        ("classification", S5Config(6, clip_eigenvalues=True), HYBRID | {"norm": "layer"}),
        ("language", S5Config(6), HYBRID),
    ],
    ids=["published", "hybrid classifier", "hybrid language model"],
)
def test_every_kind_of_block_trains_shrinks_and_reports(kind, layer, network, tmp_path):
    config = config_of("s5", kind)
    changed = replace(config, layer=layer, network=replace(config.network, **network))
    check_run(changed, task_of(kind), tmp_path)


def check_run(config, task, tmp_path):
    """Train, shrink to three states, report, and go on from what is saved."""
    run = Run(config, task, tmp_path, Clock())
    log, session = EventLog(tmp_path / "metrics.jsonl", append=False), run.session
    session.reporter.sinks = [log]
    session.emit("start", **describe(config, task, session.beginning))
    try:
        summary = run.run(Interrupt())
    finally:
        run.close()
        log.close()
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    events = read_events(tmp_path / "metrics.jsonl")
    losses = [event["loss"] for event in events if event["event"] == "train"]
    assert losses[-1] < 0.7 * losses[0]
    measure = OBJECTIVES[task.kind].measure
    assert np.isfinite(summary["test"][measure.key])
    assert [layer["after"] for layer in summary["layers"]] == [3] * len(summary["layers"])
    (shrink,) = (event for event in events if event["event"] == "shrink")
    assert np.isfinite([shrink["loss_before"], shrink["loss_after"]]).all()
    assert f"test {measure.label}" in write_report(tmp_path).read_text()
    again = Run(config, task, tmp_path, Clock())
    assert again.saves.restore()
    again.session.evaluate("test")
    again.close()
    assert again.session.results["test"] == pytest.approx(summary["test"])


def test_what_a_task_does_not_allow_is_named():
    config, task = config_of("lru", "regression"), task_of("regression")
    check_model(config, task)
    taught = replace(config, distillation=DistillationConfig(teacher=Path("runs/teacher")))
    with pytest.raises(
        ValueError, match=r"`distillation\.teacher` must be None .* got runs/teacher"
    ):
        check_model(taught, task)
    pragmatic = replace(config, compression=CompressionConfig(mode="pragmatic"))
    check_model(pragmatic, task)
    no_validation = replace(task, splits={**task.splits, "validation": task.splits["test"]})
    with pytest.raises(
        ValueError, match=r"`compression\.mode` must be another mode if .* got 'pragmatic'"
    ):
        check_model(pragmatic, no_validation)


def test_a_language_model_must_not_see_the_next_token():
    task, network = task_of("language"), config_of("lru", "language").network
    check_network(network, task)
    for changes in ({"bidirectional": True}, {"norm": "batch"}):
        with pytest.raises(ValueError, match=f"network.{next(iter(changes))}"):
            check_network(replace(network, **changes), task)
