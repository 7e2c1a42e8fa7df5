"""Several runs on one page, and a run in the trackers of others."""

import json

import pytest
import yaml

from training.reporting.comparison import compare_runs, differences
from training.reporting.events import EventLog, Sink
from training.reporting.mlflow import RUN_ID, MLflowSink
from training.reporting.trackers import Scalars, TensorBoardMirror
from training.settings.errors import UsageError

PATH = "blocks[0].ssm"


def events(accuracy, states, kind="classification"):
    yield {
        "event": "start",
        "step": 0,
        "task": "digits",
        "kind": kind,
        "model": "lru",
        "seed": 0,
        "total_steps": 20,
        "parameters": 100,
        "length": 8,
        "layers": [{"path": PATH, "d_state": 16}],
    }
    key = "accuracy" if kind == "classification" else "mse"
    for step in (10, 20):
        common = {"step": step, "loss": 1 / step, key: accuracy, "seconds": step / 10}
        yield {
            "event": "train",
            **common,
            "learning_rate": 1e-3,
            "learning_rate_ssm": 1e-3,
            "steps_per_second": 5.0,
            "d_state": [states],
        }
        yield {"event": "eval", "split": "validation", **common, "duration": 0.1}
    layers = [{"path": PATH, "d_state": states, "sigma": [3.0, 0.5, 0.0]}]
    yield {"event": "spectrum", "step": 20, "layers": layers}
    yield {"event": "eval", "split": "test", **common, "duration": 0.1}
    yield {"event": "end", "step": 20}


def write(folder, config, **how):
    folder.mkdir()
    log = EventLog(folder / "metrics.jsonl", append=False)
    for event in events(**how):
        log.write(event)
    log.close()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture
def runs(tmp_path):
    common = {"model": "lru", "network": {"d_model": 8}, "cache_dir": "here"}
    write(tmp_path / "one", common | {"steps": 20}, accuracy=0.5, states=16)
    other = common | {"steps": 20, "network": {"d_model": 4}, "cache_dir": "there"}
    write(tmp_path / "other", other, accuracy=0.75, states=8)
    return [tmp_path / "one", tmp_path / "other"]


def test_a_log_that_somebody_has_changed_is_shown_or_one_sentence(runs, tmp_path):
    log, said = runs[0] / "metrics.jsonl", []
    lines = log.read_text().splitlines()
    places = {json.loads(line)["event"]: k for k, line in enumerate(lines)}
    for k in places.values():
        event = json.loads(lines[k])
        for key in event.keys() - {"event", "step"}:
            changed = [*lines[:k], json.dumps({**event, key: None}), *lines[k + 1 :]]
            log.write_text("\n".join(changed) + "\n")
            try:
                compare_runs(runs, tmp_path / "page.html")
            except UsageError as error:
                said.append(str(error))
    assert len(said) >= 3
    assert all("must be" in each and "\n" not in each for each in said)


def test_a_page_shows_the_runs_side_by_side(runs, tmp_path):
    page = compare_runs(runs, tmp_path / "page.html").read_text()
    for shown in ("50.00 %", "75.00 %", "network.d_model", "States and speed", "one", "other"):
        assert shown in page
    for not_shown in ("cache_dir", "http://", "src="):
        assert not_shown not in page.replace("http://www.w3.org", "")
    for figure in ("measures", "states"):
        assert f'<div id="{figure}">' in page
        assert f'"{figure}":{{"panels":' in page


def test_options_that_differ_are_those_of_all_runs():
    configs = [{"a": 1, "b": 2, "data_dir": "x"}, {"a": 1, "b": 3, "c": 4, "data_dir": "y"}]
    assert differences(configs) == [("b", [2, 3]), ("c", ["", 4])]
    assert differences([{"a": 1}, {"a": 1}]) == []


def test_runs_that_do_not_compare_are_refused(runs, tmp_path):
    with pytest.raises(UsageError, match="two runs or more must be given, got 1"):
        compare_runs(runs[:1], tmp_path / "page.html")
    write(tmp_path / "values", {}, accuracy=0.1, states=8, kind="regression")
    with pytest.raises(UsageError, match="judged by one measure, got MSE, accuracy"):
        compare_runs([runs[0], tmp_path / "values"], tmp_path / "page.html")
    with pytest.raises(UsageError, match=r"metrics\.jsonl is missing"):
        compare_runs([runs[0], tmp_path], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_tensorboard_has_the_options_and_the_spectra(tmp_path):
    mirror = TensorBoardMirror(tmp_path, options={"network.d_model": 8, "loop.mlflow": None})
    for event in events(0.5, 16):
        mirror.write(event)
    mirror.close()
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for tag in (b"network.d_model", b"log10_hsv/blocks", b"test/accuracy"):
        assert tag in content


def test_scalars_are_called_alike_everywhere():
    scalars = Scalars()
    found = [scalars.of(event) for event in events(0.5, 16)]
    assert found[0] == {f"state/{PATH}": 16.0}
    assert found[1]["train/accuracy"] == 0.5
    assert found[2] == {"validation/loss": 0.1, "validation/accuracy": 0.5}


def test_mlflow_has_the_run_in_a_folder_and_goes_on_with_it(tmp_path, monkeypatch):
    pytest.importorskip("mlflow.tracking", exc_type=ImportError)
    from mlflow.tracking import MlflowClient

    uri = (tmp_path / "store").as_uri()
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    run = tmp_path / "run"
    run.mkdir()
    for part in (list(events(0.5, 16))[:3], list(events(0.5, 16))):
        sink = MLflowSink(uri, run, {"network.d_model": 8})
        assert isinstance(sink, Sink)
        for event in part:
            sink.write(event)
        sink.close()
    client = MlflowClient(tracking_uri=uri)
    found = client.get_run((run / RUN_ID).read_text().strip())
    assert found.info.status == "FINISHED"
    assert found.data.params == {"network.d_model": "8"}
    assert found.data.metrics["test/accuracy"] == 0.5
    assert len(client.search_runs([found.info.experiment_id])) == 1
    with pytest.raises(UsageError, match=r"`loop\.mlflow` must be where MLflow keeps runs"):
        MLflowSink("nowhere:mlruns", tmp_path, {})


def test_mlflow_that_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    monkeypatch.setitem(__import__("sys").modules, "mlflow.entities", None)
    with pytest.raises(UsageError, match=r"`loop.mlflow` needs the package mlflow"):
        MLflowSink("file:mlruns", tmp_path, {})
    assert json.dumps(list(map(str, tmp_path.iterdir()))) == "[]"
