"""Resuming where files are damaged or gone: from the best that is left, or with one line."""

import io
import shutil
from dataclasses import replace

import pytest
from rich.console import Console

from training.commands.train import execute
from training.reporting.events import read_events
from training.settings.command import Command
from training.settings.config import CompressionConfig, LoopConfig, NetworkConfig
from training.settings.errors import UsageError
from training.settings.presets import preset

pytestmark = pytest.mark.usefixtures("no_reports")


@pytest.fixture(scope="module")
def config():
    base = preset("lru", "digits", "small")
    return replace(
        base,
        steps=12,
        batch_size=8,
        layer=replace(base.layer, d_state=6),
        network=NetworkConfig(d_model=4, blocks=1),
        compression=CompressionConfig(mode="none"),
        loop=LoopConfig(log_every=4, evaluate_every=12, checkpoint_every=4, steps_per_dispatch=4),
    )


def run(config, folder, resume=False):
    console = Console(file=io.StringIO(), width=200)
    execute(Command(config, folder, resume), console)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.commands.train.write_report", lambda folder: folder / "report.html")
        run(config, folder)
    return folder


@pytest.fixture
def halted(finished, tmp_path):
    """The finished run, as it was before it said so: two checkpoints, 8 and 12."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "summary.json").unlink()
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["12", "8"]
    return folder


def truncated(step):
    for file in step.rglob("*"):
        if file.is_file() and file.stat().st_size > 10:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(step):
    shutil.rmtree(step)
    step.mkdir()


def without_metadata(step):
    shutil.rmtree(step / "metadata")


DAMAGES = pytest.mark.parametrize("damage", [truncated, emptied, without_metadata])


@DAMAGES
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(config, halted, damage):
    before = [e for e in read_events(halted / "metrics.jsonl") if e["event"] == "eval"]
    damage(halted / "checkpoints" / "12")
    said = run(config, halted, resume=True)
    assert "could not be read (steps 12)" in said
    events = read_events(halted / "metrics.jsonl")
    assert next(e for e in events if e["event"] == "resume")["damaged"] == [12]
    after = [e for e in events if e["event"] == "eval"]
    assert [(e["step"], e["loss"]) for e in after] == [(e["step"], e["loss"]) for e in before]


@DAMAGES
def test_where_all_are_damaged_one_line_says_so_and_the_log_stays(config, halted, damage):
    log = (halted / "metrics.jsonl").read_bytes()
    for step in ("8", "12"):
        damage(halted / "checkpoints" / step)
    with pytest.raises(UsageError, match=r"must hold a checkpoint that can be read, .*12, 8"):
        run(config, halted, resume=True)
    assert (halted / "metrics.jsonl").read_bytes() == log


def test_checkpoints_that_are_gone_are_named(config, halted):
    log = (halted / "metrics.jsonl").read_bytes()
    shutil.rmtree(halted / "checkpoints")
    with pytest.raises(UsageError, match=r"must hold a checkpoint, got none, .* of step 12: start"):
        run(config, halted, resume=True)
    assert (halted / "metrics.jsonl").read_bytes() == log


def test_a_note_of_taking_back_without_its_checkpoint_is_named(config, halted):
    log = (halted / "metrics.jsonl").read_bytes()
    (halted / "taking_back.json").write_text("{}")
    with pytest.raises(UsageError, match=r"taking_back.json says .* remove the file to continue"):
        run(config, halted, resume=True)
    (halted / "taking_back.json").write_text("{")
    with pytest.raises(UsageError, match=r"taking_back.json must be JSON"):
        run(config, halted, resume=True)
    assert (halted / "metrics.jsonl").read_bytes() == log
    (halted / "taking_back.json").unlink()
    run(config, halted, resume=True)
    assert (halted / "summary.json").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.jsonl", None, "metrics.jsonl must be the log of this run"),
        ("metrics.jsonl", b"no json\n", "metrics.jsonl must be the log of this run"),
        ("metrics.jsonl", b"", "metrics.jsonl must begin with a start event, got none"),
        ("environment.json", b"{", "environment.json must be JSON"),
        ("environment.json", b"[]", "environment.json must be JSON"),
    ],
)
def test_other_damaged_files_are_named_in_one_line(config, halted, name, content, message):
    if content is None:
        (halted / name).unlink()
    else:
        (halted / name).write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        run(config, halted, resume=True)
    assert "\n" not in str(caught.value)
