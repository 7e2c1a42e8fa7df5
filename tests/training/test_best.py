"""The best checkpoint by validation: what is kept, what is told of it, and what loads it."""

import json
import signal
from dataclasses import replace

import pytest

from data import load_task
from training.commands.trained import restored_run
from training.model.objective import OBJECTIVES
from training.reporting.events import read_events
from training.run.best import Best
from training.run.interrupt import Interrupted
from training.run.loop import Run

from .test_run import run, small

pytestmark = pytest.mark.usefixtures("no_reports")


@pytest.mark.parametrize(
    ("kind", "seen", "kept"),
    [
        ("classification", [(8, 0.5), (8, 0.7), (8, 0.6)], 2),
        ("classification", [(8, 0.5), (8, 0.7), (8, 0.7)], 2),  # the first of equals
        ("classification", [(8, 0.9), (4, 0.6), (4, 0.5)], 2),  # a cut begins anew
        ("classification", [(8, 0.9), (4, 0.6), (4, float("nan"))], 2),
        ("classification", [(8, float("nan")), (8, 0.1)], 2),
        ("regression", [(8, 0.5), (8, 0.4), (8, 0.45)], 2),
        ("regression", [(8, 0.5), (8, 0.6)], 1),
    ],
)
def test_what_is_kept(kind, seen, kept, tmp_path):
    best, measure = Best(tmp_path, True), OBJECTIVES[kind].measure
    for step, (size, value) in enumerate(seen, 1):
        best.note(step, [size], {measure.key: value}, measure)
    assert best.memory is not None
    assert best.memory["step"] == kept


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.commands.train.write_report", lambda folder: None)
        return run(config(), tmp_path_factory.mktemp("best") / "whole")


def config(**changes):
    base = small()
    loop = {**vars(base.loop), "evaluate_every": 6, **changes}
    optimizer = replace(base.optimizer, learning_rate=2e-2, schedule="constant")
    return small(loop=type(base.loop)(**loop), optimizer=optimizer)


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_the_best_since_the_last_cut_is_told_and_loaded(finished):
    events = read_events(finished / "metrics.jsonl")
    cuts = [e["step"] for e in events if e["event"] == "shrink" and e["loss_after"] is not None]
    evaluated = {
        e["step"]: e["accuracy"]
        for e in events
        if e["event"] == "eval" and e["split"] == "validation" and e["step"] >= max(cuts)
    }
    best = summary(finished)["best"]
    assert best["validation"]["accuracy"] == max(evaluated.values())
    assert best["step"] == max(evaluated, key=lambda step: evaluated[step])
    task = load_task("digits", config().data)
    loaded_at = {
        "best": restored_run(finished, task),
        "last": restored_run(finished, task, "last"),
    }
    for at, said in (("best", best), ("last", summary(finished))):
        loaded = loaded_at[at]
        loaded.session.evaluate("test")
        assert loaded.session.results["test"] == pytest.approx(said["test"], rel=1e-5)
        assert loaded.step == said.get("step", 60)


@pytest.mark.parametrize("at", [20, pytest.param(50, marks=pytest.mark.slow)])
def test_an_interrupted_run_keeps_the_same_best(finished, tmp_path, monkeypatch, at):
    folder = tmp_path / "run"
    train_to = Run.train_to

    def interrupted(self, to, interrupt):
        if to > at:
            signal.raise_signal(signal.SIGINT)
        return train_to(self, to, interrupt)

    monkeypatch.setattr(Run, "train_to", interrupted)
    with pytest.raises(Interrupted):
        run(config(), folder)
    monkeypatch.undo()
    run(config(), folder, resume=True)
    assert summary(folder)["best"] == summary(finished)["best"]


def test_none_is_kept_where_none_is_wanted(tmp_path):
    folder = run(config(keep_best=False), tmp_path / "run")
    assert "best" not in summary(folder)
    assert not (folder / "best").exists()
    assert restored_run(folder, load_task("digits", config().data)).step == 60
