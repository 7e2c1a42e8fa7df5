"""The packages are laid out as DESIGN says: imports flow one way, files and functions are small.

Every import counts, wherever it stands: at the top of a file, in a function, for type checkers.
"""

import ast
import importlib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ALLOWED = {
    "zoo": set(),
    "data": set(),
    "compress": {"zoo"},
    "training": {"zoo", "data", "compress"},
    "scripts": {"zoo", "data", "compress", "training"},
}
"""The packages that each package may import."""

OURS = {"zoo", "data", "compress", "training", "scripts", "tests", "benchmarks"}
LIBRARY = ("zoo", "data", "compress", "training")


def in_order(*levels: str) -> dict[str, set[str]]:
    """Rooms of which each may import those on the levels before; a level is `room room ...`."""
    allowed, before = {}, set[str]()
    for level in levels:
        rooms = level.split()
        allowed |= {room: set(before) for room in rooms}
        before |= set(rooms)
    return allowed


ROOMS = {
    "zoo": in_order(
        "lazy explain",
        "typing",
        "derivative masks lti",
        "recurrence interop",
        "layers",
        "law registry network",
        "pretrained",
    ),
    "data": in_order(
        "typing checks",
        "task",
        "text pipeline store",
        "readers sheet",
        "builtin",
        "registry",
    ),
    "compress": in_order(
        "numerics",
        "cut model",
        "plans",
        "families policies",
        "linear",
        "selective attention optimizer",
        "analysis methods",
        "shrink",
    ),
    "training": in_order(
        "names",
        "settings",
        "model",
        "reporting",
        "shrinking",
        "run",
        "finished",
        "commands",
        "studies",
    ),
}
"""The rooms of each package: a folder, or a file of its own, and the rooms that it may import.

The package's `__init__` may import them all, and no room imports it.
"""

LARGEST_FILE = 350
LARGEST_FUNCTION = 60
LARGEST_LOOP = 270
MOST_ENTRIES = 14

# What is still to be mended. Nothing may be added; what has become right must leave.
WRONG_ARROWS: set[tuple[str, str]] = set()
LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()


@cache
def modules() -> dict[str, Path]:
    """The files of the packages by the names of their modules."""
    found = {}
    for package in LIBRARY:
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def imported(file: Path) -> frozenset[str]:
    """The full names of all that a file imports, with the names that it takes from a module."""
    parts = file.relative_to(ROOT).parts[:-1]
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) + 1 - node.level] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def needed(module: str) -> set[str]:
    """The modules of the packages that a module imports."""
    found = set()
    for name in imported(modules()[module]):
        while name and name not in modules():
            name = name.rpartition(".")[0]
        found |= {name} - {"", module}
    return found


def room(module: str) -> str:
    """The folder or the file at the top of its package that a module is in; "" for the package."""
    return [*module.split("."), ""][1]


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_follow_the_arrows_between_packages(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        found = {name.split(".")[0] for name in imported(file)}
        wrong = found & OURS - ALLOWED[package] - {package}
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("package", LIBRARY)
def test_imports_follow_the_arrows_between_rooms(package):
    wrong = set()
    for module in modules():
        here = room(module)
        if not module.startswith(f"{package}.") or not here:
            continue
        assert here in ROOMS[package], f"{module} is in a room that the layout does not know"
        for name in needed(module):
            there = room(name)
            if name.split(".")[0] == package and there not in {here, *ROOMS[package][here]}:
                wrong.add((module, name))
    expected = {arrow for arrow in WRONG_ARROWS if arrow[0].startswith(f"{package}.")}
    assert sorted(wrong - expected) == []
    assert sorted(expected - wrong) == [], "these are right now"


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter({module: needed(module) for module in modules()}).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("package", LIBRARY)
def test_package_is_loaded_from_the_repository(package):
    file = importlib.import_module(package).__file__
    assert file is not None
    assert Path(file) == ROOT / package / "__init__.py"


def test_files_stay_small():
    lines = {
        str(file.relative_to(ROOT)): len(file.read_text().splitlines())
        for file in modules().values()
    }
    long = {name: number for name, number in lines.items() if number > LARGEST_FILE}
    assert {name: number for name, number in long.items() if name not in LONG_FILES} == {}
    assert sorted(LONG_FILES - long.keys()) == [], "these are small now"
    assert lines["training/run/loop.py"] <= LARGEST_LOOP


def test_functions_stay_small():
    long = {}
    for module, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LARGEST_FUNCTION:
                    long[f"{module}.{node.name}"] = lines
    assert {name: number for name, number in long.items() if name not in LONG_FUNCTIONS} == {}
    assert sorted(LONG_FUNCTIONS - long.keys()) == [], "these are small now"


@pytest.mark.parametrize("package", LIBRARY)
def test_a_package_can_be_taken_in_at_a_glance(package):
    entries = [path for path in (ROOT / package).iterdir() if path.name != "__pycache__"]
    sources = [path for path in entries if path.is_dir() or path.suffix == ".py"]
    assert len(sources) <= MOST_ENTRIES, sorted(path.name for path in sources)


def test_no_script_bears_a_package_name():
    assert not {file.stem for file in (ROOT / "scripts").glob("*.py")} & set(ALLOWED)


def test_the_list_of_slow_tests_names_tests():
    """A test that was renamed would be quick again without a word."""
    for line in (ROOT / "tests" / "slow.txt").read_text().splitlines():
        file, name = line.split("[")[0].split("::")
        assert f"def {name}(" in (ROOT / file).read_text(), line
