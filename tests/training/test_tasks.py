"""Every task at the small scale, for its first 200 steps: slow, and without a network."""

import io
import json
from dataclasses import fields, replace

import jax
import numpy as np
import pytest
from rich.console import Console

from data import TASKS
from training.commands.train import execute
from training.model.objective import OBJECTIVES
from training.reporting.events import read_events
from training.settings.command import Command
from training.settings.presets import preset

FOLDERS = {"smnist": "mnist", "scifar": "cifar10", "imdb": "imdb", "charlm": "text"}
"""Where the data of a task is, below `../shared/data`; the others are made or built in."""

MODELS = {"charlm": "mamba", "pendulum": "s5", "aan": "s5", "mqar": "mamba2"}
"""LRU where nothing is said."""


@pytest.fixture
def optimized():
    """Compiles as users do: without, a step of the pendulum's convolutions takes seconds."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("task", TASKS)
def test_two_hundred_steps_make_the_loss_fall(task, request, tmp_path):
    folder = FOLDERS.get(task)
    data_dir = request.getfixturevalue("shared") / "data" / folder if folder else None
    config = preset(MODELS.get(task, "lru"), task, "small")
    fewer = {"train": 2000, "validation": 50, "test": 50}
    made = {f.name for f in fields(config.data)} & fewer.keys() if not folder else set()
    if task != "digits":
        config = replace(config, data=replace(config.data, **{k: fewer[k] for k in made}))
    config = replace(
        config,
        steps=200,
        data_dir=data_dir,
        cache_dir=tmp_path / "cache",
        loop=replace(config.loop, log_every=20, evaluate_every=200, checkpoint_every=200),
        compression=replace(config.compression, shrinks=1, window=0.5, calibration=32),
    )
    run = execute(Command(config, tmp_path / "run", False), Console(file=io.StringIO()))
    events = read_events(run / "metrics.jsonl")
    kind = events[0]["kind"]
    rows = {event["step"]: event["loss"] for event in events if event["event"] == "train"}
    between = {event["step"] for event in events if event["event"] in ("shrink", "takeover")}
    losses = [rows[step] for step in range(20, 201, 20)]
    assert rows.keys() - set(range(20, 201, 20)) <= between  # where it stopped for another program
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    summary = json.loads((run / "summary.json").read_text())
    assert np.isfinite(summary["test"][OBJECTIVES[kind].measure.key])
    assert 0 <= summary["data_share"] < 0.05
    if task == "charlm":
        assert len(summary["sample"]) > 100
