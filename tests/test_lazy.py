"""Packages import a part when it is asked for, and say where each name is made."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAZY = ("zoo", "compress", "training")


def said_to_type_checkers(package: str) -> dict[str, str]:
    """Names and their modules, as the block for type checkers imports them."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    (block,) = [n for n in tree.body if isinstance(n, ast.If)]
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        found |= {alias.name: f".{node.module or ''}" for alias in node.names}
    return found


@pytest.mark.parametrize("package", LAZY)
def test_type_checkers_and_python_are_told_the_same(package):
    module = importlib.import_module(package)
    places = {name: where for where, names in module._PLACES.items() for name in names.split()}
    assert places == said_to_type_checkers(package)
    assert sorted(places) == sorted(module.__all__)
    for name in places:
        assert getattr(module, name) is not None
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


IMPORTED = """
import sys
import zoo, compress, training
loaded = [n for n in sys.modules if n.startswith(("zoo.", "compress.", "training."))]
heavy = {"jax", "scipy.linalg", "optax", "beartype", "matplotlib"} & sys.modules.keys()
assert len(loaded) < 9 and not heavy, (loaded, heavy)
assert zoo.registry.layer_config("mamba").__name__ == "MambaConfig"
assert len(zoo.LAYERS) == 11
assert compress.family_of(zoo.LRU.init(2, 2, key=__import__("jax").random.key(0)))
"""


def test_an_import_loads_nothing_and_all_layers_are_known():
    subprocess.run([sys.executable, "-c", IMPORTED], check=True, cwd=ROOT)
