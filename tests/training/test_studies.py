"""Studies: what they plan, that nothing is run twice, and that a stopped one goes on."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from rich.console import Console

from training.cli import UsageError
from training.studies import STUDIES, Study, Variant, plan_runs
from training.studies.app import StudyCommand, execute_study
from training.studies.catalogue import UNCOMPRESSED
from training.studies.rows import wall_seconds
from training.studies.runner import (
    QUICKLY_COMPILED,
    StudyRunner,
    finished_runs,
    hardware_slots,
)
from training.studies.study import final_state
from training.studies.summary import write_results

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
        Variant("born", UNCOMPRESSED, born_from="compressed"),
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
    for folder in (ROOT / "results").glob("*/runs"):
        name = folder.parent.name.removesuffix("-paper")
        study, records = STUDIES[name], finished_runs(folder)
        scale = "cpu" if name == folder.parent.name else "paper"
        runs = plan_runs(study, scale, range(study.seeds))
        planned = {run.name: run for run in runs}
        assert records.keys() <= planned.keys()
        for name, record in records.items():
            assert planned[name].settled(records, ROOT).is_run_of(record), (folder, name)


def test_the_small_model_is_born_at_the_final_state_of_the_compressed_one(finished):
    records = {
        path.stem: json.loads(path.read_text()) for path in (finished.out / "runs").glob("*.json")
    }
    states = final_state(records["compressed-seed0"]["summary"])
    assert 1 <= states < 8
    assert records["born-seed0"]["config"]["layer"]["d_state"] == states
    assert final_state(records["uncompressed-seed0"]["summary"]) == 8


def test_what_a_run_builds_on_is_part_of_what_it_cost(finished):
    records = finished_runs(finished.out / "runs")
    teacher = wall_seconds(records["uncompressed-seed0"])
    for name in ("taught-seed0", "cut-seed0"):
        assert final_state(records[name]["summary"]) == 4
        assert wall_seconds(records[name]) > teacher
    taught = finished.runs / "taught-seed0" / "config.yaml"
    assert f"teacher: {finished.runs / 'uncompressed-seed0'}" in taught.read_text()


def test_results_hold_a_table_for_people_and_one_for_programs_and_the_plots(finished):
    table = (finished.out / "table.md").read_text()
    assert "| uncompressed | 8.0 |" in table
    assert "scripts/reproduce.py tiny --scale cpu" in table
    lines = (finished.out / "table.csv").read_text().splitlines()
    assert len(lines) == 1 + len(TINY.variants)
    for plot in ("accuracy_state", "accuracy_time", "ranks", "spectra"):
        assert "<svg" in (finished.out / f"{plot}.svg").read_text()


def test_what_moved_from_one_machine_to_another_has_no_times(finished, tmp_path):
    records = finished_runs(finished.out / "runs")
    moved = dict(records["compressed-seed0"])
    moved["environment"] = moved["environment"] | {"resumed": [moved["environment"]]}
    write_results(TINY, "cpu", {**records, "compressed-seed0": moved}, tmp_path)
    table = (tmp_path / "table.md").read_text()
    (line,) = [line for line in table.splitlines() if line.startswith("| compressed ")]
    assert line.endswith("| – | – | – | 1 |")
    assert "1 run was finished on another machine" in table


def test_saved_systems_are_followed(finished):
    table = (finished.out / "stability.md").read_text()
    assert "| uncompressed-seed0 | 2 |" in table
    assert "| always |" in table
    assert "<svg" in (finished.out / "stability.svg").read_text()


def test_finished_runs_are_never_run_again(finished, console, monkeypatch):
    monkeypatch.setattr(
        "training.studies.runner.subprocess.Popen", lambda *a, **k: pytest.fail("a run was started")
    )
    execute_study(replace(finished, resume=True), console)


def test_an_unfinished_study_is_not_begun_again_unasked(finished, console):
    with pytest.raises(UsageError, match="--resume"):
        execute_study(finished, console)


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


def test_wrong_arguments_are_refused_before_anything_runs(tmp_path, console):
    folders = {"out": tmp_path / "out", "runs": tmp_path / "runs"}
    for wrong, said in (
        ({"seeds": 0}, "--seeds 0"),
        ({"jobs": 0}, "--jobs 0"),
        ({"only": ["nothing"]}, "nothing"),
    ):
        with pytest.raises(UsageError, match=said):
            execute_study(StudyCommand(TINY, **folders, **wrong), console)
    assert not (tmp_path / "out").exists()


def test_a_study_names_what_does_not_fit():
    with pytest.raises(ValueError, match="does not stand"):
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
    devices = [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in hardware_slots(3)]
    assert devices == ["3", "5", "3"]
    assert len(hardware_slots()) == 2
    flags = {slot.environment["XLA_FLAGS"] for slot in hardware_slots()}
    assert flags == {QUICKLY_COMPILED}
    monkeypatch.setenv("XLA_FLAGS", "--mine=1")
    assert hardware_slots(1)[0].environment["XLA_FLAGS"] == "--mine=1"


def test_slots_share_the_cores():
    slots = hardware_slots(2)
    assert len(slots) == 2
    assert all(slot.cores for slot in slots)
