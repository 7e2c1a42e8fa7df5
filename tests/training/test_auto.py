"""Runs in mode `auto`: what is looked at, cut, taken back and told, and exact resuming."""

import json
import signal
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress.policies import automatic
from compress.policies.looks import Memory
from data import load_task
from data.task import Split, Task, text_split
from training.model.objective import Totals
from training.reporting.events import read_events
from training.reporting.history import History
from training.reporting.looks import left_whole, looks_section
from training.run.interrupt import Interrupted
from training.run.loop import Run
from training.settings.command import parse_command
from training.settings.config import CompressionConfig, LoopConfig
from training.settings.errors import UsageError
from training.settings.presets import preset
from training.settings.schedule import shrink_steps, takeover_after
from training.shrinking.automatic import Automatic
from training.shrinking.trivial import trivial_loss
from training.shrinking.worth import OF_A_PROGRAM, steps_to_pay, weights_of_states
from zoo import LRU, GatedDeltaNetConfig

from .test_run import arrays, numbers, run, small

pytestmark = pytest.mark.usefixtures("no_reports")

SPLITS: tuple[str, ...] = ("train", "validation", "test")
AUTO = CompressionConfig(mode="auto", loss=0.02, calibration=16, rehearsal=2)


def config(**changes):
    base = small(compression=AUTO, steps=100)
    network = replace(base.network, bidirectional=False, dropout=0.0)
    loop = LoopConfig(log_every=50, evaluate_every=50, checkpoint_every=25, steps_per_dispatch=5)
    layer = replace(base.layer, d_state=16)
    return replace(base, network=network, loop=loop, **{"layer": layer, **changes})


def named(folder, name):
    return [e for e in read_events(folder / "metrics.jsonl") if e["event"] == name]


def sizes(folder):
    return [x["after"] for x in json.loads((folder / "summary.json").read_text())["layers"]]


@pytest.fixture
def learns_at_once(monkeypatch):
    """Little is learned in so few steps: let all of it count."""
    monkeypatch.setattr(automatic, "LEARNED", 1.5)
    monkeypatch.setattr(automatic, "CLEARLY_LEARNED", 1.5)
    monkeypatch.setattr(automatic, "_still_learns", lambda memory, seen: None)


@pytest.fixture
def programs_are_cheap(monkeypatch):
    """Else so few steps are too few for an early cut."""
    monkeypatch.setitem(OF_A_PROGRAM, "cpu", 1.0)


def test_a_run_that_learns_nothing_is_left_whole_and_says_why(tmp_path):
    still = replace(small().optimizer, learning_rate=1e-9, floor=0.0)
    folder = run(config(optimizer=still), tmp_path / "run")
    looks = named(folder, "look")
    assert [e["step"] for e in looks] == [5, 65, 85, 90]  # too short for an early cut
    assert all("nothing is learned" in e["why"] for e in looks)
    assert not named(folder, "shrink")
    assert sizes(folder) == [16]
    history = History.from_directory(folder)
    assert "was not cut" in str(left_whole(history))
    assert "nothing is learned" in looks_section(history)


@pytest.mark.usefixtures("learns_at_once", "programs_are_cheap")
def test_a_run_is_cut_judged_told_and_resumes_exactly(tmp_path, monkeypatch):
    whole = run(config(), tmp_path / "whole")
    cuts = named(whole, "shrink")
    assert cuts[0]["step"] < 85
    assert sizes(whole)[0] < 16
    for cut in cuts:
        (look,) = [e for e in named(whole, "look") if e["step"] == cut["step"]][-1:]
        assert (look["decision"], look["why"]) == ("cut", cut["why"])
    assert cuts[0]["loss_after"] is not None
    judged = [e["step"] for e in named(whole, "look") if e["decision"] == "held"]
    taken = [e["from_step"] for e in named(whole, "rollback")]
    assert judged or taken
    if not taken:  # else the log has forgotten the cut
        assert judged[0] == cuts[0]["step"] + 5
    folder, train_to, stops = tmp_path / "run", Run.train_to, iter([cuts[0]["step"], 60])

    def interrupted(self, to, interrupt):
        if to > stop:
            signal.raise_signal(signal.SIGINT)
        return train_to(self, to, interrupt)

    for resume in (False, True):
        stop = next(stops)
        monkeypatch.setattr(Run, "train_to", interrupted)
        with pytest.raises(Interrupted):
            run(config(), folder, resume=resume)
        monkeypatch.setattr(Run, "train_to", train_to)
    run(config(), folder, resume=True)
    ours, theirs = arrays(folder), arrays(whole)
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    without = ("duration",)
    assert [{k: v for k, v in e.items() if k not in without} for e in numbers(folder)] == [
        {k: v for k, v in e.items() if k not in without} for e in numbers(whole)
    ]


def test_a_cut_that_adds_maps_is_tried_with_maps(tmp_path, learns_at_once):
    layer = GatedDeltaNetConfig(d_state=8, heads=2)
    folder = run(config(model="gated_deltanet", layer=layer), tmp_path / "run")
    assert named(folder, "shrink")
    assert sizes(folder)[0] < 8
    compiled = [e for e in named(folder, "compile") if e["what"] == "eval step"]
    assert len(compiled) <= 3  # as it was, with maps, and of its own size


def test_a_cut_that_does_not_hold_is_taken_back(tmp_path, monkeypatch, learns_at_once):
    judge = automatic.verdict
    seen = []

    def fails_once(dial, memory, look):
        if memory.on_trial is not None and not seen:
            seen.append(memory.on_trial)
            return "it fails"
        return judge(dial, memory, look)

    monkeypatch.setattr("training.shrinking.automatic.verdict", fails_once)
    folder = run(config(), tmp_path / "run")
    (rollback,) = named(folder, "rollback")[:1]
    assert rollback["why"] == "it fails"
    assert (rollback["step"], rollback["from_step"]) == (seen[0].step, seen[0].step + 5)
    assert rollback["d_state"] == [16]
    later = [e for e in named(folder, "look") if e["step"] > rollback["step"]]
    assert later
    assert all("taken back" in e["why"] for e in later if e["step"] < 85)


def language():
    text = np.random.default_rng(0).choice(4, 5000, p=[0.5, 0.25, 0.125, 0.125]).astype(np.uint8)
    split = text_split(text, 20, 20)
    splits = dict.fromkeys(SPLITS, split)
    return Task("text", 20, "tokens", 4, splits, kind="language")


def asked():
    """Of all steps one asks, for a token that is always the same."""
    inputs, labels = np.zeros((8, 5), np.int32), np.full((8, 5), -1, np.int32)
    labels[:, 3] = 1
    splits = dict.fromkeys(SPLITS, Split(inputs, labels, input_kind="tokens"))
    return Task("asked", 5, "tokens", 2, splits, kind="recall")


@pytest.mark.parametrize(
    ("make", "known", "near"),
    [
        (lambda: load_task("digits"), np.log(10), 0.01),
        (language, 1.75 * np.log(2), 0.02),
        (asked, -np.log(9 / 10), 1e-6),
        (lambda: load_task("pendulum"), None, 0.15),
    ],
    ids=["classes", "tokens", "tokens asked for", "values"],
)
def test_the_trivial_loss_is_that_of_the_best_constant(make, known, near):
    made = make()
    loss = trivial_loss(made, made.splits["validation"].select(slice(0, 64)))
    if known is None:
        (known,) = made.baselines.values()
    assert loss == pytest.approx(known, rel=near)


def totals(loss, right):
    sums = {"loss": loss, "right": right, "number": 8}
    return Totals.zero()._replace(**{name: jnp.float32(x) for name, x in sums.items()})


def test_where_accuracy_counts_it_may_not_fall():
    """A cut that lowers the loss and the accuracy is none."""
    labels = np.zeros(8, np.int32)
    split = Split(np.zeros((8, 4, 1), np.float32), labels)
    task = Task("made", 4, "real", 1, dict.fromkeys(SPLITS, split), 2)
    auto = Automatic(replace(preset("lru", "digits", "small"), compression=AUTO), task)
    asked, seen = automatic.Question(0.02, 1.0), auto.seen(850, (4,), lambda _: totals(8, 8))
    held_back = iter([totals(4, 8), totals(4, 6)])

    def sums(model, of):
        return next(held_back) if of is auto.judged else totals(8, 8)

    policy = auto.search(None, seen, asked, sums, lambda x: x)
    assert policy.now == 1.0
    assert policy.loss(None) == 1.0  # not 0.5, since that on training data stays
    assert policy.loss(None) == pytest.approx(1.0 + 2 * 0.02)  # it falls twice as far as it may


@pytest.mark.parametrize(
    ("baselines", "right", "clearly"),
    [({"majority": 0.5}, 6, True), ({"majority": 0.5}, 5, False), ({}, 8, False)],
    ids=["surely", "perhaps", "nothing to beat"],
)
def test_many_right_answers_show_learning_whatever_the_loss(baselines, right, clearly):
    """Of 40 sequences, half and three standard errors are 74 %."""
    split = Split(np.zeros((40, 4, 1), np.float32), np.zeros(40, np.int32))
    splits = dict.fromkeys(SPLITS, split)
    task = Task("made", 4, "real", 1, splits, 2, baselines=baselines)
    auto = Automatic(replace(preset("lru", "digits", "small"), compression=AUTO), task)
    seen = auto.seen(500, (4,), lambda _: totals(80, right))
    assert seen.clearly_better is clearly
    kept = auto.decision(seen, "no cut").memory
    assert Memory.of(kept.plain()).was_clearly_better is clearly


@pytest.mark.parametrize(("make", "each"), [(lambda: load_task("digits"), 4), (language, 2)])
def test_half_as_many_sequences_of_a_text_judge_a_cut(make, each):
    """Each of its characters is judged."""
    few = replace(AUTO, calibration=3)
    auto = Automatic(replace(preset("lru", "digits", "small"), compression=few), make())
    assert len(auto.weighed) == 3
    assert len(auto.judged) == 3 * each
    assert len(auto.decisive) == 4 * 3 * each


@pytest.mark.parametrize(("number", "certainty"), [(32, 0.5), (128, 1.0), (10_000, 1.0)])
def test_few_sequences_make_a_look_uncertain(number, certainty):
    split = Split(np.zeros((40, 4, 1), np.float32), np.zeros(40, np.int32))
    task = Task("made", 4, "real", 1, dict.fromkeys(SPLITS, split), 2)
    auto = Automatic(replace(preset("lru", "digits", "small"), compression=AUTO), task)
    of_each = totals(8, 7)._replace(number=np.float32(number))
    assert auto.seen(500, (4,), lambda _: of_each).certainty == pytest.approx(certainty)


@pytest.mark.parametrize("step", [500, 1750])
def test_late_looks_judge_learning_on_more_sequences(step):
    split = Split(np.zeros((40, 4, 1), np.float32), np.zeros(40, np.int32))
    splits = dict.fromkeys(SPLITS, split)
    task = Task("made", 4, "real", 1, splits, 2, baselines={"majority": 0.5})
    few = replace(AUTO, calibration=2)
    auto = Automatic(replace(preset("lru", "digits", "small"), compression=few), task)
    sizes = []

    def measure(split):
        sizes.append(len(split))
        return totals(80, 7)

    assert auto.seen(step, (4,), measure).clearly_better is (step > 500)
    assert sizes == ([8, 32] if step > 500 else [8])


def test_the_last_cut_is_confirmed_on_more_sequences():
    split = Split(np.zeros((40, 4, 1), np.float32), np.zeros(40, np.int32))
    task = Task("made", 4, "real", 1, dict.fromkeys(SPLITS, split), 2)
    few = replace(AUTO, calibration=2)
    base = preset("lru", "digits", "small")
    auto = Automatic(replace(base, compression=few, steps=1000), task)
    used = []

    def sums(ranks, split):  # of few sequences, one state is enough; of more, seven are needed
        used.append(len(split))
        worse = len(split) > 8 and ranks[0] < 7
        return totals(9 if worse else 8, 8)

    found = {}
    for step in (500, 850):
        seen = auto.seen(step, (16,), lambda _: totals(8, 8))
        asked = automatic.Question(0.02, 1.0)
        policy = auto.search(None, seen, asked, sums, lambda ranks: ranks)
        found[step] = policy.choose([np.geomspace(1, 1e-3, 16)], lambda ranks: ranks)
    assert found == {500: [1], 850: [8]}  # 1, 2, 3, 4, 5, 6, 8
    assert set(used) == {2, 8, 32}


def test_a_cut_that_training_data_notice_is_none():
    """The loss on them may rise four times as far, by 0.08 from 1 to 1.08."""
    split = Split(np.zeros((8, 4, 1), np.float32), np.zeros(8, np.int32))
    task = Task("made", 4, "real", 1, dict.fromkeys(SPLITS, split), 2)
    auto = Automatic(replace(preset("lru", "digits", "small"), compression=AUTO), task)
    asked, seen = automatic.Question(0.02, 1.0), auto.seen(850, (16,), lambda _: totals(8, 8))

    def sums(ranks, of):  # the fewer states, the better by held-back data
        trained = 8 + (16 - ranks[0]) / 16 if isinstance(ranks, list) else 8
        return totals(4 if of is auto.judged else trained if of is auto.weighed else 8, 8)

    policy = auto.search(None, seen, asked, sums, lambda ranks: ranks)
    kept = policy.choose([np.geomspace(1, 1e-3, 16)], lambda ranks: list(ranks))
    assert kept == [6]  # 8 + 10/16 is 1.078 for each of 8


def test_programs_for_few_steps_are_not_compiled():
    base = replace(config(), steps=1000, compression=replace(AUTO, rehearsal=1000))
    assert takeover_after(base, 300, 300, 300.0) == 350
    assert takeover_after(base, 700, 300, 300.0) == 700
    assert takeover_after(base, 701, 300, 300.0) is None
    assert takeover_after(base, 850, 850, 300.0) is None
    assert takeover_after(base, 850, 850, 100.0) == 900
    assert takeover_after(base, 980, 980, 0.0) is None
    assert takeover_after(base, 300, None, 0.0) is None
    assert steps_to_pay(base, load_task("digits"), 0) == np.inf
    few, many = (steps_to_pay(base, load_task("digits"), weights) for weights in (100, 1000))
    assert few == pytest.approx(10 * many)


def test_an_early_cut_is_made_only_if_its_program_could_pay(tmp_path, learns_at_once):
    """A state of an LRU has three weights, and complex rows of B and C."""
    layers = [LRU.init(d_model=5, d_state=8, key=jax.random.key(k)) for k in (0, 1)]
    assert weights_of_states(layers) == 2 * 7 * (3 + 2 * 2 * 5)
    folder = run(config(), tmp_path / "run")
    early = [e["why"] for e in named(folder, "look") if e["step"] < 85]
    assert all(why.startswith("too little is left for a program") for why in early)
    assert named(folder, "shrink")[0]["step"] >= 85


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        ("--compression.loss 0.5%", "loss", 0.005),
        ("--compression.loss 0.01", "loss", 0.01),
        ("--compression.speed 2x", "speed", 2.0),
        ("--compression.speed 1.5", "speed", 1.5),
        ("--compression.speed None", "speed", None),
        ("--compression.smallest True", "smallest", True),
    ],
)
def test_the_dial_is_written_as_people_write_it(option, name, value):
    line = f"--model lru --task digits --compression.mode auto {option}"
    assert getattr(parse_command(line.split()).config.compression, name) == value


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--compression.loss much", "compression.loss"),
        ("--compression.loss 0", "compression.loss"),
        ("--compression.speed 1x", "compression.speed"),
        ("--compression.speed 2x --compression.smallest True", "compression.speed"),
    ],
)
def test_a_wrong_dial_is_named(option, named):
    with pytest.raises(UsageError, match=named):
        parse_command(f"--model lru --task digits --compression.mode auto {option}".split())


def test_shrinks_may_come_at_evaluations():
    every = CompressionConfig(every=5000, window=0.1)
    assert shrink_steps(every, 200_000) == (5000, 10_000, 15_000, 20_000)
