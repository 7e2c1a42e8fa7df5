"""Fixtures for tests of whole runs."""

from dataclasses import replace

import numpy as np
import pytest

from data import Split, Task, text_split
from training.finished.load import trained_run
from training.model.network import build_model
from training.settings.config import CompressionConfig, LoopConfig, NetworkConfig
from training.settings.presets import preset


@pytest.fixture
def no_reports():
    """Runs of the test itself draw no report, which takes as long as training in these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.commands.train.write_report", lambda folder: folder / "report.html")
        yield


@pytest.fixture(scope="session")
def small():
    """A function that makes a small configuration: `small(model, task, **network)`."""
    return small_config


@pytest.fixture(scope="session")
def made():
    """A function that makes an untrained run on made-up data: `made(kind, model, **network)`."""
    return made_run


def small_config(model="lru", task="digits", **network):
    config = preset(model, task, "small")
    return replace(
        config,
        steps=24,
        batch_size=16,
        layer=replace(config.layer, d_state=8, **({"headdim": 4} if model == "mamba2" else {})),
        network=NetworkConfig(d_model=6, blocks=2, dropout=0.1, **network),
        compression=CompressionConfig(mode="fixed", rank=4, shrinks=1, window=0.5, rehearsal=0),
        loop=LoopConfig(log_every=12, evaluate_every=12, checkpoint_every=12),
    )


def made_run(kind, model="lru", **network):
    """A run that has not been trained, on a task of `kind` made up here."""
    task = TASKS[kind]()
    config = small_config(
        model, "charlm" if kind in ("language", "recall") else "digits", **network
    )
    built, state = build_model(config, task)
    return trained_run(config, task, built, state, {})


def of(
    kind, length, width, inputs, labels, lengths=None, input_kind="real", intervals=None, **about
):
    extra = {"input_kind": input_kind, "lengths": lengths, "intervals": intervals}
    if input_kind == "real":
        extra |= {"offset": np.full(width, 0.5, np.float32), "scale": 2.0}
    splits = dict.fromkeys(("train", "validation", "test"), Split(inputs, labels, **extra))
    return Task("made up", length, input_kind, width, splits, kind=kind, **about)


RNG = np.random.default_rng(0)
LENGTHS = np.array([9, 4, 1], np.int32)
REAL = RNG.normal(size=(3, 9, 2)).astype(np.float32)
TOKENS = RNG.integers(0, 5, (3, 9)).astype(np.int32)
CLASSES = np.array([0, 2, 1], np.int32)
INTERVALS = RNG.uniform(0.5, 2, (3, 9)).astype(np.float32)


def language():
    split = text_split(RNG.integers(0, 5, 60).astype(np.uint8), 9, 9)
    splits = dict.fromkeys(("train", "validation", "test"), split)
    return Task("text", 9, "tokens", 5, splits, kind="language", symbols=tuple("abcde"))


def recall():
    labels = np.where(np.arange(9) % 4 == 3, TOKENS, -1).astype(np.int32)
    return of("recall", 9, 5, TOKENS, labels, input_kind="tokens", symbols=tuple("abcde"))


TASKS = {
    "classification": lambda: of("classification", 9, 2, REAL, CLASSES, LENGTHS, classes=3),
    "regression": lambda: of("regression", 9, 2, REAL, REAL[:, :, :1], LENGTHS),
    "forecast": lambda: of(
        "regression", 9, 2, REAL, REAL[..., [1, 0, 1, 0]], np.full(3, 9, np.int32), targets=(1, 0)
    ),
    "timed": lambda: of(
        "classification", 9, 2, REAL, CLASSES, LENGTHS, intervals=INTERVALS, classes=3
    ),
    "pair": lambda: of(
        "pair",
        9,
        5,
        np.stack([TOKENS, TOKENS[::-1]], axis=1),
        CLASSES,
        np.stack([LENGTHS, LENGTHS[::-1]], axis=1),
        "tokens",
        classes=3,
    ),
    "language": language,
    "recall": recall,
}
