"""What the documentation says is so: its code runs, its commands, links and files exist.

Blocks marked `python` run, those of a page in one namespace; `py` marks what needs files or a
network. Figures stand in the files of `results/` that their section names.
"""

import ast
import importlib.util
import itertools
import re
import shlex
from pathlib import Path

import pytest

import compress
import data
import data.registry
import training
import zoo
import zoo.registry
from compress.optimizer.meanings import MEANINGS
from training.settings.command import parse_command
from training.settings.options import option_names
from training.settings.presets import preset
from training.studies.catalogue import STUDIES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FOLDERS = "zoo|compress|data|training|scripts|results|docs|tests|benchmarks"
COMMAND = {"config", "out", "resume", "plugin", "coordinator", "processes", "process", "list"}
"""Options of `scripts/train.py` that are no settings of the run."""

each_page = pytest.mark.parametrize("name", NAMES)


def text(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(name: str, kind: str) -> list[str]:
    return re.findall(rf"^```(?:{kind})\n(.*?)^```", text(name), flags=re.DOTALL | re.MULTILINE)


def prose(name: str) -> str:
    return re.sub(r"^```.*?^```", "", text(name), flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def forgetful():
    """What a page registers is forgotten after it."""
    kept = [(view, dict(view)) for view in (zoo.registry._layers, data.registry._ENTRIES)]
    yield
    for view, before in kept:
        view.clear()
        view.update(before)


def run_python(name: str) -> None:
    """The blocks of a page, one after the other."""
    namespace = {"__name__": "page"}
    for block in blocks(name, "python"):
        exec(compile(block, name, "exec"), namespace)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Files that a page writes are in a folder of the test's."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", [name for name in NAMES if blocks(name, "python")])
def test_python_blocks_run(name, forgetful, elsewhere):
    run_python(name)


@pytest.mark.parametrize("name", [name for name in NAMES if blocks(name, "py")])
def test_other_blocks_are_python_and_import_what_there_is(name):
    for block in blocks(name, "py"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                assert node.module is not None
                root = node.module.split(".")[0]
                if root not in FOLDERS.split("|") and importlib.util.find_spec(root) is None:
                    continue  # of an extra, or named as something to install
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)


def commands(name: str) -> list[list[str]]:
    """The words of every command in the shell blocks of a page, without what sets variables."""
    found = []
    for block in blocks(name, "sh|bash"):
        for line in block.splitlines():
            for part in line.removesuffix("&").split("&&"):
                words = shlex.split(part)
                while words and re.match(r"[A-Z_]+=", words[0]):
                    words.pop(0)
                found.append(words)
    return [words for words in found if words]


def script(words: list[str]) -> tuple[Path, list[str]] | None:
    """The file of ours that a command runs, and what it is given."""
    for k, word in enumerate(words):
        if re.match(r"(scripts|benchmarks)/\w+\.py$", word):
            return ROOT / word, words[k + 1 :]
        if words[k - 1] == "-m" and word.startswith("benchmarks."):
            return ROOT / (word.replace(".", "/") + ".py"), words[k + 1 :]
    return None


def said_by(file: Path) -> set[str]:
    """The strings in the source of a script that look like options."""
    strings = (
        n.value for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Constant)
    )
    return {s for s in strings if isinstance(s, str) and s.startswith("--")}


def check_train(given: list[str]) -> None:
    if given == ["--list"]:
        return
    chosen = dict(itertools.pairwise(given))
    plugged = "--plugin" in given
    model = "s5" if plugged else chosen.get("--model", "s5")
    config = preset(model, chosen.get("--task", "pathfinder"), "small")
    known = {*option_names(config), *COMMAND}
    for option in given:
        if option.startswith("--"):
            assert option[2:].replace("-", "_") in known, option
    if not {"--plugin", "--config", "--resume"} & set(given):
        parse_command(given)


def check_task(given: list[str]) -> None:
    what, task, *rest = given
    assert what in ("inspect", "prepare")
    fields = data.task_entry(task).config_class.__dataclass_fields__
    known = {f"--{field.replace('_', '-')}" for field in fields} | {"--picture", "--data-dir"}
    assert {word for word in rest if word.startswith("--")} <= known


@each_page
def test_commands_name_scripts_and_options_that_exist(name, forgetful, elsewhere):
    if "--task own/" in text(name):
        run_python(name)  # makes the files that commands are about
    for words in commands(name):
        found = script(words)
        for extras in re.findall(r"\.\[([\w,]+)\]", " ".join(words)):
            assert all(f"\n{extra} = [" in text("pyproject.toml") for extra in extras.split(","))
        if found is None:
            continue
        file, given = found
        assert file.exists(), file
        if file.name == "train.py":
            check_train(given)
        elif file.name == "tasks.py" and file.parent.name == "scripts":
            check_task(given)
        else:
            if file.name == "reproduce.py" and given[0] != "--list":
                assert given[0] in STUDIES
            assert {word for word in given if word.startswith("--")} <= said_by(file), words


def slug(heading: str) -> str:
    """The anchor of a heading."""
    plain = re.sub(r"[^\w\s-]", "", heading.strip().lower())
    return re.sub(r"[\s-]+", "-", plain).strip("-")


@each_page
def test_links_and_files_exist(name):
    for target in re.findall(r"\]\(((?!http)[^)\s]+)\)", prose(name)):
        path, _, anchor = target.partition("#")
        page = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert page.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
            assert anchor in map(slug, headings), target
    for path in re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", text(name)):
        assert re.search("[A-Z]{4}", path) or (ROOT / path).exists(), path


def sections(name: str) -> list[str]:
    return re.split(r"^#+ ", prose(name), flags=re.MULTILINE)


NUMBER = r"(?<![\w.])\d[\d,]*\.?\d*(?:e[+-]\d+)?"


def figures(cells: str) -> set[str]:
    """The numbers with a decimal point or an exponent."""
    return {x for x in re.findall(NUMBER, cells) if "." in x.rstrip(".") or "e" in x}


@each_page
def test_figures_in_tables_are_those_of_the_files(name):
    for section in sections(name):
        tables = "\n".join(line for line in section.splitlines() if line.startswith("|"))
        files = re.findall(r"(results/[\w./-]+\.(?:md|json))", section)
        if not figures(tables) or not files:
            continue
        there = set(re.findall(NUMBER, "\n".join(text(file) for file in files)))
        assert sorted(figures(tables) - there) == [], section.splitlines()[0]


def test_no_table_of_results_is_without_its_file():
    for name in ("docs/results.md", "docs/speed.md"):
        for section in sections(name):
            if "\n|" in section:
                assert re.search(r"results/[\w./-]+\.md", section), section.splitlines()[0]


def hooks():
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_settings_has_every_field():
    page = text("docs/reference/settings.md")
    rendered = hooks().FIELDS.sub(lambda found: hooks().fields_table(*found.groups()), page)
    said = set(re.findall(r"^\| `--([\w.-]+)`", rendered, flags=re.MULTILINE))
    layers = [k for k, v in zoo.LAYERS.items() if v.__module__.startswith("zoo.")]
    tasks = [k for k, v in data.TASKS.items() if v.config_class.__module__.startswith("data.")]
    pairs = [(layer, "digits") for layer in layers] + [("s5", task) for task in tasks]
    for model, task in pairs:
        wanted = {x.replace("_", "-") for x in option_names(preset(model, task, "small"))}
        assert sorted(wanted - said - {"plugins"}) == [], (model, task)


@pytest.mark.parametrize("package", [compress, zoo, data, training])
def test_the_reference_has_every_public_name(package):
    name = package.__name__
    said = set(re.findall(rf"^::: {name}\.(\w+)$", text(f"docs/reference/{name}.md"), re.MULTILINE))
    configs = {x for x in package.__all__ if x.endswith("Config")} - {"LayerConfig"}  # settings.md
    assert sorted(set(package.__all__) - configs - said) == []


def test_the_page_of_loops_has_every_meaning_of_a_state():
    assert [name for name in MEANINGS if f'| `"{name}"` |' not in text("docs/how-to/loop.md")] == []


@pytest.mark.parametrize("package", ["zoo", "data", "compress", "training"])
def test_the_page_of_the_design_names_every_room(package):
    rooms = [p for p in (ROOT / package).iterdir() if p.is_dir() or p.suffix == ".py"]
    names = {room.stem for room in rooms} - {"__init__", "__pycache__"}
    assert sorted(room for room in names if f"`{room}`" not in text("docs/design.md")) == []


STUBS = re.compile(
    r"\bborn (?:so|small|at|as)\b|let alone|\blets? pass\b|weighed by what they do"
    r"|in the place of|\bis as here\b|times say nothing|ran beside"
)
"""Phrases of no plain English that have stood in this project."""


def test_nobody_has_to_guess_what_a_sentence_means():
    files = [ROOT / name for name in NAMES if not name.endswith(("README.md", "changelog.md"))]
    for package in ("zoo", "data", "compress", "training", "scripts", "benchmarks", "docs"):
        files += (ROOT / package).rglob("*.py")
    files += (DOCS / "notebooks").glob("*.ipynb")
    found = {str(file.relative_to(ROOT)): STUBS.findall(file.read_text()) for file in files}
    assert {name: phrases for name, phrases in found.items() if phrases} == {}
