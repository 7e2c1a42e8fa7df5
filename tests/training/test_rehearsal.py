"""Shrinks tried out ahead of time: one compilation for each shape, and nothing else changes."""

import io
import signal
import threading
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from compress import plan
from training.app import execute
from training.checkpoint import Checkpoints
from training.cli import Command
from training.config import CompressionConfig, LoopConfig, NetworkConfig
from training.loop import Interrupted, Run
from training.metrics import read_events
from training.presets import preset
from training.programs import Programs
from training.rehearsal import Rehearsal, settle
from training.schedule import rehearsal_steps, shrink_steps

pytestmark = pytest.mark.usefixtures("no_reports")

FIXED = CompressionConfig(method="data", mode="fixed", rank=3, shrinks=2, window=0.5)
TOLERANCE = CompressionConfig(method="data", tolerance=0.1, shrinks=2, window=0.5, multiple=2)


def run(folder, compression=FIXED, resume=False):
    config = preset("s5", "digits", "small")
    config = replace(
        config,
        steps=40,
        batch_size=16,
        layer=replace(config.layer, d_state=10),
        network=NetworkConfig(d_model=4, blocks=1, dropout=0.1),
        compression=compression,
        loop=LoopConfig(log_every=10, evaluate_every=20, checkpoint_every=10, steps_per_dispatch=4),
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
SLOW_FIXED, SLOW_TOLERANCE = (pytest.param(name, marks=pytest.mark.slow) for name in COMPRESSIONS)


@pytest.fixture(scope="module", params=COMPRESSIONS)
def compression(request):
    return COMPRESSIONS[request.param]


@pytest.fixture(scope="module")
def plain(compression, tmp_path_factory):
    """A run without rehearsals."""
    return run(tmp_path_factory.mktemp("runs") / "plain", replace(compression, rehearsal=0))


@pytest.fixture(scope="module")
def rehearsed(compression, tmp_path_factory):
    """An undisturbed run with rehearsals."""
    return run(tmp_path_factory.mktemp("runs") / "rehearsed", compression)


def test_a_rehearsal_changes_nothing_but_who_compiles(compression, plain, rehearsed):
    """Except that in mode "tolerance" ranks near those needed are taken over from it."""
    rehearsals = named(rehearsed, "rehearsal")
    assert [e["step"] for e in rehearsals] == [10, 20]
    assert not named(plain, "rehearsal")
    assert all(e["error"] is None for e in rehearsals)
    if compression.mode == "fixed":
        assert all(e["agreed"] for e in rehearsals)
        assert_same_end(rehearsed, plain)
    surprised = {e["step"] for e in rehearsals if not e["agreed"]}
    later = [e for e in named(rehearsed, "compile") if e["step"] > 0]
    assert later
    assert all(e["background"] or e["step"] in surprised for e in later)


@pytest.mark.parametrize("rehearsal", [0, 1000])
def test_every_program_is_compiled_once_for_each_shape(rehearsal, tmp_path):
    """As counted by JAX itself."""
    compiled = []

    def listener(name, *_, fun_name="", **__):
        if "backend_compile" in name:
            compiled.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listener)
    folder = run(tmp_path / "run", replace(FIXED, rehearsal=rehearsal))
    sizes = {tuple(e["d_state"]) for e in named(folder, "train")}
    assert len(sizes) == 3
    for function in ("train_steps", "eval_step"):
        assert sum(function in name for name in compiled) == 3, function
    told = [e["what"] for e in named(folder, "compile")]
    assert sorted(told) == ["eval step"] * 3 + ["train step"] * 3


@pytest.mark.parametrize("compression", [SLOW_FIXED, "tolerance"], indirect=True)
def test_ranks_that_were_wrong_are_not_taken(compression, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(Rehearsal, "ranks", lambda self: [1])
    folder = run(tmp_path / "run", compression)
    assert_same_end(folder, plain)


@pytest.mark.parametrize("compression", ["fixed", SLOW_TOLERANCE], indirect=True)
def test_shapes_that_were_wrong_are_compiled_at_the_shrink(
    compression, plain, tmp_path, monkeypatch
):
    plan_shrink = Run._plan_shrink

    def wrong(self, state, step, rehearsed):
        if threading.current_thread() is threading.main_thread():
            return plan_shrink(self, state, step, rehearsed)
        return plan(self.model, ranks=1)

    monkeypatch.setattr(Run, "_plan_shrink", wrong)
    folder = run(tmp_path / "run", compression)
    assert not any(e["agreed"] for e in named(folder, "rehearsal"))
    assert_same_end(folder, plain)


@pytest.mark.parametrize("other", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_goes_wrong_in_the_background_is_told_and_harms_nothing(
    compression, plain, rehearsed, tmp_path, monkeypatch, other
):
    """In the plan or in what follows it: one for each mode, and `other` the other."""
    method = "_plan_shrink" if (compression.mode == "tolerance") != other else "_prepare_for"
    original = getattr(Run, method)

    def fails(self, *args):
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("no more memory")
        return original(self, *args)

    monkeypatch.setattr(Run, method, fails)
    folder = run(tmp_path / "run", compression)
    errors = [e["error"] for e in named(folder, "rehearsal")]
    assert errors == ["RuntimeError: no more memory"] * 2
    assert_same_end(folder, plain if method == "_plan_shrink" else rehearsed)


@pytest.mark.parametrize("compression", [SLOW_FIXED, "tolerance"], indirect=True)
@pytest.mark.parametrize("at", [0, 1])
def test_an_interrupt_while_it_plays(compression, rehearsed, tmp_path, monkeypatch, at):
    """The thread ends with the run; the resumed one takes the same ranks, and ends the same."""
    folder, rehearse, calls = tmp_path / "run", Run.rehearse, []

    def interrupted(self):
        rehearse(self)
        calls.append(self.step)
        if len(calls) == at + 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "rehearse", interrupted)
    with pytest.raises(Interrupted) as stopped:
        run(folder, compression)
    assert stopped.value.step == calls[-1]
    assert not [t for t in threading.enumerate() if t.name.startswith("rehearsal")]
    monkeypatch.undo()
    run(folder, compression, resume=True)
    assert cuts(folder) == cuts(rehearsed)
    assert_same_end(folder, rehearsed)
    assert len(named(folder, "rehearsal")) == 2


@pytest.mark.parametrize(
    ("rehearsed", "multiple", "taken"),
    [
        (None, 1, False),
        ([40, 20], 1, True),
        ([44, 22], 1, True),  # a tenth more
        ([45, 20], 1, False),
        ([45, 24], 8, True),
        ([49, 20], 8, False),
        ([40, 19], 8, False),  # one layer needs more
    ],
)
def test_which_ranks_are_taken(rehearsed, multiple, taken):
    policy = settle(lambda sigma: len(sigma), rehearsed, multiple)
    needed = [40, 20]
    ranks = policy.ranks([np.ones(n) for n in needed], lambda _: None)
    assert ranks == (rehearsed if taken else needed)


@pytest.mark.parametrize("steps", [1, 7, 40, 1000])
@pytest.mark.parametrize("rehearsal", [0, 1, 20, 1000])
def test_rehearsals_lie_between_shrinks(steps, rehearsal):
    config = CompressionConfig(shrinks=4, window=0.5, rehearsal=rehearsal)
    times, before = rehearsal_steps(config, steps), 0
    assert len(times) == 0 or rehearsal > 0
    for shrink in shrink_steps(config, steps):
        for at in [at for at, of in times.items() if of == shrink]:
            assert before < at < shrink
            assert shrink - at <= rehearsal
        before = shrink


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
