import os
import subprocess
import sys
import time
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from data import TASKS
from training.settings.command import parse_command
from training.settings.config import CompressionConfig, RunConfig
from training.settings.errors import UsageError, check_writable
from training.settings.help import LEFT, Help, field_docs, shown_rows
from training.settings.options import option_names
from training.settings.parser import Parser
from training.settings.presets import SCALES, preset, preset_rows
from training.settings.saved import read_config
from training.settings.yaml import write_yaml
from zoo import LAYERS

ROOT = Path(__file__).parents[2]


def parse(line):
    return parse_command(line.split())


def test_defaults_are_the_preset():
    command = parse("")
    assert command.config == preset("s5", "pathfinder", "small")
    assert (command.out, command.resume) == (None, False)


def test_options_change_the_preset():
    config = parse(
        "--model lru --task digits --compression.guard 0.1 --layer.d-state 16 --seed 0 "
        "--compression.mode fixed --compression.rank 4 --network.bidirectional True"
    ).config
    expected = preset("lru", "digits", "small")
    assert config == replace(
        expected,
        layer=replace(expected.layer, d_state=16),
        network=replace(expected.network, bidirectional=True),
        compression=replace(expected.compression, guard=0.1, mode="fixed", rank=4),
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
    compression = "{mode: tolerance, tolerance: 0.3}"
    file.write_text(f"model: lru\ntask: digits\nsteps: 7\ncompression: {compression}\n")
    config = parse(f"--config {file} --steps 9").config
    assert (config.model, config.task, config.steps) == ("lru", "digits", 9)
    assert config.compression.tolerance == 0.3
    assert parse(f"--config {file} --model s5").config.model == "s5"
    with pytest.raises(UsageError, match=r"`compression\.tolerance` must be left out .* got 0\.3"):
        parse(f"--config {file} --compression.mode auto")
    saved = tmp_path / "saved.yaml"  # has all options, and its mode
    saved.write_text(write_yaml(config))
    assert parse(f"--config {saved} --compression.mode auto").config.compression.mode == "auto"


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
        ("--steps abc", "`steps` must be a whole number, got 'abc'"),
        ("--steps " + "9" * 5000, "`steps` must be a whole number, got '999"),
        ("--steps", "--steps must be followed by its value"),
        ("--model", "--model must be followed by its value"),
        ("--processes x", "--processes must be a whole number, got 'x'"),
        ("--optimizer.learning-rate x", "`optimizer.learning_rate` must be a number, got 'x'"),
        ("--optimizer.learning-rate inf", "`optimizer.learning_rate` must be a finite number"),
        ("--network.dropout nan", "`network.dropout` must be a finite number, got nan"),
        ("--compression.rank x", "`compression.rank` must be a whole number, or None, got 'x'"),
        ("--compression.guard inf", "`compression.guard` must be a finite number, got inf"),
        (
            "--compression.mode auto --compression.tolerance=0.1",
            "`compression.tolerance` must be left out with compression.mode auto (tolerance uses "
            "it), got 0.1",
        ),
        (
            "--compression.mode fixed --compression.rank 4 --compression.loss 1%",
            "`compression.loss` must be left out with compression.mode fixed",
        ),
        (
            "--compression.mode pragmatic --compression.settled 0.1",
            "`compression.settled` must be None, or a number with compression.mode tolerance or",
        ),
        (
            "--compression.mode tolerance --compression.share 0.1",
            "`compression.share` must be left out with compression.mode tolerance",
        ),
        ("--compression.shrinks 2000000000", "`compression.shrinks` must be 1 to 100000"),
        ("--compression.mode fix", "got 'fix': did you mean 'fixed'?"),
        ("--network.blocks 5000", "`network.blocks` must be 1 to 1000, got 5000"),
        ("--batch-size 99999999999", "`batch_size` must be below 2147483648"),
        ("--scale papr", "got 'papr': did you mean 'paper'?"),
        ("--modle s5", "did you mean --model?"),
        ("--config /dev/zero", "must have at most 1048576 bytes"),
        ("--config /tmp", "/tmp cannot be read: Is a directory"),
        ("--seed -1", "`seed` must be in [0, 2**32), got -1"),
        (
            "--network.norm none",
            "`network.norm` must be one of batch, batch-ema, layer, rms, got",
        ),
        ("--layer.hippo-blocks 7", "`hippo_blocks` must divide d_state=64, got 7"),
        ("--resume", "--resume needs the run directory"),
        ("--resume /nowhere/at/all", "there is no run"),
        ("--config /nowhere/at/all", "No such file"),
        ("pathfinder", "'pathfinder' must belong to an option"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_mistakes_are_told_in_one_line(line, message):
    with pytest.raises(UsageError) as error:
        parse(line)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("compression: {tolerence: 0.1}", "unknown key compression.tolerence, did you mean"),
        ("colour: red", "unknown key colour"),
        ("steps: many", "`steps` must be a whole number, got 'many'"),
        ("steps: null", "`steps` must be a whole number, got 'None'"),
        ("steps: --help", "`steps` must be a whole number, got '--help'"),
        ("steps: {a: 1}", "unknown key steps.a, did you mean steps?"),
        ("steps: {}", "`steps` must be a single value, got {}"),
        ("steps: [5]", "`steps` must be a single value, got [5]"),
        ("loop: {mlflow: [a]}", "`loop.mlflow` must be a single value, got ['a']"),
        ("compression: {rank: 3}", "wrong.yaml: `compression.rank` must be 1 or more with"),
        ("- a list", "must hold"),
        ("", "must hold"),
        ("\ud800", "must be text in UTF-8"),
        ("{", "must be YAML"),
        ("steps: 1\n---\nsteps: 2", "must be YAML"),
        ("model: []", "`model` must be a name, got []"),
        ("task: {a: b}", "`task` must be a name, got {'a': 'b'}"),
        ("scale: 3", "`scale` must be a name, got 3"),
        ("compression: 3", "`compression` must be a group of options, got 3"),
        ("compression:", "`compression` must be a group of options, got None"),
        ("plugins: x", "`plugins` must be a list of files or modules, got 'x'"),
        ("steps: 1\nseed: 2\nsteps: 3", "must have each key once, got 'steps' again in line 3"),
        ("loop: {log_every: 1, log_every: 2}", "must have each key once, got 'log_every'"),
        ("batch-size: 3\nbatch_size: 4", "key batch_size must stand once"),
        ("compression.rank: 3\ncompression: {rank: 4}", "key compression.rank must stand once"),
        ("a: &a [*a]", "must have no anchor that holds itself, got one in line 1"),
        ("a: &a {b: *a}", "must have no anchor that holds itself"),
        ("[" * 3000, "must have at most 16 levels of nesting"),
        ("{a: " * 3000, "must have at most 16 levels of nesting"),
        ("a: &a [" + "1," * 99 + "]\nb: &b [" + "*a," * 99 + "]\nc: [" + "*b," * 99 + "]", "10000"),
        ("steps: " + "9" * 5000, "must hold plain values, got: Exceeds the limit"),
        ("steps: " + "9" * 1000, "`steps` must be below 2147483648, got 999"),
        ("steps: !!bool x", "must hold plain values, got one that its tag forbids"),
        ("steps: !!python/object:os.system x", "must hold plain values"),
        ("optimizer: {learning_rate: .inf}", "`optimizer.learning_rate` must be a finite number"),
        ("optimizer: {learning_rate: .nan}", "`optimizer.learning_rate` must be a finite number"),
        ("steps: 1:30", "`steps` must be a whole number"),
        ("x: " + "y" * 2**20, "must have at most 1048576 bytes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_mistakes_in_a_file_name_the_file(content, message, tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(UsageError, match=r"wrong\.yaml") as error:
        parse(f"--config {file}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


WHOLE = preset("lru", "digits", "small")
GROUPS = [f.name for f in fields(RunConfig) if is_dataclass(getattr(WHOLE, f.name))]
STRANGE = ["strange", (), {}, object(), float("nan"), float("inf"), -1, 10**12, 1.5, True, [[1]]]


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_settings_of_another_kind_are_told_in_one_sentence(group):
    config = getattr(WHOLE, group) if group else WHOLE
    for field in fields(config):
        refused = 0
        for value in STRANGE:
            try:
                replace(config, **{field.name: value})
            except ValueError as error:
                refused += field.name in str(error)
        assert refused >= (len(STRANGE) if field.name in GROUPS else 5), field.name


def test_a_value_is_never_taken_for_an_option(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("task: digits\ndata_dir: --help\n")
    assert str(parse(f"--config {file}").config.data_dir) == "--help"


def test_numbers_have_base_10(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("task: digits\nseed: 010\n")  # 8 in YAML 1.1
    assert parse(f"--config {file}").config.seed == 10


def test_an_alias_stands_for_what_it_names(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("steps: &n 200\nbatch_size: *n\n")
    config = parse(f"--config {file}").config
    assert (config.steps, config.batch_size) == (200, 200)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("a" * 300, "cannot be used: File name too long"),
        ("a/" * 2100, "cannot be used: File name too long"),
        ("/proc/nope", "--out /proc/nope cannot be used: /proc cannot be written to"),
        ("/dev/null", "/dev/null is not a folder"),
        ("/dev/null/x", "/dev/null is not a folder"),
        ("broken", "broken is not a folder"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_places_that_take_no_folder_are_named(place, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError) as error:
        check_writable("--out", Path(place))
    assert message in str(error.value)
    assert len(str(error.value)) < 300
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]
    check_writable("--out", tmp_path / "new" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


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


def help_of(line):
    with pytest.raises(Help) as asked:
        parse(line)
    return str(asked.value)


@pytest.mark.parametrize("model", LAYERS)
def test_help_is_one_screen(model):
    said = help_of(f"--model {model} --task pathfinder --scale paper --help")
    lines = said.splitlines()
    assert len(lines) < 40  # and the script's first line
    assert max(map(len, lines)) <= 80
    assert f"--model {model}" in said
    assert "--steps 500000" in said  # the preset's
    assert "--help-all" in said


def test_all_help_lists_every_option():
    said = help_of("--help-all")
    options = option_names(preset("s5", "pathfinder", "small"))
    for option in {*options, "out", "config", "resume", "plugin", "coordinator"} - {"plugins"}:
        assert f"--{option.replace('_', '-')}" in said
    assert max(map(len, said.splitlines())) <= 80


def test_what_a_class_says_of_its_fields_is_the_help():
    docs = field_docs(CompressionConfig)
    assert docs["tolerance"] == "Share of the sum of a layer's HSVs that a shrink may drop."
    assert docs.keys() == {field.name for field in fields(CompressionConfig)}
    assert field_docs(int) == {}


def test_help_breaks_lines_between_words_and_keeps_its_columns():
    said = shown_rows([("--a 1", "word " * 30), ("--" + "long" * 10, "short"), ("--b", "")])
    first, *rest = said.splitlines()
    assert first.startswith("  --a 1 ")
    assert all(len(line) <= 80 for line in (first, *rest))
    assert {len(line) - len(line.lstrip()) for line in rest if "word" in line} == {LEFT + 2}
    assert rest[-2:] == [" " * (LEFT + 2) + "short", "  --b"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--number x", "--number must be a whole number, got 'x'"),
        ("--number", "--number must be followed by its value"),
        ("--number=--", "--number must be followed by its value"),
        (
            "--choice fist",
            "--choice must be one of first, second, got 'fist': did you mean 'first'",
        ),
        ("--numbr 3", "unknown option --numbr: did you mean '--number'?"),
        ("stray --number 3", "'stray' must belong to an option"),
        ("", "--number must be given"),
    ],
)
def test_the_other_scripts_name_mistakes_in_one_sentence(line, message):
    parser = Parser("Do it.")
    parser.add_argument("--number", type=int, required=True, help="how many")
    parser.add_argument("--choice", choices=("first", "second"), default="first", help="{choices}")
    with pytest.raises(UsageError) as error:
        parser.read(line.split())
    assert message in str(error.value)
    assert parser.read(["--number", "3"]).choice == "first"
    for option in ("-h", "--help", "--help-all"):
        with pytest.raises(Help) as asked:
            parser.read([option])
        assert "--choice first" in str(asked.value)
        assert "first, second" in str(asked.value)


SCRIPTS = sorted(path for path in (ROOT / "scripts").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_help_of_every_script_fits_a_screen(script):
    process = subprocess.Popen(
        [sys.executable, str(script), "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # where standard output is a text alone
        text=True,
    )
    assert process.stdout is not None
    start = time.monotonic()
    lines = [process.stdout.readline().rstrip()]
    assert time.monotonic() - start < 1  # what is imported after it takes longer
    lines += process.communicate()[0].splitlines()
    assert process.returncode == 0
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80


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


def test_help_lists_models_and_tasks():
    said = " ".join(help_of("--help").split())
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--steps abc", "error: `steps` must be a whole number, got 'abc'"),
        ("--task digits --out /proc/nope", "error: --out /proc/nope cannot be used: /proc cannot"),
        ("--task digits --cache-dir /dev/null", "error: --cache-dir /dev/null cannot be used"),
        ("--task digits --layer.d-state 9999999999", "error: `layer.d_state` must be small enough"),
        ("--task digits", "error: JAX_PLATFORMS must name devices that this machine has"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_and_nothing_is_written(line, message, tmp_path):
    platform = "cpu" if len(line.split()) > 2 else "nonsense"
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *line.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "JAX_PLATFORMS": platform},
    )
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
