"""What the README shows works as shown, and it stays short."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MOST_WORDS = 1200


def test_it_is_short():
    assert len(README.split()) < MOST_WORDS


def test_the_first_screen_holds_a_picture_a_table_and_the_two_commands():
    first = README.split("\n## ")[0]
    assert "![" in first
    assert len(re.findall(r"^\|", first, flags=re.MULTILINE)) == 5  # a header, its rule, three rows
    assert len(re.findall(r"```sh\n", first)) == 2
    (block,) = re.findall(r"```python\n(.*?)```", first, flags=re.DOTALL)
    assert len([line for line in block.splitlines() if line]) <= 10


def test_python_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    assert 8 < namespace["model"].d_state < 64
    assert namespace["error"] <= namespace["reduced"].bound * (1 + 1e-6)
    assert namespace["small"].d_state == namespace["reduced"].rank == 8


def test_ci_runs_the_test_command_of_the_readme():
    commands = re.findall(r"```sh\n(.*?)\n```", README, flags=re.DOTALL)
    test_command = next(command for command in commands if "pytest" in command)
    assert test_command in (ROOT / ".ci" / "run").read_text()


def test_the_table_holds_the_figures_of_its_file():
    table = (ROOT / "results" / "smnist-short" / "table.md").read_text()
    rows = [line for line in README.splitlines() if line.startswith("|") and "±" in line]
    assert len(rows) == 3
    for row, variant in zip(
        rows, ("uncompressed", "tolerance 0.02", "from the start as"), strict=True
    ):
        (said,) = [line for line in table.splitlines() if line.startswith(f"| lru {variant}")]
        for figure in re.findall(r"[\d.]+ ± [\d.]+", row):
            assert figure in said
        states = re.findall(r"[\d.]+", row.split("|")[2])[-1]
        assert f"| {states}" in said
