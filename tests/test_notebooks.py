"""Notebooks: they run from top to bottom, and what they show is stored in them."""

import ast
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
nbformat = pytest.importorskip("nbformat", reason="needs the extra `docs`")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind):
    found = nbformat.read(path, as_version=4).cells
    return [cell for cell in found if cell.cell_type == kind]


def test_there_are_five_and_the_site_shows_them():
    assert len(NOTEBOOKS) == 5
    shown = (ROOT / "mkdocs.yml").read_text()
    assert all(f"notebooks/{path.name}" in shown for path in NOTEBOOKS)


@each_notebook
def test_a_notebook_holds_its_outputs_and_nothing_of_a_machine(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    code = cells(path, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert len(outputs) >= 3
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    shown = "".join(str(output) for output in outputs)
    assert not re.search(r"/(?:home|root|tmp|work|Users)/", shown)
    assert path.stat().st_size < 200_000


@each_notebook
def test_links_of_a_notebook_exist(path):
    for cell in cells(path, "markdown"):
        for target in re.findall(r"\]\(((?!http)[^)#\s]+)\)", cell.source):
            assert (path.parent / target).exists(), target


@each_notebook
def test_the_code_of_a_notebook_is_short(path):
    for cell in cells(path, "code"):
        ast.parse(cell.source)
        assert len(cell.source.splitlines()) <= 30
        assert max(map(len, cell.source.splitlines())) <= 100


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs(path, tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="needs the extra `docs`")
    notebook = nbformat.read(path, as_version=4)
    inline = "module://matplotlib_inline.backend_inline"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": inline}
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=environment)
    stored = [len(cell.outputs) for cell in cells(path, "code")]
    assert [len(c.outputs) for c in notebook.cells if c.cell_type == "code"] == stored
