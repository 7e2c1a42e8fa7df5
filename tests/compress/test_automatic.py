"""The automatic mode: its decisions on made-up histories, its search, and a loop of one's own."""

import json
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compress import Dial, Rank, WhiteNoise, auto, plan
from compress.policies.automatic import (
    SLOWED,
    Question,
    decision,
    is_due,
    question,
    verdict,
)
from compress.policies.looks import (
    Memory,
    OnTrial,
    Seen,
    held,
    look_steps,
    noted,
    taken_back,
    trial_steps,
)
from compress.policies.search import Decided
from compress.shrink.auto import _Memory, enough_for
from zoo import LRU

STEPS = 1000
TRIVIAL = 2.3


def seen(step, loss, sizes=(64, 64), beats=True, clearly=False, pays=True):
    return Seen(step, STEPS, sizes, loss, TRIVIAL, 1.0, beats, clearly, pays)


def remembered(*losses, **more):
    looks = tuple(zip(look_steps(STEPS), losses, strict=False))
    return Memory(looks=looks, **more)


def failed(step):
    """The memory after the cut at this step has been taken back."""
    looks = len([at for at in look_steps(STEPS) if at <= max(step, 850)])
    return taken_back(remembered(*[1.0] * looks, on_trial=OnTrial(step, 1.0, (64, 64))))


EARLY, LATE = Question(0.005, 2.0, 0.8 / 2), Question(0.0025, 1.0, 0.95)


@pytest.mark.parametrize(
    ("case", "memory", "look", "said"),
    [
        ("nothing learned", remembered(2.3), seen(100, 2.29), "nothing is learned"),
        ("little, no baseline beaten", remembered(2.2), seen(100, 2.15, beats=False), "nothing"),
        ("learning is fast", remembered(2.3, 1.5), seen(150, 0.9), "still fast"),
        ("the first look", remembered(), seen(50, 0.9), "first look"),
        ("slow, but for long", remembered(1.0, 1.0), seen(150, 0.98), "still fast"),
        ("as slow, near the end", remembered(*[1.0] * 7, slowed=True), seen(650, 0.98), EARLY),
        ("not finite", remembered(1.0), seen(100, float("nan")), "not finite"),
        ("taken back", remembered(1.0, taken_back=1), seen(150, 0.9), "taken back"),
        ("slowed at one look", remembered(2.3, 1.0), seen(150, 0.99), SLOWED),
        ("slowed", remembered(2.3, 1.0, slowed=True), seen(150, 0.99), EARLY),
        ("too late", remembered(2.3, 1.0, slowed=True), seen(150, 0.99, pays=False), "too little"),
        ("late enough", remembered(2.0), seen(850, 1.0, pays=False), LATE),
        (
            "little, but more than trivial",
            remembered(2.15, slowed=True),
            seen(100, 2.1499),
            EARLY,
        ),
        ("worse now, learned before", remembered(0.3, 2.4, slowed=True), seen(150, 2.4), EARLY),
        ("late, slowed", remembered(2.0), seen(850, 1.0), LATE),
        ("late, still fast", remembered(*[2.0] * 8), seen(850, 1.0), "learning is still fast"),
        (
            "late, taken back",
            remembered(1.0, taken_back=1),
            seen(850, 1),
            replace(LATE, rise=0.00125),
        ),
        ("cut before", remembered(1.0, cut_at=50), seen(150, 0.99), "an early cut has been made"),
        ("late, cut before", remembered(1.0, cut_at=50), seen(850, 0.99), LATE),
        ("a last cut has failed", failed(850), seen(900, 0.99), replace(LATE, rise=0.00125)),
        ("late, nothing learned", remembered(2.3), seen(850, 2.3), "nothing is learned"),
        ("late, overconfident", remembered(2.4), seen(850, 2.4, clearly=True), LATE),
        ("late, was better", remembered(2.4, was_clearly_better=True), seen(850, 2.4), LATE),
    ],
)
def test_what_is_asked(case, memory, look, said):
    asked = question(Dial(), memory, look)
    if isinstance(said, str):
        assert isinstance(asked, str), case
        assert said in asked
    else:
        assert asked == said, case


def test_the_smallest_model_is_cut_early_although_it_saves_no_time():
    memory, look = remembered(2.3, 1.0, slowed=True), seen(150, 0.99, pays=False)
    assert isinstance(question(Dial(smallest=True), memory, look), Question)
    assert isinstance(question(Dial(speed=2.0), memory, look), str)


@pytest.mark.parametrize(
    ("dial", "at", "taken", "rise", "room"),
    [
        (Dial(0.01), 150, 0, 0.01, 2.0),
        (Dial(0.01, smallest=True), 150, 0, 0.04, 1.0),
        (Dial(0.01, smallest=True), 150, 1, 0.02, 1.0),
        (Dial(0.01, smallest=True), 850, 0, 0.01, 1.0),
        (Dial(0.01, speed=2.0), 150, 0, 0.01, 1.0),
    ],
)
def test_what_the_dial_does(dial, at, taken, rise, room):
    asked = question(dial, remembered(1.0, 1.0, taken_back=taken, slowed=True), seen(at, 0.995))
    assert isinstance(asked, Question)
    assert asked.rise == pytest.approx(rise)
    assert asked.room == room


@pytest.mark.parametrize(
    ("case", "at", "demanded", "kept", "said"),
    [
        ("twice as many", 200, (10, 15), (20, 30), "learning has slowed; 10+15 of 64+64"),
        ("every state counts", 200, (64, 64), None, "dropping 77 of 128 states"),
        ("not worth a program", 200, (28, 28), None, "not worth a program"),
        ("late: as found", 850, (10, 60), (10, 60), "little training is left"),
        ("late: hardly any", 850, (64, 63), None, "only 1 of 128"),
        ("late: none", 850, (64, 64), None, "dropping 7 of 128 states"),
    ],
)
def test_what_is_cut(case, at, demanded, kept, said):
    memory = remembered(1.0, slowed=True)
    asked = LATE if at == 850 else EARLY
    made = decision(Dial(), memory, seen(at, 0.9), asked, demanded)
    assert made.ranks == kept, case
    assert said in made.why
    assert made.memory.looks[-1] == (at, 0.9)
    assert made.memory.guess == (None if demanded == (64, 64) else sum(demanded))
    if kept is None:
        assert made.memory.on_trial is None
        assert made.memory.slowed
    else:
        assert made.memory.on_trial == OnTrial(at, 0.9, (64, 64))
        assert made.memory.cut_at == at
        assert not made.memory.slowed


def test_learning_must_have_slowed_at_two_looks():
    """Which need not follow each other."""
    memory = remembered(1.0)
    for step, loss, asked in (
        (100, 1.0, SLOWED),
        (150, 0.5, "learning is still fast"),
        (200, 0.5, EARLY),
    ):
        look = seen(step, loss)
        found = question(Dial(), memory, look)
        assert found == asked or str(found).startswith(str(asked))
        memory = decision(Dial(), memory, look, found, (60, 60)).memory


def test_early_sizes_are_rounded_and_late_ones_are_not():
    memory = remembered(1.0, slowed=True)
    early = decision(Dial(), memory, seen(200, 0.9), EARLY, (9, 9), multiple=8)
    late = decision(Dial(), memory, seen(850, 0.9), LATE, (9, 9), multiple=8)
    assert (early.ranks, late.ranks) == ((24, 24), (9, 9))


@pytest.mark.parametrize(
    ("losses", "now", "early", "late"),
    [
        ((1.0, 0.9), 0.9, True, True),
        ((1.0, 0.9), 0.904, True, True),
        ((1.0, 0.9), 0.906, True, False),
        ((1.0, 0.9), 0.911, False, False),
        ((0.9, 0.95, 0.9), 0.94, True, True),  # it has risen as far by itself
        ((0.9, 0.95, 0.9), 0.97, False, False),
        ((1.0, 0.9), float("nan"), False, False),
    ],
)
def test_a_cut_is_judged_by_what_the_loss_does_by_itself(losses, now, early, late):
    for cut_at, holds in ((150, early), (850, late)):
        memory = remembered(*losses, on_trial=OnTrial(cut_at, 0.9, (64, 64)))
        assert (verdict(Dial(), memory, seen(cut_at + 50, now)) is None) == holds
        assert verdict(Dial(), held(memory), seen(cut_at + 50, now)) is None


def test_swings_of_a_large_loss_excuse_no_doubling_of_a_small_one():
    memory = remembered(0.09, 0.12, 0.02, on_trial=OnTrial(150, 0.02, (64, 64)))
    assert verdict(Dial(), memory, seen(200, 0.031)) is None  # a third more, and the dial
    assert verdict(Dial(), memory, seen(200, 0.04)) is not None


def test_the_last_look_is_only_for_a_late_cut_that_has_failed_or_was_not_tried():
    assert is_due(Dial(), remembered(1.0), 100, STEPS)
    assert not is_due(Dial(), remembered(1.0), 99, STEPS)
    assert is_due(Dial(), remembered(1.0), 210, STEPS)  # late, in a loop of one's own
    fast = decision(Dial(), remembered(*[2.0] * 8), seen(850, 1.0), "learning is fast").memory
    for memory, due in (
        (remembered(*[1.0] * 9), False),
        (failed(150), False),
        (failed(850), True),
        (fast, True),
    ):
        assert is_due(Dial(), memory, 900, STEPS) == due


def test_fewer_sequences_allow_less():
    for step in (200, 850):
        memory = remembered(*[1.0] * 8, slowed=True)
        few, enough = (
            question(Dial(), memory, replace(seen(step, 0.999), certainty=share))
            for share in (0.5, 1.0)
        )
        assert few.rise == 0.5 * enough.rise
        assert few.room == enough.room


@pytest.mark.parametrize(
    ("dial", "more", "due"),
    [
        (Dial(), {}, True),
        (Dial(), {"pays": False}, False),
        (Dial(), {"cut_at": 50}, False),
        (Dial(), {"taken_back": 1}, False),
        (Dial(speed=2), {"cut_at": 50}, True),
        (Dial(speed=2), {"pays": False}, False),
        (Dial(smallest=True), {"pays": False, "cut_at": 50, "taken_back": 1}, True),
        (Dial(smallest=True), {"taken_back": 2}, False),
    ],
)
def test_looks_at_which_no_cut_can_be_made_are_left_out(dial, more, due):
    memory = remembered(2.0, 1.0, **more)
    assert is_due(dial, memory, 150, STEPS) == due
    assert is_due(dial, memory, 640, STEPS) == due
    assert is_due(dial, memory, 650, STEPS)  # the pace before the late look


def test_memory_goes_through_json():
    for memory in (
        Memory(),
        remembered(2.0, 1.0, slowed=True, guess=7, on_trial=OnTrial(50, 1.0, (8, 8)), cut_at=50),
        taken_back(noted(Memory(), seen(50, 1.0))),
    ):
        assert Memory.of(json.loads(json.dumps(memory.plain()))) == memory
    assert Memory.of(None) == Memory()


def test_looks_and_trials_are_inside_the_run():
    for steps in (1, 2, 7, 20, 1000, 16_000):
        looks, trials = look_steps(steps), trial_steps(steps)
        assert all(0 < step < steps for step in looks)
        assert all(0 < step <= steps for step in trials)
    assert look_steps(1000) == (50, 100, 150, 200, 300, 400, 500, 650, 850, 900)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"loss": 0.0}, "`loss`"),
        ({"loss": 1.0}, "`loss`"),
        ({"speed": 1.0}, "`speed`"),
        ({"speed": 2.0, "smallest": True}, "`speed`"),
    ],
)
def test_a_dial_checks_itself(wrong, named):
    with pytest.raises(ValueError, match=named):
        Dial(**wrong)


@pytest.mark.parametrize(
    ("across", "ranks"), [(True, [4, 1]), (False, [3, 2])], ids=["one unit", "each its own"]
)
def test_the_most_valuable_states_stay(across, ranks):
    sigmas = [np.array([1.0, 0.5, 0.2, 0.06]), np.array([0.05, 0.02, 1e-4])]
    policy = Decided(lambda cut: sum(cut) < 5, 0.5, lambda found: found, across, now=0.0)
    assert policy.choose(sigmas, lambda cut: cut) == ranks
    just = replace(policy, loss=lambda cut: 0.0, enough=lambda found: sum(found) <= 5)
    assert just.choose(sigmas, lambda cut: cut) == ranks
    assert replace(policy, most=0.6).choose(sigmas, lambda cut: cut) == [4, 3]  # 4 are too few


def searched(needed, states=100, **options):
    """What a search finds where so many states are needed, and the numbers that it tries."""
    tried = []

    def loss(ranks):
        tried.append(ranks[0])
        return float(ranks[0] < needed)

    policy = Decided(loss, 0.5, lambda found: found, now=0.0, **options)
    (found,) = policy.choose([np.geomspace(1, 1e-9, states)], lambda ranks: ranks)
    return found, tried


@pytest.mark.parametrize("needed", [1, 2, 9, 40, 53, 54, 99, 100])
@pytest.mark.parametrize("guess", [None, 1, 40, 100])
def test_a_search_ends_within_its_share(needed, guess):
    assert searched(needed, guess=guess)[0] == needed
    found, tried = searched(needed, guess=guess, close=0.2, most=0.53)
    if needed > 53:
        assert found == 100  # no cut is worth it
        assert tried[-1] == 53
        assert len(tried) <= 7
    else:
        assert needed <= found <= max(needed + 1, 1.25 * needed)
        assert len(tried) == len(set(tried)) <= 10


def test_a_good_guess_ends_a_search_soon():
    assert searched(40, guess=40, close=0.2, most=0.53) == (40, [40, 32])
    assert searched(44, guess=40, close=0.2, most=0.53) == (47, [40, 53, 47])


def test_rises_that_grow_evenly_end_a_search_soon():
    """Where a state less costs a tenth more, a line through two rises says where the limit is."""

    def trials(guess, close):
        tried = []

        def loss(ranks):
            tried.append(ranks[0])
            return 0.5 * 1.1 ** (60 - ranks[0])  # 60 states are needed

        how = {"now": 0.0, "guess": guess, "close": close}
        policy = Decided(loss, 0.5, lambda found: found, **how)
        (found,) = policy.choose([np.geomspace(1, 1e-9, 128)], lambda ranks: ranks)
        assert 60 <= found <= 1 + (1 + close) * 60
        return len(tried)

    for guess, coarse, fine in ((40, 3, 5), (55, 3, 4), (60, 2, 3), (64, 3, 4), (100, 4, 5)):
        assert trials(guess, 0.2) <= coarse
        assert trials(guess, 0.03) <= fine


def test_rises_that_jump_are_bisected():
    """A line would say each time that one state more is enough."""
    tried = []

    def loss(ranks):
        tried.append(ranks[0])
        return 0.0 if ranks[0] >= 60 else 0.5 * 1.01

    policy = Decided(loss, 0.5, lambda found: found, now=0.0, guess=20)
    assert policy.choose([np.geomspace(1, 1e-9, 128)], lambda ranks: ranks) == [60]
    assert len(tried) <= 14


@pytest.mark.slow
def test_the_search_finds_the_fewest_states_within_the_rise(getkey):
    layer = LRU.init(d_model=3, d_state=24, key=getkey())
    u = jax.random.normal(getkey(), (50, 3))
    exact = layer(u)
    tried = []

    def loss(layer):
        tried.append(layer.d_state)
        return float(jnp.mean((layer(u) - exact) ** 2))

    def states(rise, enough=None):
        found = []
        policy = Decided(loss, rise, lambda ranks: found.append(ranks[0]), False, enough)
        assert plan(layer, policy=policy.gated(1.0), method=WhiteNoise()).ranks == {"": 24}
        return found[0]

    sizes = [states(rise) for rise in (1e-6, 1e-4, 1e-2)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]
    assert len(tried) <= 3 * 10  # a bisection
    (cut,) = plan(layer, policy=Rank(sizes[1]), method=WhiteNoise()).layers
    assert cut.cut is not None
    assert loss(cut.cut.after) <= 1.5e-4
    # and no further than is enough
    assert sizes[-1] < states(1e-2, lambda ranks: ranks[0] <= 20) <= 20


@pytest.mark.parametrize(("each", "fewest"), [(None, 1), (0.0, 1), (0.1, 20)])
def test_a_loop_may_give_training_data_too(each, fewest, getkey):
    """A rise of 0.1 is allowed, so 0.4 on training data, where each state less costs `each`."""
    layer = LRU.init(d_model=3, d_state=24, key=getkey())
    how: dict = {"steps": 100, "trivial": 2.0, "method": WhiteNoise(), "unit": 40.0}
    if each is not None:
        how["training_loss"] = lambda layer: each * (24 - layer.d_state)
    known = _Memory(Memory(looks=((65, 0.5),)))
    made = auto(layer, step=85, loss=lambda layer: 0.5, memory=known, **how)
    assert made.model.d_state == fewest


@pytest.mark.parametrize(("judged", "fewest"), [(None, 20), (128, 20), (32, 22)])
def test_a_loop_may_say_how_many_sequences_judge(judged, fewest, getkey):
    """A rise of 0.1 is allowed, where each state less costs 0.024; half of it by 32 sequences."""
    layer = LRU.init(d_model=3, d_state=24, key=getkey())
    how: dict = {"steps": 100, "trivial": 2.0, "method": WhiteNoise(), "unit": 40.0}
    known = _Memory(Memory(looks=((65, 0.5),)))
    made = auto(
        layer,
        step=85,
        loss=lambda layer: 0.5 + 0.024 * (24 - layer.d_state),
        memory=known,
        judged=judged,
        **how,
    )
    assert made.model.d_state == fewest


def test_a_loop_of_ones_own_is_checked(getkey):
    layer = LRU.init(d_model=3, d_state=24, key=getkey())
    how: dict = {"steps": 100, "trivial": 2.0, "loss": lambda layer: 0.5}
    for wrong, said in (
        ({"step": 101, "method": WhiteNoise()}, "`step` must be in 0 to steps=100, got 101"),
        ({"step": 5}, "one of `batch` and `method` must be given, got neither"),
        ({"step": 5, "method": WhiteNoise(), "judged": 0}, "`judged` must be 1 or more"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            auto(layer, **how, **wrong)


def test_enough_counts_weights(getkey):
    layer = LRU.init(d_model=8, d_state=32, key=getkey())
    enough = enough_for(layer, 2.0)
    assert not enough([32])
    assert enough([15])
    assert not enough([17])


def test_a_loop_of_ones_own(getkey):
    """It waits while nothing is learned, cuts, and takes back what does not hold."""
    layer = LRU.init(d_model=3, d_state=24, key=getkey())
    u = jax.random.normal(getkey(), (50, 3))
    exact = layer(u)
    extra = [2.0]

    def loss(model):
        return extra[0] + float(jnp.mean((model(u) - exact) ** 2))

    def look(model, memory, step):
        how = {"steps": 100, "trivial": 2.0, "method": WhiteNoise(), "unit": 100.0}
        return auto(model, step=step, loss=loss, memory=memory, **how)

    first = look(layer, None, 4)
    assert first.why is None
    waits = look(layer, first.memory, 5)
    assert "nothing is learned" in str(waits.why)
    extra[0] = 0.5
    memory = waits.memory
    for step in (10, 15, 20):
        looked = look(layer, memory, step)
        memory = looked.memory
        if looked.plan is not None:
            break
    assert "learning has slowed" in str(looked.why)
    assert looked.model.d_state < 24
    assert look(looked.model, memory, 24).why is None
    holds = look(looked.model, memory, 25)
    assert holds.model is looked.model
    extra[0] = 1.6
    back = look(looked.model, memory, 25)
    assert back.model is layer
    assert "taken back" in str(back.why)
    again = look(layer, back.memory, 30)
    assert again.model is layer
    assert replace(again.memory.numbers, looks=()).taken_back == 1
