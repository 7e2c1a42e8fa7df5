"""The report says what the run directory holds, whole or not, and needs nothing else."""

import html
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from training.reporting.events import EventLog
from training.reporting.history import History
from training.reporting.plates import thin
from training.reporting.report import next_commands, write_report
from training.reporting.verdict import verdict_of

PATHS = ["blocks[0].ssm.forward", "blocks[0].ssm.backward", "blocks[1].ssm"]


def sigma(size, step, layer):
    index = np.arange(size)
    return (2.0 + layer) * np.exp(-index * (0.08 + 0.02 * layer + step / 40_000))


def run_events(total=2000, paths=PATHS, shrinks=(100, 200, 300), report_every=20):
    """A run as the loop describes it: its accuracy rises, and three shrinks make it faster."""
    draw = np.random.default_rng(0)
    sizes = [64] * len(paths)
    yield {
        "event": "start",
        "step": 0,
        "task": "pathfinder",
        "model": "s5",
        "seed": 0,
        "total_steps": total,
        "parameters": 123_456,
        "length": 256,
        "classes": 2,
        "baselines": {"majority": 0.5, "disc distance": 0.53},
        "layers": [
            {"path": path, "d_state": size} for path, size in zip(paths, sizes, strict=True)
        ],
    }
    yield {"event": "compile", "step": 0, "seconds": 7.5, "what": "train step"}
    for step in range(report_every, total + 1, report_every):
        rate = 2400 / (20 + sum(sizes) / len(sizes))
        yield {
            "event": "train",
            "step": step,
            "loss": 0.69 * math.exp(-step / 900) + 0.02 * draw.standard_normal() + 0.05,
            "accuracy": 0.95 - 0.45 * math.exp(-step / 600) + 0.02 * draw.standard_normal(),
            "learning_rate": 1e-3,
            "learning_rate_ssm": 2.5e-4,
            "steps_per_second": rate * (1 + 0.05 * draw.standard_normal()),
            "d_state": list(sizes),
            "width": list(sizes),
            "alone": step % 100 != 20,
            "seconds": step / 30,
        }
        if step in shrinks:
            rows = []
            for i, path in enumerate(paths):
                after = sizes[i] if i == 2 else int(0.7 * sizes[i])
                values = sigma(sizes[i], step, i)
                rows.append(
                    {
                        "path": path,
                        "before": sizes[i],
                        "after": after,
                        "sigma": values,
                        "bound": 2 * values[after:].sum(),
                        "sigma_next": None if after == sizes[i] else values[after],
                        "error": None if i == 1 else 1.3 * values[after:].sum(),
                    }
                )
                sizes[i] = after
            yield {
                "event": "shrink",
                "step": step,
                "layers": rows,
                "loss_before": 0.4321,
                "loss_after": 0.4399,
                "plan_seconds": 0.3,
                "compress_seconds": 0.2,
            }
            yield {"event": "compile", "step": step, "seconds": 6.25, "what": "train step"}
        if step % (total // 20) == 0:
            layers = [
                {"path": path, "d_state": size, "sigma": sigma(size, step, i)}
                for i, (path, size) in enumerate(zip(paths, sizes, strict=True))
            ]
            yield {"event": "spectrum", "step": step, "layers": layers}
            yield {
                "event": "eval",
                "step": step,
                "split": "validation",
                "loss": 0.7 * math.exp(-step / 900) + 0.06,
                "accuracy": 0.94 - 0.44 * math.exp(-step / 600),
                "seconds": step / 30,
                "duration": 1.5,
            }
            yield {"event": "checkpoint", "step": step}


def ending(total=2000):
    yield {
        "event": "eval",
        "step": total,
        "split": "test",
        "loss": 0.17,
        "accuracy": 0.9125,
        "seconds": 70,
        "duration": 3,
    }
    yield {"event": "end", "step": total}


SUMMARY = {
    "task": "pathfinder",
    "model": "s5",
    "seed": 0,
    "total_steps": 2000,
    "parameters_before": 123_456,
    "parameters_after": 98_765,
    "test": {"loss": 0.17, "accuracy": 0.9125},
    "validation": {"loss": 0.16, "accuracy": 0.9217},
    "baselines": {"majority": 0.5, "disc distance": 0.53},
    "layers": [
        {"path": PATHS[0], "before": 64, "after": 21},
        {"path": PATHS[1], "before": 64, "after": 21},
        {"path": PATHS[2], "before": 64, "after": 64},
    ],
    "seconds": {
        "total": 185.0,
        "train": 120.5,
        "compile": 26.25,
        "evaluate": 30.0,
        "shrink": 1.5,
        "data": 2.0,
        "checkpoint": 1.0,
    },
    "phases": [
        {"from_step": 0, "to_step": 100, "d_state": [64, 64, 64], "steps_per_second": 28.5},
        {"from_step": 100, "to_step": 200, "d_state": [44, 44, 64], "steps_per_second": 33.9},
        {"from_step": 200, "to_step": 300, "d_state": [30, 30, 64], "steps_per_second": 39.1},
        {"from_step": 300, "to_step": 2000, "d_state": [21, 21, 64], "steps_per_second": 43.25},
    ],
}
CONFIG = "model:\n  name: s5\n  note: a < b & c\n"
ENVIRONMENT = {
    "versions": {"python": "3.11.9", "jax": "0.10.2", "equinox": "0.13.8", "numpy": "2.4.0"},
    "hardware": {"platform": "cpu", "cores": 2, "processor": "Example 3000"},
    "git_commit": "0123abc",
}


def log(directory, events):
    sink = EventLog(directory / "metrics.jsonl", append=False)
    for event in events:
        sink.write(event)
    sink.close()


def make_run(directory, finished=True):
    events = [*run_events(), *ending()]
    log(directory, events if finished else [event for event in events if event["step"] <= 240])
    if finished:
        (directory / "summary.json").write_text(json.dumps(SUMMARY))
        (directory / "config.yaml").write_text(CONFIG)
        (directory / "environment.json").write_text(json.dumps(ENVIRONMENT))
    return directory


class Page(HTMLParser):
    """The text of a page, its tables, its identifiers, and every address that it names."""

    def __init__(self, source):
        super().__init__()
        self.text, self.ids, self.addresses, self.open, self.rows = [], [], [], [], []
        self.kinds = []
        self.uses = re.findall(r"url\(#([^)]*)\)", source)
        self.feed(source)
        self.close()
        self.all_text = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href"):
                self.addresses.append(value)
            if name == "class" and tag == "section":
                self.kinds.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def row(self, first, nth=0):
        return [row for row in self.rows if row and row[0] == first][nth]


def read(path):
    page = Page(path.read_text())
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_report(make_run(tmp_path_factory.mktemp("finished")))


def data_of(path):
    """What the figures of a page are drawn from."""
    (found,) = re.findall(r'id="figures">(.*?)</script>', path.read_text(), flags=re.DOTALL)
    return json.loads(found)


def test_the_page_is_whole_and_stands_alone(finished):
    source = finished.read_text()
    page = read(finished)
    assert finished.name == "report.html"
    outside = [address for address in page.addresses if not address.startswith(("#", "data:"))]
    assert outside == []
    assert "@import" not in source
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", source)
    assert source.count("<script") == 2  # the data, and what draws them
    assert len(page.ids) == len(set(page.ids))
    assert set(data_of(finished)) <= set(page.ids)
    assert len(source) < 200_000


def test_the_first_card_is_the_verdict(finished):
    page = read(finished)
    assert page.kinds[0] == "verdict good"
    assert (
        "The test accuracy is 91.25 %, 38.25 points above the best answer without a model "
        "(disc distance, 53.00 %)." in page.all_text
    )
    assert "192 → 106 states in 3 layers: 55 % stay" in page.all_text
    assert page.all_text.count("majority 50.00 %") == 1


@pytest.mark.parametrize(
    ("kind", "measures", "baselines", "said"),
    [
        ("classification", {"accuracy": 0.4}, {"a": 0.5}, ("bad", "10.00 points below")),
        ("classification", {"accuracy": 0.5}, {"a": 0.5}, ("bad", "the same as")),
        ("classification", {"accuracy": 0.4}, {}, ("open", "is 40.00 %.")),
        ("classification", {}, {"a": 0.5}, ("open", "No accuracy has been measured yet.")),
        ("regression", {"mse": 0.25}, {"a": 0.5, "b": 1.0}, ("good", "0.25 below")),
        ("regression", {"mse": 2.5}, {"a": 0.5, "b": 1.0}, ("bad", "2 above")),
    ],
)
def test_the_verdict_holds_the_best_baseline_against_the_model(kind, measures, baselines, said):
    summary = {"kind": kind, "test": measures, "baselines": baselines}
    verdict = verdict_of(History([{"event": "end", "step": 1}], summary))
    assert verdict.kind == said[0]
    assert said[1] in verdict.sentence


def test_the_speed_up_is_that_of_programs_alone():
    def report(step, rate, width, alone):
        rates = {"steps_per_second": rate, "d_state": [width], "width": [width], "alone": alone}
        return {"event": "train", "step": step, **rates}

    events = [
        report(10, 5.0, 64, False),  # beside the compiler
        report(20, 20.0, 64, True),
        report(30, 22.0, 64, True),
        report(40, 24.0, 64, True),
        report(50, 8.0, 16, False),
        report(60, 44.0, 16, True),
    ]
    first, last = History(events, {}).program_speeds()
    assert (first.states, first.from_step, first.to_step, first.rate) == (64, 0, 40, 22.0)
    assert (last.states, last.from_step, last.to_step, last.rate) == (16, 40, 60, 44.0)
    assert ("2.00 x", True) in [(v, "alone" in said) for v, said in _entries(events)]
    never = [event | {"alone": event["width"] == [16]} for event in events]
    assert History(never, {}).program_speeds()[0].rate is None
    assert "not measured" in [value for value, _ in _entries(never)]


def _entries(events):
    return verdict_of(History(events, {})).entries


def test_the_facts_tell_what_the_run_was(finished):
    page = read(finished)
    assert "s5 on pathfinder, seed 0" in page.all_text
    assert "3 times while it trained, from 192 states to 106 (55 %)" in page.all_text
    assert page.row("test accuracy") == ["test accuracy", "91.25 % (loss 0.17)"]
    assert page.row("parameters")[1] == "123\u202f456 → 98\u202f765"
    assert "jax 0.10.2" in page.row("versions")[1]
    assert "cores 2" in page.row("hardware")[1]
    assert ["64", "21"] in [row[1:3] for row in page.rows if row[0] == PATHS[0]]
    assert ["64", "64"] in [row[1:3] for row in page.rows if row[0] == PATHS[2]]
    assert "not finished" not in page.all_text


def test_time_and_speed_of_every_program_are_there(finished):
    page = read(finished)
    assert page.row("training steps")[1] == "2:00"
    assert page.row("compilation")[1] == "26 s"
    assert page.row("start, end and the report")[1] == "3.8 s"
    assert page.row("total")[1] == "3:05"
    assert page.row("192")[:2] == ["192", "0 to 100"]
    assert page.row("106")[:2] == ["106", "300 to 2000"]
    assert "everything else" not in page.all_text
    assert not [row for row in page.rows if row[:1] == ["other"]]


def test_the_shrink_table_holds_every_cut(finished):
    page = read(finished)
    values = sigma(64, 100, 0)
    row = page.row("100")
    assert row[:3] == ["100", PATHS[0], "64 → 44"]
    assert row[3] == "white noise"
    assert float(row[4]) == pytest.approx(2 * values[44:].sum(), rel=1e-2)
    assert float(row[5]) == pytest.approx(1.3 * values[44:].sum(), rel=1e-2)
    assert float(row[6]) == pytest.approx(values[44], rel=1e-2)
    assert row[7:] == ["0.432 → 0.44", "0.3 s", "0.2 s", "6.2 s"]
    cuts = [row[2] for row in page.rows if len(row) == 11 and "→" in row[2] and row[1] in PATHS]
    assert cuts == ["64 → 44", "64 → 44", "44 → 30", "44 → 30", "30 → 21", "30 → 21"]
    assert "not measured" in page.all_text
    assert page.all_text.count(f"{PATHS[2]}: not cut") == 3


@pytest.mark.parametrize(
    ("said", "bound"),
    [
        ({"gramians": "data and gradients, real", "bounded": False}, "no bound"),
        ({"gramians": "white noise, real", "bounded": True, "holds": True}, "0.5"),
        ({"gramians": "data", "holds": False}, "no bound"),  # an older log
    ],
)
def test_where_data_weighs_states_there_is_no_bound(tmp_path, said, bound):
    events = list(run_events(total=200, shrinks=(100,)))
    for event in events:
        if event["event"] == "shrink":
            event["layers"] = [row | {"bound": 0.5, **said} for row in event["layers"]]
    log(tmp_path, events)
    page = read(write_report(tmp_path))
    row = page.row("100")
    assert row[3:5] == [said["gramians"], bound]
    assert "beyond the bound" not in page.all_text


def test_curves_by_data_and_by_white_noise_are_told_apart(tmp_path):
    events = list(run_events(total=200, shrinks=(100,)))
    for event in events:
        if event["event"] in ("spectrum", "shrink"):
            by = ("data and gradients, real", "white noise, real", "white noise, real: by data ...")
            for row, said in zip(event["layers"], by, strict=True):
                row["gramians"] = said
    log(tmp_path, events)
    panels = data_of(write_report(tmp_path))["spectra"]["panels"]
    names = [{series["name"] for series in panel["series"]} - {"cut"} for panel in panels]
    assert names == [{"by data"}, {"by white noise"}, {"by white noise"}]
    dashes = [{s["dash"] for s in panel["series"] if s["name"] != "cut"} for panel in panels]
    assert dashes[0].isdisjoint(dashes[1])


def test_the_figures_name_their_curves_and_units(finished):
    data, page = data_of(finished), read(finished)
    assert list(data) == ["curves", "spectra", "sizes", "times"]
    names = {entry["name"] for plate in data.values() for entry in plate["legend"]}
    assert names >= {"train", "validation", "test", "without a model: disc distance", "cut"}
    panels = [panel for plate in data.values() for panel in plate["panels"]]
    labels = {panel[axis]["label"] for panel in panels for axis in "xy"}
    assert labels >= {"training step", "cross-entropy (nats)", "σ", "milliseconds a step", "states"}
    assert [panel["title"] for panel in data["spectra"]["panels"]] == PATHS
    assert "Dotted lines mark the 3 shrinks." in page.all_text
    assert data["curves"]["panels"][0]["marks"] == [100, 200, 300]


def test_every_curve_is_in_the_legend_with_its_look(finished):
    for plate in data_of(finished).values():
        looks = {entry["name"]: entry for entry in plate["legend"]}
        for panel in plate["panels"]:
            for series in panel["series"]:
                assert looks[series["name"]]["kind"] == series["kind"]
                assert looks[series["name"]]["dash"] == series["dash"]


def test_layers_of_equal_size_share_a_line(finished):
    (line, other) = data_of(finished)["sizes"]["panels"][0]["series"]
    assert line["name"] == f"{PATHS[0]}, {PATHS[1]}"
    assert line["y"] == [64, 44, 30, 21, 21]
    assert other["name"] == PATHS[2]


def test_the_page_says_what_can_be_done_next(finished, tmp_path):
    source = finished.read_text()
    assert "scripts/cut.py --run RUN --rank 32 --out RUN-32" in source
    assert "scripts/train.py --resume RUN" not in source
    root = Path(__file__).parents[2]
    for _, command in next_commands(History.from_directory(finished.parent)):
        script, *given = command.split()[1:]
        source = (root / script).read_text()
        assert all(f'"{word}"' in source for word in given if word.startswith("--")), command
    stopped = write_report(make_run(tmp_path, finished=False)).read_text()
    assert "scripts/train.py --resume RUN" in stopped


def test_configuration_and_environment_are_escaped_and_complete(finished):
    page = read(finished)
    assert html.escape(CONFIG) in finished.read_text()
    assert "0123abc" in page.all_text


def test_hostile_text_stays_text(tmp_path):
    bad = "<script>alert('x')</script>"
    events = [*run_events(total=100, paths=[bad, "b", "c"]), {"event": "end", "step": 100}]
    events[0] |= {"model": bad, "task": "a & b", "baselines": {bad: 0.5}}
    log(tmp_path, events)
    (tmp_path / "config.yaml").write_text(bad + "</pre>")
    (tmp_path / "environment.json").write_text(json.dumps({bad: [bad]}))
    source = write_report(tmp_path).read_text()
    assert bad not in source
    assert source.count("<script") == 2
    assert "&lt;script&gt;" in source
    assert data_of(tmp_path / "report.html")["curves"]["legend"][-1]["name"].endswith(bad)
    read(tmp_path / "report.html")


def test_an_interrupted_run_says_so_and_shows_the_rest(tmp_path):
    page = read(write_report(make_run(tmp_path, finished=False)))
    assert "it stands at step 240 of 2000" in page.all_text
    assert "The test accuracy has not been measured." in page.all_text
    assert page.row("test accuracy")[1] == "not reached"
    assert page.row("validation accuracy")[1].startswith("62.4")
    assert ["64", "30"] in [row[1:3] for row in page.rows if row[0] == PATHS[0]]
    assert page.row("compilation")[1] == "20 s"
    assert page.row("152")[1] == "100 to 200"
    assert "config.yaml: not in this run directory." in page.all_text
    assert page.row("steps")[1] == "240 of 2\u202f000"
    assert "Time of a step" in page.all_text


@pytest.mark.parametrize(
    "events",
    [
        [],
        list(run_events())[:1],
        list(run_events())[:3],
        [event for event in run_events() if event["event"] == "shrink"],
        [event for event in run_events() if event["event"] == "eval"],
        [{"event": "end", "step": 0}],
    ],
    ids=["nothing", "start", "one report", "shrinks", "evaluations", "end"],
)
def test_any_part_of_a_run_has_a_report(tmp_path, events):
    log(tmp_path, events)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"event": "tra')
    assert "not reached" in read(write_report(tmp_path)).all_text


def test_a_run_that_diverged_has_a_report(tmp_path):
    events = list(run_events(total=300))
    for event in events:
        for key in ("loss", "accuracy"):
            if key in event and event["step"] > 60:
                event[key] = math.nan
        if event["event"] == "spectrum":
            event["layers"][0]["sigma"] = np.full(64, math.nan)
            event["layers"][1]["sigma"] = np.zeros(64)
    log(tmp_path, [*events, *ending(300)])
    read(write_report(tmp_path))


def test_a_run_without_a_cut_says_that(tmp_path):
    log(tmp_path, [*run_events(total=400, shrinks=()), *ending(400)])
    text = read(write_report(tmp_path)).all_text
    assert "The model was trained without shrinking." in text
    assert "Nothing was cut in this run." in text


def test_a_model_that_was_cut_after_its_training_is_said_to_be(tmp_path):
    log(tmp_path, [*run_events(total=240, shrinks=(240,)), *ending(240)])
    text = read(write_report(tmp_path)).all_text
    assert "The model was cut after its training, from" in text


def test_a_long_run_of_many_layers_stays_small(tmp_path):
    paths = [f"blocks[{i}].ssm" for i in range(30)]
    events = list(run_events(40_000, paths, range(200, 4200, 200), report_every=50))
    log(tmp_path, events)
    path = write_report(tmp_path)
    assert path.stat().st_size < 1_500_000
    page = read(path)
    assert "Not drawn: 6 more layers" in page.all_text
    shrunk = [row for event in events if event["event"] == "shrink" for row in event["layers"]]
    cuts = [row for row in shrunk if row["before"] != row["after"]]
    assert len([row for row in page.rows if len(row) == 11 and row[1] in paths]) == len(cuts)


def test_the_same_run_gives_the_same_page(finished, tmp_path):
    assert write_report(make_run(tmp_path)).read_bytes() == finished.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "report.html",
        "summary.json",
    ]


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl is missing"):
        write_report(tmp_path)
    make_run(tmp_path)
    (tmp_path / "summary.json").write_text('{"test": ')
    with pytest.raises(ValueError, match=r"summary\.json is not JSON"):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(ValueError, match=r"summary\.json: a JSON object"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_thinning_keeps_the_mean_and_the_gaps():
    x, y = np.arange(10_000.0), np.sin(np.arange(10_000) / 500) + 3
    few_x, few_y = thin(x, y, 100)
    assert len(few_x) == len(few_y) == 100
    assert few_y.mean() == pytest.approx(y.mean())
    assert np.abs(few_y - (np.sin(few_x / 500) + 3)).max() < 0.01
    y[5000:] = math.nan
    assert np.isnan(thin(x, y, 100)[1]).sum() == 50
    same_x, same_y = thin(x[:100], y[:100], 100)
    assert same_x is not None
    assert np.array_equal(same_y, y[:100])


def test_the_compilation_of_a_shrink_is_what_its_cut_made_new():
    shrink = {"event": "shrink", "step": 10, "layers": [{"path": "a", "before": 9, "after": 5}]}
    idle = {"event": "shrink", "step": 10, "layers": [{"path": "a", "before": 9, "after": 9}]}
    rehearsal = {"event": "rehearsal", "step": 10, "error": None}
    compiled = {"event": "compile", "step": 10, "seconds": 2.0, "what": "train step"}
    resumed = {"event": "resume", "step": 10}
    for events, seconds in (
        ([shrink, compiled, compiled, resumed, compiled], 4.0),
        ([compiled, compiled, shrink, compiled], 4.0),
        ([shrink, resumed, compiled], None),
        ([shrink, idle, compiled], None),
        ([{**compiled, "background": True}, rehearsal, shrink, compiled], 2.0),
        ([{**compiled, "background": True}, rehearsal, shrink], 0),
    ):
        assert History(events, {}).compile_seconds(shrink) == seconds
    assert History([compiled, idle], {}).compile_seconds(idle) is None
