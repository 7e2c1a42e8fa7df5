"""The packages are where DESIGN says, and imports flow one way."""

import ast
import importlib
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
OURS = {"zoo", "data", "compress", "training", "scripts", "tests", "benchmarks"}


def imported_packages(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_follow_the_arrows(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        wrong = imported_packages(file) & OURS - ALLOWED[package] - {package}
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"


@pytest.mark.parametrize("package", ["zoo", "data", "compress", "training"])
def test_package_is_loaded_from_the_repository(package):
    file = importlib.import_module(package).__file__
    assert file is not None
    assert Path(file) == ROOT / package / "__init__.py"


@pytest.mark.parametrize("package", ["zoo", "data", "compress", "training"])
def test_modules_stay_small(package):
    for file in (ROOT / package).rglob("*.py"):
        assert len(file.read_text().splitlines()) <= 500, file.name


def test_no_script_bears_a_package_name():
    assert not {file.stem for file in (ROOT / "scripts").glob("*.py")} & set(ALLOWED)
