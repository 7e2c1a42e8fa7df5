"""Runs whose shrinks are chosen, guarded, tried and taken back; and what joins their loss."""

import io
import json
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from compress import compress
from data import load_task
from training.commands.train import execute
from training.commands.trained import restored_run
from training.model.auxiliary import hankel_nuclear_norm, soft_divergence
from training.reporting.events import read_events
from training.run.checkpoint import Checkpoints
from training.run.trial import Trial
from training.settings.command import Command
from training.settings.config import (
    CompressionConfig,
    DistillationConfig,
    LoopConfig,
    NetworkConfig,
    OptimizerConfig,
    RegularizationConfig,
)
from training.settings.errors import UsageError
from training.settings.presets import preset
from training.settings.saved import read_config
from training.settings.schedule import shrink_steps
from training.shrinking.systems import read_systems
from zoo import LRU

pytestmark = pytest.mark.usefixtures("no_reports")


def small(compression, **changes):
    config = preset("lru", "digits", "small")
    base = replace(
        config,
        steps=60,
        batch_size=16,
        layer=replace(config.layer, d_state=8),
        network=NetworkConfig(d_model=4, blocks=1),
        compression=CompressionConfig(
            **{"method": "paper", "calibration": 16, "rehearsal": 0, **compression}
        ),
        loop=LoopConfig(log_every=10, evaluate_every=30, checkpoint_every=30, steps_per_dispatch=5),
    )
    return replace(base, **changes)


def run(config, folder, resume=False):
    return execute(Command(config, folder, resume), Console(file=io.StringIO()))


def events(folder, name):
    return [e for e in read_events(folder / "metrics.jsonl") if e["event"] == name]


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def sizes(folder):
    return [layer["after"] for layer in summary(folder)["layers"]]


def test_the_window_may_begin_later():
    config = CompressionConfig(start=0.5, window=0.2, shrinks=2)
    assert shrink_steps(config, 100) == (60, 70)
    with pytest.raises(ValueError, match=r"compression\.window"):
        CompressionConfig(start=0.5, window=0.6)


@pytest.mark.parametrize("keep", ["smallest", pytest.param("random", marks=pytest.mark.slow)])
def test_other_states_may_be_kept(tmp_path, keep):
    cut = {"mode": "fixed", "rank": 4, "shrinks": 1, "window": 0.5}
    folder = run(small({**cut, "keep": keep}), tmp_path / keep)
    assert sizes(folder) == [4]
    (shrink,) = events(folder, "shrink")
    assert shrink["layers"][0]["error"] > shrink["layers"][0]["sigma_next"]


def test_other_states_are_for_the_papers_method_alone():
    with pytest.raises(ValueError, match=r"`compression\.keep` must be largest.* got 'random'"):
        CompressionConfig(keep="random", method="data")


def test_a_guard_drops_a_cut_that_costs_too_much(tmp_path):
    cut = {"tolerance": 0.95, "shrinks": 1, "start": 0.8, "guard": 0.0}
    fast = OptimizerConfig(learning_rate=3e-2, schedule="constant")
    folder = run(small(cut, optimizer=fast), tmp_path / "guarded")
    (shrink,) = events(folder, "shrink")
    assert shrink["loss_after"] > shrink["loss_before"]
    assert shrink["rejected"][0] < 8
    assert sizes(folder) == [8]


def broken(model, opt_state, **how):
    """A cut after which the loss is no number."""
    model, opt_state = compress(model, opt_state, **how)
    return eqx.tree_at(lambda m: m.head.bias, model, replace_fn=lambda x: jnp.nan * x), opt_state


def test_a_loss_that_is_no_number_does_not_pass_the_guard(tmp_path, monkeypatch):
    monkeypatch.setattr("training.run.cutting.compress", broken)
    folder = run(small({"tolerance": 0.95, "shrinks": 1, "guard": 1e9}), tmp_path / "guarded")
    (shrink,) = events(folder, "shrink")
    assert shrink["rejected"][0] < 8
    assert sizes(folder) == [8]


def test_an_adaptive_run_cuts_once_its_spectrum_has_settled(tmp_path):
    cut = {"tolerance": 0.3, "shrinks": 3, "window": 0.5}
    folder = run(small({**cut, "settled": 1.0}), tmp_path / "settled")
    first, second, third = (e["layers"][0] for e in events(folder, "shrink"))
    assert first["after"] == first["before"] == 8  # nothing to compare with yet
    assert second["after"] < second["before"]
    assert second["sigma_next"] * (1 - 1e-6) <= second["error"]
    assert second["error"] <= second["bound"] * (1 + 1e-6)
    assert third["after"] == third["before"]  # the cut spectrum has to settle anew


@pytest.mark.parametrize(("settled", "cut_at"), [(10.0, 1), (0.0, 2)])
def test_an_adaptive_run_comes_to_its_rank_at_the_latest_in_the_end(tmp_path, settled, cut_at):
    """At the second look, where everything counts as settled; at the last, where nothing does."""
    cut = {"mode": "fixed", "rank": 3, "shrinks": 3, "window": 0.5, "settled": settled}
    more = {"guard": 0.0, "rehearsal": 1000} if settled == 0 else {}
    folder = run(small({**cut, **more}), tmp_path / "run")
    shrinks = [e["layers"][0] for e in events(folder, "shrink")]
    assert [s["after"] for s in shrinks] == [8] * cut_at + [3] * (3 - cut_at)
    assert sizes(folder) == [3]


def test_a_budget_is_spent_on_all_layers_together(tmp_path):
    config = small({"mode": "budget", "rank": 4, "shrinks": 1, "window": 0.5})
    folder = run(replace(config, network=replace(config.network, blocks=2)), tmp_path / "budget")
    first, second = sizes(folder)
    assert first + second == 8
    assert 1 <= first < 8


def test_a_pragmatic_run_goes_on_cutting_while_validation_holds(tmp_path):
    cut = {"mode": "pragmatic", "shrinks": 3, "window": 0.5, "slack": 1.0}
    folder = run(small(cut), tmp_path / "holds")
    assert [e["layers"][0]["after"] for e in events(folder, "shrink")] == [7, 6, 5]
    assert not events(folder, "rollback")
    assert sizes(folder) == [5]


def test_a_cut_taken_back_in_larger_programs(tmp_path, monkeypatch):
    """Cuts within each other's grace: what comes back is padded as it was, until its time."""
    held = []

    def passes(self, *_):
        held.append(self.memory["best"])
        return len(held) <= 3

    monkeypatch.setattr("training.run.trial.Trial.passes", passes)
    cut = {"mode": "pragmatic", "shrinks": 10, "window": 0.5, "rehearsal": 1000}
    folder = run(small(cut), tmp_path / "run")
    (rollback,) = events(folder, "rollback")
    assert (rollback["step"], rollback["from_step"]) == (9, 12)
    assert (rollback["tried"], rollback["d_state"]) == ([5], [6])
    (takeover,) = events(folder, "takeover")
    assert (takeover["step"], takeover["d_state"]) == (33, [6])
    widths = [(p["d_state"], p["width"]) for p in summary(folder)["phases"]]
    assert widths == [([8], [8]), ([7], [8]), ([6], [8]), ([6], [6])]
    assert sizes(folder) == [6]


def test_a_pragmatic_run_takes_back_a_cut_that_does_not_hold(tmp_path, monkeypatch):
    """Everything from before the cut comes back, and the rest is the run without cuts."""
    monkeypatch.setattr(
        "training.run.trial.Trial.passes", lambda self, *_: self.memory["best"] is None
    )
    cut = {"mode": "pragmatic", "shrinks": 2, "window": 0.5}
    folder = run(small(cut), tmp_path / "taken-back")
    (rollback,) = events(folder, "rollback")
    assert (rollback["step"], rollback["from_step"]) == (15, 30)
    assert (rollback["tried"], rollback["d_state"]) == ([7], [8])
    assert not events(folder, "shrink")
    assert [e["step"] for e in events(folder, "train")] == [10, 15, 20, 30, 40, 45, 50, 60]
    assert sizes(folder) == [8]
    plain = run(small({"mode": "none"}), tmp_path / "plain")
    end, same = (json.loads((f / "summary.json").read_text())["test"] for f in (folder, plain))
    assert end == same


def test_what_was_not_cut_is_not_taken_back(tmp_path, monkeypatch):
    """A guard has dropped the cut: validation may fall, and the next cut is tried all the same."""
    monkeypatch.setattr("training.run.cutting.compress", broken)
    monkeypatch.setattr("training.model.objective.Measure.better", lambda self, new, old: False)
    cut = {"mode": "pragmatic", "shrinks": 2, "window": 0.5, "guard": 1e9}
    folder = run(small(cut), tmp_path / "run")
    assert [e["rejected"] for e in events(folder, "shrink")] == [[7], [7]]
    assert not events(folder, "rollback")


@pytest.mark.parametrize(
    "last",
    [
        pytest.param((Trial, "begin_taking_back"), marks=pytest.mark.slow),
        pytest.param((Checkpoints, "forget_from"), marks=pytest.mark.slow),
        (Checkpoints, "save"),
    ],
    ids=lambda last: last[1],
)
def test_a_run_that_dies_while_it_takes_a_cut_back(tmp_path, monkeypatch, last):
    """Whatever it did last, the next process ends what it began, and nothing is lost."""
    monkeypatch.setattr(Trial, "passes", lambda self, *_: self.memory["best"] is None)
    config = small({"mode": "pragmatic", "shrinks": 2, "window": 0.5})
    whole = run(config, tmp_path / "whole")

    class Killed(BaseException):
        pass

    owner, name = last
    method = getattr(owner, name)

    def dies(self, *args):
        method(self, *args)
        if (tmp_path / "killed" / "taking_back.json").exists():
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dies)
        with pytest.raises(Killed):
            run(config, tmp_path / "killed")
    folder = run(config, tmp_path / "killed", resume=True)
    assert not (folder / "taking_back.json").exists()
    (rollback,), (same,) = events(folder, "rollback"), events(whole, "rollback")
    assert rollback == same
    for name in ("train", "eval", "shrink"):
        assert [e["step"] for e in events(folder, name)] == [e["step"] for e in events(whole, name)]
    end, same = (json.loads((f / "summary.json").read_text())["test"] for f in (folder, whole))
    assert end == same


def test_systems_are_kept_with_every_spectrum(tmp_path):
    config = small({"mode": "fixed", "rank": 4, "shrinks": 1, "window": 0.5})
    folder = run(replace(config, loop=replace(config.loop, keep_systems=True)), tmp_path / "kept")
    systems = dict(read_systems(folder / "systems"))
    assert [(step, found[0].d_state) for step, found in systems.items()] == [
        (0, 8),
        (30, 4),
        (60, 4),
    ]


def test_a_student_learns_from_a_finished_run(tmp_path):
    teacher = run(small({"mode": "none"}), tmp_path / "teacher")
    student = small({"mode": "none"}, distillation=DistillationConfig(teacher=teacher, alpha=0.0))
    folder = run(student, tmp_path / "student")
    losses = [e["loss"] for e in events(folder, "train")]
    assert losses[-1] < losses[0]
    assert read_config(folder).distillation.teacher == teacher
    nowhere = DistillationConfig(teacher=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no finished run"):
        run(small({"mode": "none"}, distillation=nowhere), tmp_path / "other")
    other = replace(student, data=replace(student.data, seed=1))
    with pytest.raises(UsageError, match=r"a run with `data\.seed` 1, it has 0"):
        run(other, tmp_path / "other")
    teacher.rename(tmp_path / "moved")  # which a student does not need any more
    assert restored_run(folder, load_task("digits", student.data), "last").step == student.steps


def test_a_short_run_comes_to_its_rank_as_well(tmp_path):
    config = small({"mode": "fixed", "rank": 2, "shrinks": 4, "window": 1.0}, steps=8)
    assert sizes(run(config, tmp_path / "run")) == [2]


def test_a_price_on_the_nuclear_norm_lowers_it(tmp_path):
    sums = {}
    for weight in (0.0, 1.0):
        config = small({"mode": "none"}, regularization=RegularizationConfig(hankel=weight))
        folder = run(config, tmp_path / str(weight))
        sums[weight] = sum(events(folder, "spectrum")[-1]["layers"][0]["sigma"])
    assert sums[1.0] < 0.9 * sums[0.0]


def test_the_nuclear_norm_is_half_the_sum_of_the_real_maps_values(getkey):
    from compress import hankel_singular_values

    layer = LRU.init(3, 5, key=getkey())
    expected = np.sum(hankel_singular_values(layer.to_lti())) / 2
    np.testing.assert_allclose(jax.jit(hankel_nuclear_norm)(layer), expected, rtol=1e-5)


def test_the_divergence_of_a_teacher_from_itself_is_zero_and_its_gradient_that_of_soft_labels(
    getkey,
):
    told, said = jax.random.normal(getkey(), (2, 4, 3))
    assert abs(float(soft_divergence(told, told))) < 1e-6
    soft = lambda x: jnp.mean(optax.softmax_cross_entropy(x, jax.nn.softmax(told)))  # noqa: E731
    found = jax.grad(lambda x: soft_divergence(told, x))(said)
    np.testing.assert_allclose(found, jax.grad(soft)(said), atol=1e-6)
