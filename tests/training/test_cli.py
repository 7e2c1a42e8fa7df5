from dataclasses import replace

import pytest
import yaml

from data import TASKS
from training.settings.command import parse_command
from training.settings.errors import UsageError
from training.settings.presets import SCALES, preset, preset_rows
from training.settings.saved import read_config
from training.settings.yaml import write_yaml
from zoo import LAYERS


def parse(line):
    return parse_command(line.split())


def test_defaults_are_the_preset():
    command = parse("")
    assert command.config == preset("s5", "pathfinder", "small")
    assert (command.out, command.resume) == (None, False)


def test_options_change_the_preset():
    config = parse(
        "--model lru --task digits --compression.tolerance 0.1 --layer.d-state 16 --seed 0 "
        "--compression.mode fixed --compression.rank 4 --network.bidirectional True"
    ).config
    expected = preset("lru", "digits", "small")
    assert config == replace(
        expected,
        layer=replace(expected.layer, d_state=16),
        network=replace(expected.network, bidirectional=True),
        compression=replace(expected.compression, tolerance=0.1, mode="fixed", rank=4),
    )


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("model", LAYERS)
def test_every_preset_is_valid_and_survives_yaml(model, scale, tmp_path):
    for task in TASKS:
        config = preset(model, task, scale)
        file = tmp_path / f"{task}.yaml"
        file.write_text(write_yaml(config))
        assert parse_command(["--config", str(file)]).config == config


def test_paper_preset_is_the_papers():
    config = preset("lru", "pathfinder", "paper")
    assert (config.steps, config.batch_size, config.layer.d_state) == (500_000, 64, 256)
    assert (config.network.d_model, config.network.blocks) == (192, 6)
    assert (config.optimizer.learning_rate, config.optimizer.ssm_factor) == (1e-3, 0.25)
    assert (config.compression.shrinks, config.compression.window) == (4, 0.1)
    assert config.compression.method == "paper"
    assert preset("mamba", "pathfinder", "paper").compression.method == "data"
    assert (config.data.resolution, config.data.contour_length) == (32, 14)


def test_the_command_line_overrides_the_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("model: lru\ntask: digits\nsteps: 7\ncompression: {tolerance: 0.3}\n")
    config = parse(f"--config {file} --steps 9").config
    assert (config.model, config.task, config.steps) == ("lru", "digits", 9)
    assert config.compression.tolerance == 0.3
    assert parse(f"--config {file} --model s5").config.model == "s5"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--model foo", f"must be one of {', '.join(sorted(LAYERS))}, got 'foo'"),
        ("--task foo", f"`task` must be one of {', '.join(TASKS)}, got 'foo'"),
        ("--task digit", "got 'digit': did you mean 'digits'?"),
        ("--scale big", "`scale` must be one of small, paper, got 'big'"),
        ("--foo 3", "unknown option --foo"),
        ("--compression.tolerence 0.1", "did you mean --compression.tolerance"),
        ("--compression.tolerance 1.0", "`compression.tolerance` must be in [0, 1), got 1.0"),
        ("--compression.tolerance -0.1", "`compression.tolerance` must be in [0, 1), got -0.1"),
        (
            "--compression.mode fixed",
            "`compression.rank` must be 1 or more with",
        ),
        ("--compression.mode fixed --compression.rank 999", "at most layer.d_state=64"),
        ("--steps 0", "`steps` must be 1 or more, got 0"),
        ("--steps abc", "--steps: invalid literal"),
        ("--seed -1", "`seed` must be in [0, 2**32), got -1"),
        ("--network.norm none", "invalid choice 'none'"),
        ("--layer.hippo-blocks 7", "`hippo_blocks` must divide d_state=64, got 7"),
        ("--resume", "--resume needs the run directory"),
        ("--resume /nowhere/at/all", "there is no run"),
        ("--config /nowhere/at/all", "No such file"),
        ("pathfinder", "pathfinder"),
    ],
)
def test_mistakes_are_told_in_one_line(line, message):
    with pytest.raises(UsageError) as error:
        parse(line)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("compression: {tolerence: 0.1}", "unknown key compression.tolerence, did you mean"),
        ("colour: red", "unknown key colour"),
        ("steps: many", "invalid literal"),
        ("- a list", "must hold"),
        ("\ud800", "is no text"),
        ("{", "is not YAML"),
    ],
)
def test_mistakes_in_a_file_name_the_file(content, message, tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(UsageError, match=r"wrong\.yaml") as error:
        parse(f"--config {file}")
    assert message in str(error.value)


def test_a_resumed_run_keeps_its_configuration(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    config = replace(preset("lru", "digits", "small"), steps=33)
    (run / "config.yaml").write_text(write_yaml(config))
    for line in (f"--resume {run}", f"--out {run} --resume", f"--resume {run} --steps 33"):
        command = parse(line)
        assert (command.config, command.out, command.resume) == (config, run, True)
    with pytest.raises(UsageError, match=r"optimizer\.learning_rate cannot change"):
        parse(f"--resume {run} --optimizer.learning-rate 1")
    with pytest.raises(UsageError, match="--model s5, but the run to resume has lru"):
        parse(f"--resume {run} --model s5")
    with pytest.raises(UsageError, match="name two runs"):
        parse(f"--resume {run} --out elsewhere")


def test_help_lists_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert stop.value.code == 0
    said = capsys.readouterr().out
    options = set(yaml.safe_load(write_yaml(preset("s5", "pathfinder", "small"))))
    for option in options - {"plugins"} | {"plugin"}:
        assert f"--{option.replace('_', '-')}" in said


def test_the_table_of_presets_has_every_model_task_and_scale():
    header, rows = preset_rows()
    assert {len(row) for row in rows} == {len(header)}
    shown = {(model, row[0], row[1]) for row in rows for model in row[2].split()}
    assert shown == {(m, t, s) for m in LAYERS for t in TASKS for s in SCALES}


def test_a_new_name_has_to_be_in_the_registry():
    config = preset("lru", "digits", "small")
    with pytest.raises((ValueError, TypeError)):
        replace(config, model="transformer")


def test_an_unknown_model_is_told_which_there_are():
    with pytest.raises(UsageError) as error:
        parse("--model foo")
    assert all(name in str(error.value) for name in LAYERS)


def test_help_lists_models_and_tasks(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for names in (LAYERS, TASKS, SCALES):
        assert ", ".join(names) in said


def test_a_configuration_is_read_from_a_run_directory(tmp_path):
    config = replace(preset("mamba2", "digits", "small"), steps=33)
    (tmp_path / "config.yaml").write_text(write_yaml(config))
    assert read_config(tmp_path) == config
    with pytest.raises(UsageError, match="there is no run"):
        read_config(tmp_path / "nowhere")
    (tmp_path / "config.yaml").write_text("stepps: 3\n")
    with pytest.raises(UsageError, match=r"config\.yaml: unknown key stepps, did you mean steps\?"):
        read_config(tmp_path)
