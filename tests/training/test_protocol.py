"""Scores as they are published: at the best validation step, and of the best seeds where said."""

from dataclasses import replace
from typing import Any

import pytest

from training.settings.presets import preset
from training.settings.yaml import plain_config
from training.studies import STUDIES, Study, Variant, plan_runs
from training.studies.options import UNCOMPRESSED
from training.studies.pairs import pairs_table
from training.studies.rows import rows_of
from training.studies.study import Planned
from training.studies.suite import PAIRS
from training.studies.summary import markdown

STUDY = Study(
    name="made",
    question="?",
    model="lru",
    task="digits",
    reference="whole",
    variants=(Variant("whole", UNCOMPRESSED),),
)


def record(seed, last, best=None) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "kind": "classification",
        "layers": [{"after": 8}],
        "test": {"accuracy": last},
        "seconds": {"total": 1.0},
        "phases": [{"steps_per_second": 1.0}],
    }
    if best is not None:
        summary["best"] = {"step": 1, "test": {"accuracy": best}}
    environment = {"processor": "p", "cores": 2, "devices": ["cpu"], "versions": {"jax": "0"}}
    return {
        "variant": "whole",
        "seed": seed,
        "seconds_before": 0.0,
        "environment": environment,
        "summary": summary,
    }


@pytest.mark.parametrize(
    ("scale", "seeds", "told", "score", "said"),
    [
        ("cpu", 10, True, 45.0, ""),
        ("paper", 9, True, 50.0, "best validation step since the last cut."),
        ("paper", 10, True, 90.0, "means of the best 3 where marked"),
        ("paper", 9, False, 40.0, "Scores are those at the last step."),
        ("paper", 10, False, 80.0, "means of the best 3 where marked"),
    ],
)
def test_which_figures_a_table_has(scale, seeds, told, score, said):
    records = {
        f"whole-seed{k}": record(k, k / 10, (k + 1) / 10 if told else None) for k in range(seeds)
    }
    (row,) = rows = rows_of(STUDY, records, scale)
    assert row.score.mean == pytest.approx(score)
    text = markdown(STUDY, scale, rows, records)
    assert said in text
    assert ("(best 3 of 10)" in text) == (scale == "paper" and seeds == 10)
    assert ("| 90.00 ± 10.00 |" in text) == (scale == "cpu" and told)


@pytest.mark.parametrize(("auto", "said"), [(0.897, "for every pair."), (0.893, "but for lru a.")])
def test_the_table_of_pairs_says_where_the_dial_is_kept(auto, said):
    ways = ("uncompressed", "auto")
    study = replace(
        STUDY,
        compares=ways,
        reference="lru a uncompressed",
        variants=tuple(Variant(f"lru a {way}", {}) for way in ways),
    )
    records = {}
    for way, score, states in (("uncompressed", 0.9, 8), ("auto", auto, 2)):
        for seed in range(2):
            made: dict[str, Any] = {**record(seed, score), "variant": f"lru a {way}"}
            made["summary"]["layers"] = [{"after": states}]
            records[f"{way}{seed}"] = made
    text = pairs_table(study, records)
    assert said in text
    assert "geometric mean: auto 0.25." in text
    assert "| lru a | 2 | 8 ± 0 | 90.00 ± 0.00 | 2.0 ± 0.0 |" in text
    assert f"| {100 * (auto - 0.9):.2f} ± 0.00 |" in text


def test_a_pair_that_lacks_a_way_has_no_numbers_for_it():
    ways = ("uncompressed", "paper", "auto")
    names = [f"lru {task} {way}" for task in "ab" for way in ways]
    variants = tuple(Variant(name, {}) for name in names)
    study = replace(STUDY, compares=ways, variants=variants, reference=names[0])
    records = {}
    for name in names:
        for seed in range(1 if name.endswith("paper") else 2):
            made: dict[str, Any] = {**record(seed, 0.9), "variant": name}
            made["summary"]["layers"] = [{"after": 8 if "uncompressed" in name else 4}]
            if name != "lru b paper":
                records[f"{name} {seed}"] = made
    text = pairs_table(study, records)
    assert "| lru a | 2 | 8 ± 0 | 90.00 ± 0.00 | 4.0 | 90.00 | 0.00 |" in text
    assert "| lru b | 2 | 8 ± 0 | 90.00 ± 0.00 |  |  |  | 4.0 ± 0.0 |" in text
    assert "paper 0.50 (of 1 pairs), auto 0.50." in text


def test_a_record_is_of_a_configuration_that_has_got_new_settings_since():
    planned = Planned(STUDY.variants[0], 0, preset("lru", "digits", "small"))
    config = plain_config(planned.config)
    del config["loop"]["keep_best"], config["network"]["dropout_mask"], config["data"]
    assert planned.is_run_of({"config": config})
    loop = replace(planned.config.loop, keep_best=False)
    assert not replace(planned, config=replace(planned.config, loop=loop)).is_run_of(
        {"config": config}
    )


def test_the_suite_has_its_tasks_files_where_they_are(tmp_path):
    (tmp_path / "smnist").mkdir()
    runs = plan_runs(STUDIES["auto"], "cpu", [0], tmp_path)
    assert {(run.config.model, run.config.task) for run in runs} == set(PAIRS)
    for run in runs:
        folder = tmp_path / "smnist" if run.config.task == "smnist" else None
        assert run.config.data_dir == folder
    modes = {run.variant.name.split()[-1]: run.config.compression.mode for run in runs}
    assert modes == {
        "uncompressed": "none",
        "paper": "tolerance",
        "preset": "tolerance",
        "auto": "auto",
    }
