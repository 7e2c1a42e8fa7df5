"""What the displays say, that they count time sensibly, and that they give the terminal back."""

import io
import re

import pytest
from rich.console import Console

from training.reporting.display import LiveDisplay, PlainDisplay, make_display
from training.reporting.events import Sink
from training.reporting.time_left import TimeLeft
from training.reporting.words import format_seconds


def start(sizes=(64, 64), total=1000):
    layers = [{"path": f"blocks[{i}].ssm", "d_state": size} for i, size in enumerate(sizes)]
    return {
        "event": "start",
        "step": 0,
        "task": "pathfinder",
        "model": "s5",
        "seed": 0,
        "total_steps": total,
        "parameters": 123456,
        "length": 256,
        "classes": 2,
        "baselines": {"majority": 0.5, "disc distance": 0.53},
        "layers": layers,
    }


def train(step, rate=10.0, sizes=(64, 64), loss: float | None = 0.25):
    return {
        "event": "train",
        "step": step,
        "loss": loss,
        "accuracy": 0.875,
        "learning_rate": 1e-3,
        "learning_rate_ssm": 2.5e-4,
        "steps_per_second": rate,
        "d_state": list(sizes),
        "seconds": step / 10,
    }


def evaluation(step, accuracy: float | None = 0.75, duration=2.0, split="validation"):
    return {
        "event": "eval",
        "step": step,
        "split": split,
        "loss": 0.5,
        "accuracy": accuracy,
        "seconds": 1.0,
        "duration": duration,
    }


def shrink(step, before=(64, 64), after=(40, 64)):
    layers = [
        {
            "path": f"blocks[{i}].ssm",
            "before": old,
            "after": new,
            "sigma": [1.0, 0.1],
            "bound": 0.2,
            "sigma_next": 0.05,
            "error": None,
        }
        for i, (old, new) in enumerate(zip(before, after, strict=True))
    ]
    return {
        "event": "shrink",
        "step": step,
        "layers": layers,
        "loss_before": 0.5,
        "loss_after": 0.51,
        "plan_seconds": 0.2,
        "compress_seconds": 0.1,
    }


RUN = [
    start(),
    {"event": "compile", "step": 0, "seconds": 7.25, "what": "train step"},
    train(100),
    {"event": "spectrum", "step": 100, "layers": [{"path": "x", "d_state": 1, "sigma": [1.0]}]},
    evaluation(100),
    shrink(100),
    train(200, rate=20.0, sizes=(40, 64)),
    {"event": "checkpoint", "step": 200},
    {"event": "resume", "step": 200},
    {"event": "interrupt", "step": 210},
    {"event": "end", "step": 1000},
]


def terminal(**options):
    return Console(
        file=io.StringIO(), force_terminal=True, width=100, height=40, _environ={}, **options
    )


def written(console):
    return console.file.getvalue()


def panel(display, width=100):
    console = Console(file=io.StringIO(), width=width, height=40, color_system=None, _environ={})
    console.print(display.render())
    return written(console)


def plain(events):
    console = Console(file=io.StringIO(), width=40, _environ={})
    with PlainDisplay(console) as display:
        for event in events:
            display.write(event)
    return written(console).splitlines()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (60, "1:00"), (185, "3:05"), (3723, "1:02:03")],
)
def test_durations_read_well(seconds, text):
    assert format_seconds(seconds) == text


def test_plain_is_one_line_for_each_event_but_spectra():
    lines = plain(RUN)
    assert len(lines) == len(RUN) - 1
    assert lines[0] == (
        "s5 on pathfinder, seed 0: 123 456 parameters, states 2 x 64, 1000 steps; "
        "without a model: majority 50.00 %, disc distance 53.00 %"
    )
    assert lines[1] == "step 0/1000  compiled the train step in 7.2 s"
    assert "loss 0.2500  accuracy 87.50 %  lr 1.00e-03  lr ssm 2.50e-04" in lines[2]
    assert lines[2].endswith("10 steps/s  1:30 left")
    assert "validation loss 0.5000  accuracy 75.00 %  (2.0 s)" in lines[3]
    assert "blocks[0].ssm 64 → 40; loss 0.5000 → 0.5100" in lines[4]
    assert "states 40+64" in lines[5]
    assert [line.split()[-1] for line in lines[-4:-1]] == ["saved", "resumed", "interrupted"]
    assert lines[-1] == "step 1000/1000  finished, 128 → 104 states"


def test_the_last_line_is_the_verdict():
    events = [start(), train(100), shrink(100), train(200, sizes=(40, 64))]
    events += [evaluation(1000, 0.9375, split="test"), {"event": "end", "step": 1000}]
    said = "finished, test accuracy 93.75 %, 128 → 104 states"
    assert plain(events)[-1].endswith(said)
    display = LiveDisplay(terminal())
    for event in events:
        display.write(event)
    assert said in panel(display)
    display = LiveDisplay(terminal())
    for event in (start(), evaluation(1000, 0.5, split="test"), {"event": "end", "step": 1000}):
        display.write(event)
    assert "finished, test accuracy 50.00 %, 128 states" in panel(display)


def test_plain_copes_with_nan_with_no_cut_and_with_many_layers():
    lines = plain(
        [
            train(1, loss=None),
            train(2, loss=float("nan")),
            shrink(3, (64, 64), (64, 64)),
            shrink(4, [64] * 12, [32] * 11 + [64]),
        ]
    )
    assert "loss not finite" in lines[0]
    assert "loss not finite" in lines[1]
    assert lines[2] == "step 3  shrink: nothing to cut"
    assert "704 → 352 states in 11 of 12 layers" in lines[3]


def test_the_display_fits_the_console():
    assert isinstance(make_display(terminal()), LiveDisplay)
    assert isinstance(make_display(Console(file=io.StringIO(), _environ={})), PlainDisplay)
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(make_display(dumb), PlainDisplay)
    for console in (terminal(), dumb):
        assert isinstance(make_display(console), Sink)


def test_time_left_follows_the_rate():
    left = TimeLeft()
    assert left.seconds(1000) is None
    left.write(train(100, rate=10.0))
    assert left.seconds(1000) == pytest.approx(90)
    assert left.seconds(None) is None
    left.write(train(200, rate=5.0))  # one slow interval counts in part
    assert left.steps_per_second is not None
    assert 5 < left.steps_per_second < 10
    for step in range(300, 900, 10):
        left.write(train(step, rate=5.0))
    assert left.seconds(1000) == pytest.approx(110 / 5, rel=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        shrink(100),
        {"event": "compile", "step": 100, "seconds": 3.0, "what": "train step"},
        {"event": "resume", "step": 100},
    ],
)
def test_a_new_program_begins_a_new_rate(change):
    left = TimeLeft()
    left.write(train(100, rate=10.0))
    left.write(change)
    assert left.seconds(1000) == pytest.approx(90)  # the old rate until there is a new one
    left.write(train(200, rate=40.0))
    assert left.seconds(1000) == pytest.approx(20)


def test_a_shrink_without_a_cut_keeps_the_rate():
    left = TimeLeft()
    left.write(train(100, rate=10.0))
    left.write(shrink(100, (64,), (64,)))
    left.write(train(200, rate=20.0))
    assert left.steps_per_second is not None
    assert 10 < left.steps_per_second < 20


def test_time_left_includes_the_evaluations_to_come():
    left = TimeLeft()
    for event in (start(), train(100, rate=10.0), evaluation(100, duration=20.0)):
        left.write(event)
    assert left.seconds(1000) == pytest.approx(90 + 9 * 20)
    left.write(evaluation(100, duration=500.0, split="test"))
    assert left.seconds(1000) == pytest.approx(90 + 9 * 20)


def test_the_panel_shows_the_newest_numbers():
    now = [0.0]
    display = LiveDisplay(terminal(), clock=lambda: now[0])
    assert "waiting for the first steps" in panel(display)
    for event in RUN[:-2]:
        now[0] += 3
        display.write(event)
    text = panel(display)
    assert "s5 on pathfinder, seed 0" in text
    assert "step 200 / 1 000" in text
    assert "20 %" in text
    assert "loss 0.2500" in text
    assert re.search(r"validation\s+loss 0.5000\s+accuracy 75.00 %\s+step 100", text)
    assert re.search(r"rate 1.0e-03\s+ssm 2.5e-04", text)
    cut, whole = re.findall(r"blocks\[\d\].*?([█░]+)", text)
    assert len(cut) == len(whole)
    assert cut.count("█") == round(40 / 64 * len(whole))
    assert re.search(r"blocks\[0\]\.ssm 64 → 40", text)
    assert re.search(r"blocks\[1\]\.ssm +64 █", text)
    assert "20 steps/s" in text
    # 800 steps at 20 a second, and 8 evaluations of 2 s; the last event has just come
    assert "56 s left" in text
    now[0] += 6
    assert "50 s left" in panel(display)


def test_the_panel_keeps_the_best_validation_accuracy_and_says_how_it_ended():
    display = LiveDisplay(terminal())
    for step, accuracy in ((10, 0.6), (20, 0.8), (30, None)):
        display.write(evaluation(step, accuracy))
    assert re.search(r"accuracy not finite\s+step 30\s+best 80.00 %", panel(display))
    display.write({"event": "interrupt", "step": 30})
    assert "interrupted" in panel(display)


def test_the_panel_says_when_no_steps_come():
    now = [0.0]
    display = LiveDisplay(terminal(), clock=lambda: now[0])
    display.write(start())
    for step in (100, 200):
        now[0] += 1
        display.write(train(step))
    now[0] += 2
    assert "no step" not in panel(display)
    now[0] += 10
    assert "no step for 12 s" in panel(display)


def test_the_panel_does_not_wrap_in_80_columns():
    """Whatever its numbers are: long runs, large models, bad losses."""
    now = [0.0]
    display = LiveDisplay(Console(file=io.StringIO(), width=80, _environ={}), clock=lambda: now[0])
    events = [
        start([4096] * 24, total=10_000_000),
        train(9_999_000, 1234.5, [4096] * 24, 123.4567),
    ]
    for event in (*events, evaluation(9_999_000, 0.12345), evaluation(9_999_500, None)):
        now[0] += 30_000
        display.write(event)
    now[0] += 1000
    height = len(panel(display, 160).splitlines())
    lines = panel(display, 80).splitlines()
    assert all(len(line) == 80 for line in lines)
    assert not any("…" in line for line in lines)
    assert len(lines) == height
    for event in (evaluation(10_000_000, 0.9, split="test"), {"event": "end", "step": 10_000_000}):
        display.write(event)
    assert len(panel(display, 80).splitlines()) == len(panel(display, 160).splitlines())


def test_a_terminal_of_another_width_is_cleared_once():
    """Else the lines of the last panel, broken in two, would stay above the next one."""
    console = terminal()
    with LiveDisplay(console) as display:
        display.write(start())
        display._live.refresh()
        display._live.refresh()
        assert "\x1b[2J" not in written(console)
        console.width = 70
        display._live.refresh()
        assert written(console).count("\x1b[2J") == 1
        after = written(console)
        display._live.refresh()
        assert written(console).count("\x1b[2J") == 1
        frame = written(console)[len(after) :]
        assert frame.count("\x1b[1A") == frame.count("\n")  # as many lines up as down
        assert all(
            len(re.sub(r"\x1b\[[?\d;]*[A-Za-z]|\r", "", line)) <= 70 for line in frame.split("\n")
        )


@pytest.mark.parametrize("layers", [1, 9, 12, 30])
@pytest.mark.parametrize("width", [60, 100, 160])
def test_the_panel_stays_compact_whatever_the_model(layers, width):
    display = LiveDisplay(Console(file=io.StringIO(), width=width, _environ={}))
    display.write(start([64] * layers))
    display.write(train(100, sizes=[40] * layers))
    lines = panel(display, width).splitlines()
    assert all(len(line) == width for line in lines)
    assert "…" not in "".join(line for line in lines if "blocks" in line)
    assert len(lines) <= 36
    if layers == 30:
        assert any("and 6 more layers, together 384 → 240" in line for line in lines)


def test_a_run_seen_from_its_middle_is_shown():
    display = LiveDisplay(terminal())
    display.write(shrink(90))
    display.write(train(100, sizes=(40, 64)))
    assert re.search(r"layer 1\s+64", panel(display))


def test_the_terminal_comes_back_after_an_exception():
    console = terminal()

    def fail():
        with make_display(console) as display:
            display.write(start())
            display.write(evaluation(10))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    text = written(console)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor was hidden, is shown
    assert "validation" in text
    assert "╰" in text  # the last panel stays to be read


def test_close_ends_a_live_display_once():
    console = terminal()
    with make_display(console) as display:
        display.write(start())
        display.close()
        after = written(console)
        display.close()
    assert written(console) == after


def test_writing_a_step_does_not_draw():
    console = terminal()
    display = LiveDisplay(console)
    for step in range(2000):
        display.write(train(step))
    assert written(console) == ""
