"""What docs/extending.md says of how much must be touched is true of what is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
EXPORTS = {
    "zoo/__init__.py",
    "data/__init__.py",
    "compress/__init__.py",
    "compress/shrink/known.py",
    "compress/policies/__init__.py",
}
"""Lists of public names, which need not name everything."""


def names(file: Path) -> set[str]:
    """All identifiers and short strings in the code of a file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.ImportFrom(names=aliases):
                found |= {alias.name for alias in aliases}
            case ast.Constant(value=str(text)) if len(text) < 30:
                found.add(text)
    return found


def mentions(*wanted: str) -> set[str]:
    """The source files that know one of these names, lists of exports and studies aside."""
    files = (f for p in ("zoo", "compress", "data", "training") for f in (ROOT / p).rglob("*.py"))
    found = {str(f.relative_to(ROOT)) for f in files if names(f) & set(wanted)}
    return {f for f in found - EXPORTS if not f.startswith("training/studies/")}


@pytest.mark.parametrize(
    ("what", "example", "new"),
    [
        ("a linear layer", ("LRU", "LRUConfig"), {"zoo/layers/lru.py"}),
        (
            "a task of a known kind",
            ("DigitsConfig", "load_digits", "DigitsBuilder"),
            {"data/builtin/digits/__init__.py", "data/builtin/digits/builder.py"},
        ),
        ("a reduction method", ("SmallestValues",), {"compress/methods/__init__.py"}),
        ("a policy with a name", ("Tolerance",), set()),
    ],
)
def test_an_example_is_known_to_no_more_files_than_the_table_says(what, example, new):
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {what}")]
    _, _, said_new, edited, *_ = (cell.strip() for cell in row.split("|"))
    allowed = set(re.findall(r"`([\w/.]+\.py)`", edited))
    assert len(new) <= int(said_new)
    assert len(allowed) == int(edited[0])
    others = {
        "compress/policies/joint.py",
        "compress/shrink/__init__.py",
        "training/commands/shrink.py",
    }
    unknown = (
        mentions(*example) - new - allowed - (others if what.startswith("a policy") else set())
    )
    assert sorted(unknown) == []  # a default is named where it is the default


def test_a_family_is_known_by_its_own_files_alone():
    """No isinstance on a family of layers outside of the family's files."""
    families = {
        "AbstractBankSSM",
        "AbstractBothWaysSSM",
        "AbstractLinearSSM",
        "AbstractMambaSSM",
        "AbstractSelectiveSSM",
        "AbstractTimedSSM",
    }
    for package in ("zoo", "compress", "data", "training", "scripts"):
        for file in sorted((ROOT / package).rglob("*.py")):
            path = str(file.relative_to(ROOT))
            if path.startswith(("zoo/layers/", "compress/linear/", "compress/selective/")):
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    asked = {
                        n.id
                        for arg in node.args[1:]
                        for n in ast.walk(arg)
                        if isinstance(n, ast.Name)
                    }
                    assert node.func.id != "isinstance" or not asked & families, path
