"""What a person finds who asks the packages themselves: `dir`, `help`, `__version__`."""

import importlib
import inspect
import pydoc
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = pytest.mark.parametrize("name", ["zoo", "compress", "data", "training"])


@PACKAGES
def test_dir_shows_what_is_public_and_no_more(name):
    package = importlib.import_module(name)
    assert dir(package) == sorted({*package.__all__, "__version__"})
    for public in package.__all__:
        assert getattr(package, public) is not None


@PACKAGES
def test_the_version_is_that_of_the_distribution(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert importlib.import_module(name).__version__ == project["version"]


@PACKAGES
def test_every_public_name_says_what_it_is(name):
    """A docstring of its own, not the signature that a data class gets by itself."""
    package = importlib.import_module(name)
    silent = []
    for public in package.__all__:
        found = getattr(package, public)
        if not (inspect.isclass(found) or inspect.isroutine(found)):
            continue  # a constant or an alias: `docs/reference` says what it is
        said = (vars(found).get("__doc__") if inspect.isclass(found) else found.__doc__) or ""
        if not said.strip() or said.startswith(f"{public}("):
            silent.append(public)
    assert silent == []


@PACKAGES
def test_help_on_a_package_stands_by_itself(name):
    package = importlib.import_module(name)
    lines = (package.__doc__ or "").strip().splitlines()
    assert len(lines) >= 5
    assert lines[0].endswith(".")
    assert any(line.startswith("    ") for line in lines)  # an example
    page = pydoc.plain(pydoc.render_doc(package))
    assert lines[0].rstrip(".") in page


def test_help_on_compress_names_its_parts():
    import compress

    said = compress.__doc__ or ""
    methods = {"WhiteNoise", "Data", "Horizon", "H2Optimal"}
    policies = {"Tolerance", "Rank", "GlobalBudget", "LossBudget"}
    for public in methods | policies | {"plan", "verify", "compress", "register_family"}:
        assert public in said
        assert public in compress.__all__
