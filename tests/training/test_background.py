"""What is compiled beside training: each program once, and without a trace in what is learned."""

import io
import json
import signal
import threading
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from training.commands.train import execute
from training.reporting.events import read_events
from training.run.ahead import Ahead
from training.run.checkpoint import Checkpoints
from training.run.engine import Engine
from training.run.interrupt import Interrupted
from training.run.programs import Programs
from training.settings.command import Command
from training.settings.config import (
    CompressionConfig,
    LoopConfig,
    NetworkConfig,
    RegularizationConfig,
)
from training.settings.presets import preset
from training.settings.schedule import (
    grace,
    last_shrink,
    rehearsal_step,
    shrink_steps,
    takeover_step,
)
from training.shrinking.reduction import Reduction

pytestmark = pytest.mark.usefixtures("no_reports")

FIXED = CompressionConfig(method="data", mode="fixed", rank=3, shrinks=2, window=0.5)
TOLERANCE = CompressionConfig(method="data", tolerance=0.1, shrinks=2, window=0.5, multiple=2)


def run(folder, compression=FIXED, resume=False, **more):
    config = preset("s5", "digits", "small")
    config = replace(
        config,
        steps=40,
        batch_size=16,
        layer=replace(config.layer, d_state=10),
        network=NetworkConfig(d_model=4, blocks=1, dropout=0.1),
        compression=compression,
        loop=LoopConfig(log_every=10, evaluate_every=20, checkpoint_every=10, steps_per_dispatch=1),
        **more,
    )
    return execute(Command(config, folder, resume), Console(file=io.StringIO()))


def named(folder, name):
    return [e for e in read_events(folder / "metrics.jsonl") if e["event"] == name]


def cuts(folder):
    """The states of all layers after every shrink."""
    return [[layer["after"] for layer in e["layers"]] for e in named(folder, "shrink")]


def arrays(folder):
    from orbax.checkpoint import PyTreeCheckpointer

    step = Checkpoints(folder / "checkpoints").latest()
    return PyTreeCheckpointer().restore(folder / "checkpoints" / str(step) / "arrays")


def assert_same_end(ours, theirs):
    ours, theirs = arrays(ours), arrays(theirs)
    assert {k: np.shape(x) for k, x in ours.items()} == {k: np.shape(x) for k, x in theirs.items()}
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


COMPRESSIONS = {"fixed": FIXED, "tolerance": TOLERANCE}
SLOW_FIXED = pytest.param("fixed", marks=pytest.mark.slow)
GRACE = 2
"""Steps in larger programs after a shrink of `run`, a twentieth of all."""


@pytest.fixture(scope="module", params=[SLOW_FIXED, "tolerance"])
def compression(request):
    return COMPRESSIONS[request.param]


@pytest.fixture(scope="module")
def plain(compression, tmp_path_factory):
    """A run that does nothing in the background."""
    return run(tmp_path_factory.mktemp("runs") / "plain", replace(compression, rehearsal=0))


@pytest.fixture(scope="module")
def ahead(compression, tmp_path_factory):
    """An undisturbed run that does."""
    return run(tmp_path_factory.mktemp("runs") / "ahead", compression)


def test_training_goes_on_while_programs_compile(compression, plain, ahead):
    """With the same cuts, and parameters that differ by rounding."""
    assert cuts(ahead) == cuts(plain)
    assert [e["step"] for e in named(ahead, "rehearsal")] == [10]
    takeovers = named(ahead, "takeover")
    cutting = [
        e for e in named(ahead, "shrink") if e["layers"][0]["after"] < e["layers"][0]["before"]
    ]
    assert cutting
    assert [e["step"] for e in takeovers] == [e["step"] + GRACE for e in cutting]
    assert [e["d_state"] for e in takeovers] == [[e["layers"][0]["after"]] for e in cutting]
    assert all(e["error"] is None for e in (*takeovers, *named(ahead, "rehearsal")))
    assert not named(plain, "rehearsal")
    assert not named(plain, "takeover")
    later = [e for e in named(ahead, "compile") if e["step"] > 0]
    assert {e["what"] for e in later} == {"eval step", "train step"}
    assert all(e["background"] for e in later)
    ours, theirs = arrays(ahead), arrays(plain)
    for name in ours:  # a state and its opposite are as good
        x, y = np.abs(ours[name]), np.abs(theirs[name])
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("compression", [SLOW_FIXED], indirect=True)
def test_phases_tell_the_programs_apart(compression, ahead):
    phases = json.loads((ahead / "summary.json").read_text())["phases"]
    (first,), (second,) = cuts(ahead)
    told = [(p["from_step"], p["to_step"], p["d_state"], p["width"]) for p in phases]
    assert told == [
        (0, 10, [10], [10]),
        (10, 12, [first], [10]),
        (12, 20, [first], [first]),
        (20, 22, [second], [first]),
        (22, 40, [second], [second]),
    ]


def compiled_in(folder, compression):
    """The names of the functions that a run of its own compiles, as JAX tells them."""
    names = []

    def listener(name, *_, fun_name="", **__):
        if "backend_compile" in name:
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listener)
    run(folder, compression)
    return names


@pytest.mark.parametrize("rehearsal", [0, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_program_is_compiled_once_for_each_shape(rehearsal, tmp_path):
    names = compiled_in(tmp_path / "run", replace(FIXED, rehearsal=rehearsal))
    sizes = {tuple(e["d_state"]) for e in named(tmp_path / "run", "train")}
    assert len(sizes) == 3
    for function in ("train_steps", "eval_step"):
        assert sum(function in name for name in names) == 3, function
    told = [e["what"] for e in named(tmp_path / "run", "compile")]
    assert sorted(told) == ["eval step"] * 3 + ["train step"] * 3


def test_sizes_that_do_not_last_are_not_compiled(tmp_path):
    """Shrinks within each other's grace: one program before them all, and one after."""
    names = compiled_in(tmp_path / "run", replace(FIXED, shrinks=10))
    assert len({tuple(e["d_state"]) for e in named(tmp_path / "run", "train")}) > 4
    assert sum("train_steps" in name for name in names) == 2
    assert sum("recorded" in name for name in names) <= 1  # another test may have been first
    assert [e["step"] for e in named(tmp_path / "run", "takeover")] == [20 + GRACE]


def test_a_run_that_ends_before_its_takeover_goes_on_in_the_larger_programs(tmp_path):
    compression = replace(FIXED, shrinks=1, start=0.6, window=0.35)  # at step 38 of 40
    folder = run(tmp_path / "run", compression)
    assert cuts(folder) == [[3]]
    assert not named(folder, "takeover")
    assert not [e for e in named(folder, "compile") if e["step"] > 38]
    assert json.loads((folder / "summary.json").read_text())["layers"][0]["after"] == 3


@pytest.mark.slow
def test_priced_hsvs_are_never_padded(tmp_path):
    """Those of the padding are zero, where a square root has no derivative."""
    folder = run(tmp_path / "run", FIXED, regularization=RegularizationConfig(hankel=1e-3))
    assert cuts(folder)[-1] == [3]
    assert not named(folder, "takeover")


@pytest.mark.parametrize("compression", [SLOW_FIXED, "tolerance"], indirect=True)
@pytest.mark.parametrize(
    "method", [pytest.param("_rehearse", marks=pytest.mark.slow), "_compile_own_size"]
)
def test_what_goes_wrong_in_the_background_is_told_and_harms_nothing(
    compression, ahead, tmp_path, monkeypatch, method
):
    def fails(self, *args):
        raise RuntimeError("no more memory")
        yield

    monkeypatch.setattr(Ahead, method, fails)
    folder = run(tmp_path / "run", compression)
    event = "rehearsal" if method == "_rehearse" else "takeover"
    assert {e["error"] for e in named(folder, event)} == {"RuntimeError: no more memory"}
    assert_same_end(folder, ahead)


@pytest.mark.parametrize("compression", [SLOW_FIXED, "tolerance"], indirect=True)
@pytest.mark.parametrize("at", [11, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 22))])
def test_an_interrupt_meanwhile(compression, ahead, tmp_path, monkeypatch, at):
    """While it is rehearsed, in the larger programs, and where they are left."""
    folder, dispatch = tmp_path / "run", Engine.train
    compression = replace(compression)

    def interrupted(self, state, totals, batches, count, *wait):
        first = int(state.step)
        trained = dispatch(self, state, totals, batches, count, *wait)
        if first < at <= first + count:  # not before, when it may still wait for its program
            signal.raise_signal(signal.SIGINT)
        return trained

    monkeypatch.setattr(Engine, "train", interrupted)
    with pytest.raises(Interrupted) as stopped:
        run(folder, compression)
    assert stopped.value.step == at
    assert not [t for t in threading.enumerate() if t.name.startswith("background")]
    monkeypatch.undo()
    run(folder, compression, resume=True)
    assert cuts(folder) == cuts(ahead)
    assert_same_end(folder, ahead)


def story(folder, until=40):
    """What the log tells, in its order, but for what the background does in its own time."""
    events = [e for e in read_events(folder / "metrics.jsonl") if e["step"] <= until]
    return [(e["event"], e["step"]) for e in events if e["event"] not in ("compile", "rehearsal")]


@pytest.fixture
def certifies_late(monkeypatch):
    """Errors of the first shrink are measured once training has begun to go on.

    Returns the sizes after the shrinks whose errors have been measured.
    """
    describe, dispatch, went_on, measured = Reduction.describe, Engine.train, threading.Event(), []

    def late(self, planned, after, sizes):
        if threading.current_thread().name.startswith("certificates"):
            assert went_on.wait(60)
            measured.append(sizes)
        return describe(self, planned, after, sizes)

    def goes_on(self, state, *args):
        if int(state.step) == 10:
            went_on.set()
        return dispatch(self, state, *args)

    monkeypatch.setattr(Reduction, "describe", late)
    monkeypatch.setattr(Engine, "train", goes_on)
    return measured


@pytest.mark.parametrize("compression", [SLOW_FIXED], indirect=True)
def test_training_goes_on_while_errors_are_measured(compression, ahead, tmp_path, certifies_late):
    """The log has the shrink before all that comes after it, and the checkpoint behind it."""
    folder = run(tmp_path / "run", compression)
    assert certifies_late == cuts(folder)
    assert story(folder) == story(ahead)
    shrinks = [e["layers"] for e in named(folder, "shrink")]
    assert shrinks == [e["layers"] for e in named(ahead, "shrink")]
    assert_same_end(folder, ahead)


@pytest.mark.parametrize("compression", [SLOW_FIXED], indirect=True)
def test_a_run_that_dies_meanwhile_has_its_shrink(compression, ahead, tmp_path, monkeypatch):
    folder, dispatch = tmp_path / "run", Engine.train

    def dies(self, state, *args):
        if int(state.step) == 11:
            raise RuntimeError("no more memory")
        return dispatch(self, state, *args)

    monkeypatch.setattr(Engine, "train", dies)
    with pytest.raises(RuntimeError, match="no more memory"):
        run(folder, compression)
    assert story(folder) == story(ahead, until=10)
    assert story(folder)[-1] == ("checkpoint", 10)
    monkeypatch.undo()
    run(folder, compression, resume=True)
    assert cuts(folder) == cuts(ahead)
    assert_same_end(folder, ahead)


@pytest.mark.parametrize("steps", [1, 7, 40, 1000])
@pytest.mark.parametrize("rehearsal", [0, 1, 20, 1000])
def test_the_rehearsal_lies_before_the_first_shrink(steps, rehearsal):
    config = CompressionConfig(shrinks=4, window=0.5, rehearsal=rehearsal)
    at, shrinks = rehearsal_step(config, steps), shrink_steps(config, steps)
    if rehearsal == 0 or not shrinks:
        assert at is None
    else:
        assert at is not None
        assert 0 <= at < shrinks[0] <= at + rehearsal


@pytest.mark.parametrize(
    ("shrinks", "rehearsal", "last"),
    [
        (4, 1000, {100: 100, 200: 200, 400: 400}),  # 100 steps apart, grace 40
        (4, 0, {100: 100}),
        (10, 1000, {40: 400, 200: 400}),  # as far apart as the grace is long
        (10, 39, {40: 40, 79: 40}),
        (20, 1000, {20: 400, 380: 400, 400: 400, 500: 400}),
    ],
)
def test_which_shrinks_follow_closely(shrinks, rehearsal, last):
    config = scheduled(mode="fixed", rank=3, shrinks=shrinks, window=0.5, rehearsal=rehearsal)
    assert grace(config) == min(rehearsal, 40)
    assert {step: last_shrink(config, step, [9, 4]) for step in last} == last
    assert last_shrink(config, 119, [3, 2]) <= 119  # nothing is left to cut


def test_when_the_layers_own_programs_take_over():
    config = scheduled(mode="tolerance", shrinks=4, window=0.5, rehearsal=1000)
    assert takeover_step(config, 100, [9]) == 140
    assert takeover_step(config, 139, [9]) == 140
    assert takeover_step(config, 150, [9]) == 150  # late, as after a rollback
    assert takeover_step(replace(config, steps=120), 60, [9]) == 66
    late = scheduled(mode="tolerance", shrinks=1, window=0.96)
    assert takeover_step(late, 768, [9]) is None


def scheduled(**compression):
    config = preset("s5", "digits", "small")
    return replace(config, steps=800, compression=CompressionConfig(**compression))


def test_a_program_is_compiled_by_the_first_who_asks():
    programs, traced = Programs(), []

    @jax.jit
    def double(x):
        traced.append(x.shape)
        time.sleep(0.05)
        return 2 * x

    found = []
    x = jnp.ones(3)
    threads = [
        threading.Thread(target=lambda: found.append(programs.make("double", double, (x,))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert traced == [(3,)]
    assert sum(seconds is not None for _, seconds in found) == 1
    assert len({id(program) for program, _ in found}) == 1
    assert programs.find("double", (x,)) is found[0][0]
    assert programs.find("double", (jnp.ones(4),)) is None


def test_a_program_that_failed_is_tried_again():
    programs, failures = Programs(), [RuntimeError("first")]

    @jax.jit
    def function(x):
        if failures:
            raise failures.pop()
        return x

    x = jnp.ones(())
    with pytest.raises(RuntimeError, match="first"):
        programs.make("f", function, (x,))
    assert programs.find("f", (x,)) is None
    program, seconds = programs.make("f", function, (x,))
    assert float(program(x)) == 1
    assert seconds is not None
