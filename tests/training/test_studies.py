"""Studies: what they plan, that nothing is run twice, and that a stopped one goes on."""

import io
import json
import re
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
import yaml
from rich.console import Console

from data import load_task
from training.commands.cut import cut_run
from training.commands.train import execute
from training.commands.trained import restored_run
from training.finished.load import check_run
from training.settings.command import parse_command
from training.settings.config import CompressionConfig
from training.settings.errors import UsageError
from training.settings.saved import read_config
from training.studies import STUDIES, Study, Variant, plan_runs
from training.studies.app import StudyCommand, execute_study
from training.studies.cost import estimate
from training.studies.options import UNCOMPRESSED
from training.studies.record import RECORDS, finished_runs, keep_record, make_record
from training.studies.rows import rows_of, wall_seconds
from training.studies.runner import QUICKLY_COMPILED, StudyRunner, hardware_slots
from training.studies.study import final_state
from training.studies.summary import markdown

ROOT = Path(__file__).parents[2]
STEPS = 60
TINY = Study(
    name="tiny",
    question="Does it run?",
    model="lru",
    task="digits",
    reference="uncompressed",
    cpu={
        "steps": STEPS,
        "layer.d-state": 8,
        "network.d-model": 4,
        "network.blocks": 1,
        "network.dropout": 0.0,
        "compression.method": "paper",
        "compression.multiple": 1,
        "compression.window": 0.5,
        "compression.shrinks": 1,
        "compression.calibration": 16,
        "loop.evaluate-every": STEPS,
        "loop.checkpoint-every": 30,
        "loop.steps-per-dispatch": 10,
    },
    scaled_down="Everything.",
    seeds=1,
    variants=(
        Variant("uncompressed", {**UNCOMPRESSED, "loop.keep-systems": True}),
        Variant("compressed", {"compression.tolerance": 0.3}),
        Variant("born", UNCOMPRESSED, sized_by="compressed"),
        Variant("taught", {**UNCOMPRESSED, "layer.d-state": 4}, taught_by="uncompressed"),
        Variant(
            "cut",
            {"compression.mode": "fixed", "compression.rank": 4},
            cut_from="uncompressed",
        ),
    ),
)


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=100)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folders of the tiny study, done once."""
    place = tmp_path_factory.mktemp("study")
    command = StudyCommand(TINY, out=place / "out", runs=place / "runs", jobs=1)
    outcome = execute_study(command, Console(file=io.StringIO()))
    assert not outcome.failed, outcome.failed
    return command


@pytest.mark.parametrize("scale", ["cpu", pytest.param("paper", marks=pytest.mark.slow)])
def test_every_study_plans_runs_whose_configurations_are_valid(scale):
    for study in STUDIES.values():
        runs = plan_runs(study, scale, [0])
        assert len(runs) == len(study.variants)
        assert len({run.name for run in runs}) == len(runs)
        assert all(re.fullmatch(r"[A-Za-z0-9.-]+", run.name) for run in runs)


def test_every_seed_is_planned():
    runs = plan_runs(TINY, "cpu", [0, 3])
    assert [run.config.seed for run in runs] == [0] * len(TINY.variants) + [3] * len(TINY.variants)
    assert runs[-1].name == "cut-seed3"


def test_records_in_the_repository_are_of_their_studies_as_they_stand():
    """Those of another name or configuration would be run again by --resume."""
    for file in (ROOT / "results").glob(f"*/{RECORDS}"):
        name = file.parent.name.removesuffix("-paper")
        study, records = STUDIES[name], finished_runs(file)
        scale = "cpu" if name == file.parent.name else "paper"
        seeds = 1 + max(record["seed"] for record in records.values())  # some variants have more
        runs = plan_runs(study, scale, range(max(study.seeds, seeds)))
        planned = {run.name: run for run in runs}
        assert records.keys() <= planned.keys()
        for name, record in records.items():
            assert planned[name].settled(records, ROOT).is_run_of(record), (file, name)


def test_the_small_model_is_born_at_the_final_state_of_the_compressed_one(finished):
    records = finished_runs(finished.out / RECORDS)
    states = final_state(records["compressed-seed0"]["summary"])
    assert 1 <= states < 8
    assert records["born-seed0"]["config"]["layer"]["d_state"] == states
    assert final_state(records["uncompressed-seed0"]["summary"]) == 8


def test_what_a_run_builds_on_is_part_of_what_it_cost(finished):
    records = finished_runs(finished.out / RECORDS)
    teacher = wall_seconds(records["uncompressed-seed0"])
    for name in ("taught-seed0", "cut-seed0"):
        assert final_state(records[name]["summary"]) == 4
        assert wall_seconds(records[name]) > teacher
    taught = finished.runs / "taught-seed0" / "config.yaml"
    assert f"teacher: {finished.runs / 'uncompressed-seed0'}" in taught.read_text()


def test_records_of_a_study_over_several_tasks_keep_ends_alone(finished):
    (planned,) = [run for run in plan_runs(TINY, "cpu", [0]) if run.name == "compressed-seed0"]
    of_one, of_many = (
        make_record(
            replace(planned, variant=replace(planned.variant, task=task)),
            finished.runs / planned.name,
            {},
            {},
        )
        for task in (None, "digits")
    )
    assert of_one["evaluations"]
    assert of_one["spectra"]
    assert not of_many["evaluations"]
    assert not of_many["spectra"]
    ends = of_one["summary"]["phases"][-1:]
    assert of_many["summary"] == of_one["summary"] | {"phases": ends}


def test_results_hold_a_table_for_people_and_one_for_programs_and_the_plots(finished):
    table = (finished.out / "table.md").read_text()
    assert "| uncompressed | 8.0 |" in table
    assert "ublished" not in table  # nothing is
    assert "scripts/reproduce.py tiny --scale cpu" in table
    lines = (finished.out / "table.csv").read_text().splitlines()
    assert len(lines) == 1 + len(TINY.variants)
    for plot in ("accuracy_state", "accuracy_time", "ranks", "spectra"):
        assert "<svg" in (finished.out / "figures" / f"{plot}.svg").read_text()


def table_of(study, records):
    """The table for people, and its rows by the names of the variants."""
    text = markdown(study, "cpu", rows_of(study, records), records)
    cells = [
        [c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line
    ]
    return text, {row[0]: row for row in cells}


def elsewhere(record, **changed):
    """The record of a run in an environment that differs in this."""
    return {**record, "environment": record["environment"] | changed}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"git_commit": "another"}, "what changed: git commit)"),
        ({"cores": 99, "devices": ["another"]}, "what changed: cores, devices)"),
    ],
)
def test_what_went_on_in_another_environment_has_no_times(finished, changed, said):
    records = finished_runs(finished.out / RECORDS)
    one = records["compressed-seed0"]
    moved = elsewhere(one, resumed=[one["environment"] | changed])
    text, rows = table_of(TINY, {**records, "compressed-seed0": moved})
    assert rows["compressed"][-4:] == ["–", "–", "–", "1"]
    assert f"1 run was finished in another environment ({said} and has no times." in text


def test_times_beside_other_work_are_not_shown(finished):
    records = finished_runs(finished.out / RECORDS)
    shared = {name: elsewhere(record, shared=True) for name, record in records.items()}
    text, rows = table_of(TINY, shared)
    assert len(rows["compressed"]) == 4
    assert not any(word in text for word in ("time", "speed", "Speed"))
    _, rows = table_of(TINY, records | {"born-seed0": shared["born-seed0"]})
    assert rows["born"][-4:] == ["–", "–", "–", "1"]


def test_speeds_on_other_numbers_of_cores_are_not_compared(finished):
    records = finished_runs(finished.out / RECORDS)
    more = elsewhere(records["compressed-seed0"], cores=99)
    _, rows = table_of(TINY, {**records, "compressed-seed0": more})
    assert rows["compressed"][-3:] == ["–", "–", "1"]
    assert "–" not in rows["born"]


def test_what_is_cut_after_training_has_no_speed_of_its_own(finished):
    _, rows = table_of(TINY, finished_runs(finished.out / RECORDS))
    assert float(rows["cut"][-3]) > 0
    assert rows["cut"][-2] == "–"


def test_run_time_in_all_counts_every_run_once(finished):
    records = finished_runs(finished.out / RECORDS)
    for record in records.values():
        record["summary"]["seconds"]["total"] = 100.0
        record["seconds_before"] *= 1000
    text, _ = table_of(TINY, records)
    assert "5 runs, 8:20 of run time in all." in text


def test_a_table_names_every_reference_in_use(finished):
    records = finished_runs(finished.out / RECORDS)
    variants = [replace(v, reference="taught") if v.name == "cut" else v for v in TINY.variants]
    text, _ = table_of(replace(TINY, variants=tuple(variants)), records)
    assert "Speed-ups are relative to `uncompressed` or `taught` of the same seed" in text


def test_what_is_cut_afterwards_is_cut_as_its_record_says(finished):
    record = finished_runs(finished.out / RECORDS)["cut-seed0"]
    did = yaml.safe_load((finished.runs / "cut-seed0" / "config.yaml").read_text())
    for name in ("mode", "rank", "method", "calibration"):
        assert did["compression"][name] == record["config"]["compression"][name], name
    assert did["compression"]["calibration"] != CompressionConfig.calibration


def test_a_cut_model_is_a_finished_run_like_others(finished, no_reports):
    folder = finished.runs / "cut-seed0"
    check_run(folder)
    config = read_config(folder)
    task = load_task(config.task, config.data)
    run = restored_run(folder, task)
    assert [layer["after"] for layer in json.loads(summary_of(folder))["layers"]] == [4]
    assert run.model.blocks[0].ssm.d_state == 4
    run.session.evaluate("test")
    assert run.session.results["test"] == json.loads(summary_of(folder))["test"]
    before = summary_of(folder)
    assert execute(parse_command(["--resume", str(folder)]), Console(file=io.StringIO())) == folder
    assert summary_of(folder) == before


def test_a_cut_names_the_run_it_is_of_and_leaves_it_alone(finished, tmp_path):
    trained, out = finished.runs / "uncompressed-seed0", tmp_path / "cut"
    files = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
    config = read_config(trained)
    compression = CompressionConfig(mode="fixed", rank=3, calibration=8)
    summary = cut_run(trained, load_task(config.task, config.data), out, compression, refit=True)
    assert summary["cut"] == {"run": str(trained), "refit": True}
    assert str(trained) in (out / "config.yaml").read_text()
    assert yaml.safe_load((out / "config.yaml").read_text())["compression"]["rank"] == 3
    assert parse_command(["--config", str(out / "trained.yaml")]).config == config
    assert files == {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}


def summary_of(folder):
    return (folder / "summary.json").read_text()


def test_saved_systems_are_followed(finished):
    table = (finished.out / "stability.md").read_text()
    assert "| uncompressed-seed0 | 2 |" in table
    assert "| always |" in table
    assert "<svg" in (finished.out / "figures" / "stability.svg").read_text()


def test_finished_runs_are_never_run_again(finished, console, monkeypatch):
    monkeypatch.setattr(
        "training.studies.runner.subprocess.Popen", lambda *a, **k: pytest.fail("a run was started")
    )
    execute_study(replace(finished, resume=True), console)


def test_an_unfinished_study_is_not_begun_again_unasked(finished, console):
    with pytest.raises(UsageError, match="--resume"):
        execute_study(finished, console)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_record_is_named(finished, console, tmp_path, content):
    (tmp_path / RECORDS).write_text((finished.out / RECORDS).read_text() + content)
    with pytest.raises(UsageError, match=r"records.jsonl, line 6 is .*remove it to run it again"):
        execute_study(replace(finished, out=tmp_path, resume=True), console)


def test_records_are_sorted_lines_and_a_new_one_takes_the_place_of_the_old(tmp_path):
    file = tmp_path / "new" / RECORDS
    assert finished_runs(file) == {}
    kept = [
        {"variant": variant, "seed": 0, "config": {}, "summary": {"x": x}}
        for x, variant in enumerate(("b", "a", "b"))
    ]
    for record in kept:
        keep_record(file, record)
    assert list(finished_runs(file).items()) == [("a-seed0", kept[1]), ("b-seed0", kept[2])]
    assert len(file.read_text().splitlines()) == 2


def test_results_stay_small():
    files = [path for path in (ROOT / "results").rglob("*") if path.is_file()]
    kept = [path for path in files if path.parent.name != "figures"]  # which git ignores
    assert len(kept) < 150
    assert sum(path.stat().st_size for path in kept) < 5e6


def test_results_of_another_configuration_are_refused(finished, console):
    other = replace(TINY, cpu={**TINY.cpu, "optimizer.learning-rate": 1e-2})
    with pytest.raises(UsageError, match="another configuration"):
        execute_study(replace(finished, study=other, resume=True), console)


def test_a_failure_stops_only_what_builds_on_it(tmp_path, console, monkeypatch):
    monkeypatch.setattr("training.studies.runner.SCRIPTS", tmp_path / "missing")
    command = StudyCommand(TINY, out=tmp_path / "out", runs=tmp_path / "runs", jobs=1)
    outcome = execute_study(command, console)
    assert set(outcome.failed) == {f"{variant.name}-seed0" for variant in TINY.variants}
    assert "missing" in outcome.failed["compressed-seed0"]
    assert "builds on" in outcome.failed["born-seed0"]


def test_nothing_goes_on_when_a_study_ends_early(tmp_path):
    planned = [run for run in plan_runs(TINY, "cpu", [0]) if run.variant.name == "uncompressed"]
    runner = StudyRunner(tmp_path / "runs", tmp_path / "records", hardware_slots(1))
    started = []

    def fail(what, run):
        started.append(run)
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk"):
        runner.run(planned, fail)
    assert [run.process.poll() is None for run in started] == [False]


def test_a_cut_afterwards_selects_where_its_variant_says_so(tmp_path):
    runner = StudyRunner(tmp_path / "runs", tmp_path / "records", hardware_slots(1))
    planned = plan_runs(STUDIES["linear-attention"], "cpu", [0])
    commands = {run.variant.name: runner._job(run).begin for run in planned}
    assert "--no-maps" in commands["to 16 afterwards, selected"]
    assert not {"--maps", "--no-maps"} & set(commands["to 16 afterwards"])


def test_wrong_arguments_are_refused_before_anything_runs(tmp_path, console):
    folders = {"out": tmp_path / "out", "runs": tmp_path / "runs"}
    for wrong, said in (
        ({"seeds": 0}, "--seeds must be 1 or more, got 0"),
        ({"jobs": 0}, "--jobs must be 1 or more, got 0"),
        ({"only": ["nothing"]}, "nothing"),
    ):
        with pytest.raises(UsageError, match=said):
            execute_study(StudyCommand(TINY, **folders, **wrong), console)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["out", "runs"])
def test_places_that_cannot_be_written_are_found_before_anything_runs(tmp_path, console, option):
    file = tmp_path / "file"
    file.touch()
    for place in (file, file / "below"):
        folders = {"out": tmp_path / "out", "runs": tmp_path / "runs", option: place}
        with pytest.raises(
            UsageError, match=f"--{option} {place} cannot be used: {file} is not a folder"
        ):
            execute_study(StudyCommand(TINY, **folders), console)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_all_runs_are_made_again_beside_those_that_are_there(tmp_path, console, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = replace(TINY, variants=TINY.variants[:1])
    Path("runs/studies/tiny/uncompressed-seed0").mkdir(parents=True)
    Path("runs/studies/tiny/uncompressed-seed0/config.yaml").touch()
    with pytest.raises(UsageError, match="with --resume, or repeat all runs with --again"):
        execute_study(StudyCommand(study), console)
    command = StudyCommand(study, again=True, jobs=1)
    outcome = execute_study(command, console)
    assert (outcome.folder, outcome.failed) == (Path("runs/again/tiny"), {})
    assert list(finished_runs(Path("runs/again/tiny") / RECORDS)) == ["uncompressed-seed0"]
    assert Path("runs/again/tiny/trained/uncompressed-seed0/summary.json").exists()
    assert not Path("results").exists()
    with pytest.raises(UsageError, match="--resume, or choose --out and --runs instead of --again"):
        execute_study(command, console)
    monkeypatch.setattr(
        "training.studies.runner.subprocess.Popen", lambda *a, **k: pytest.fail("a run was started")
    )
    execute_study(replace(command, resume=True), console)


def test_the_script_refuses_what_it_cannot_do(capsys):
    main = runpy.run_path(str(ROOT / "scripts" / "reproduce.py"))["main"]
    assert main(["smnist", "--only"]) == 2
    assert capsys.readouterr().err == "error: --only must be followed by its value\n"
    assert main(["smnst"]) == 2
    assert "got 'smnst': did you mean 'smnist'?" in capsys.readouterr().err
    assert main(["smnist", "--again", "--out", "there"]) == 2
    assert capsys.readouterr().err == "error: --again and --out there name two places: give one\n"


def test_the_script_that_cuts_reports_or_refuses(finished, capsys, tmp_path):
    main = runpy.run_path(str(ROOT / "scripts" / "cut.py"))["main"]
    (tmp_path / "file").touch()
    given = ["--run", str(finished.runs / "uncompressed-seed0"), "--rank", "4"]
    assert main([*given, "--out", str(tmp_path / "out"), "--calibration", "0"]) == 2
    assert "`compression.calibration` must be 1 or more, got 0" in capsys.readouterr().err
    assert main([*given, "--out", str(tmp_path / "file")]) == 2
    assert f"--out {tmp_path / 'file'}" in capsys.readouterr().err
    assert main([*given, "--out", str(tmp_path)]) == 2
    assert (
        f"--out must be a new or an empty folder, {tmp_path} holds files" in capsys.readouterr().err
    )
    assert main([*given, "--out", str(tmp_path / "out"), "--refit", "--method", "real"]) == 2
    assert "`refit` must be False with method real" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert main([*given, "--out", str(tmp_path / "out")]) == 0
    assert "report.html" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").exists()


def test_all_runs_again_are_in_a_place_of_their_own(console):
    for option in ("out", "runs"):
        with pytest.raises(UsageError, match=f"--again and --{option} there name two places"):
            execute_study(StudyCommand(TINY, again=True, **{option: Path("there")}), console)


def test_what_trains_nothing_costs_nothing_and_what_is_priced_is_timed_itself(monkeypatch):
    variants = (
        *TINY.variants,
        Variant("priced", {**UNCOMPRESSED, "regularization.hankel": 1e-3}),
    )
    timed = []

    def seconds(config, task):
        timed.append(config.regularization.hankel)
        return 13.0 if config.regularization.hankel else 1.0

    monkeypatch.setattr("training.studies.cost.seconds_per_step", seconds)
    planned = plan_runs(replace(TINY, variants=variants), "cpu", [0])
    total = (4 * 1.0 + 13.0) * STEPS  # the cut takes no steps
    assert estimate(planned, {}, load_task("digits"), 2) == (total / 2, total)
    assert timed == [0.0, 0.0, 1e-3]  # taught has another size


def test_a_study_names_what_does_not_fit():
    with pytest.raises(ValueError, match="must stand before"):
        replace(TINY, variants=(TINY.variants[0], TINY.variants[2]))
    with pytest.raises(ValueError, match="two variants"):
        replace(TINY, variants=(TINY.variants[0], TINY.variants[0]))
    with pytest.raises(ValueError, match="one name"):
        replace(TINY, variants=(Variant("uncompressed"), Variant("uncompressed?")))
    with pytest.raises(ValueError, match="reference"):
        replace(TINY, reference="nobody")


def test_slots_share_the_gpus(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(id=k) for k in (3, 5)])
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    devices = [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in hardware_slots(3)]
    assert devices == ["3", "5", "3"]
    assert len(hardware_slots()) == 2
    flags = {slot.environment["XLA_FLAGS"] for slot in hardware_slots()}
    assert flags == {QUICKLY_COMPILED}
    monkeypatch.setenv("XLA_FLAGS", "--mine=1")
    assert hardware_slots(1)[0].environment["XLA_FLAGS"] == "--mine=1"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("2,3", "232"), ("GPU-a, GPU-b", ["GPU-a", "GPU-b", "GPU-a"]), ("", "010")],
)
def test_slots_are_of_the_gpus_that_the_user_leaves_visible(monkeypatch, visible, expected):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(id=k) for k in (0, 1)])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    devices = [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in hardware_slots(3)]
    assert devices == list(expected)


def test_slots_share_the_cores():
    slots = hardware_slots(2)
    assert len(slots) == 2
    assert all(slot.cores for slot in slots)
