"""What a run notes of the machines it ran on."""

import json

import training.reporting.environment
from training.reporting.environment import describe_environment, note_environment


def test_a_run_that_goes_on_elsewhere_says_so(tmp_path, monkeypatch):
    file, first = tmp_path / "environment.json", describe_environment()
    note_environment(file)
    note_environment(file)
    assert json.loads(file.read_text()) == first
    other = {**first, "devices": ["another"]}
    monkeypatch.setattr(training.reporting.environment, "describe_environment", lambda: other)
    note_environment(file)
    note_environment(file)
    assert json.loads(file.read_text()) == {**first, "resumed": [other]}
    monkeypatch.undo()
    note_environment(file)
    assert json.loads(file.read_text())["resumed"] == [other, first]
