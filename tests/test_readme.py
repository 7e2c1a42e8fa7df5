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


PAIRS = {
    "sequential MNIST": "smnist",
    "ListOps": "listops",
    "IMDB": "imdb",
    "Pathfinder": "pathfinder",
    "sequential CIFAR": "scifar",
}
"""The tasks of the table that have another name in its file."""


def cells(line):
    return [cell.strip() for cell in line[1:-1].split("|")]


def test_the_table_holds_the_figures_of_its_file():
    file = (ROOT / "results" / "auto" / "pairs.md").read_text()
    known = [cells(line) for line in file.splitlines() if line.startswith("|")]
    columns = [known[0].index(name) for name in ("states", "auto: states", "auto: change")]
    of_pair = {row[0]: [row[k].split(" ± ")[0] for k in columns] for row in known[2:]}
    head, _, *rows = [cells(line) for line in README.splitlines() if line.startswith("|")][:5]
    told = {
        f"{row[0].lower()} {PAIRS.get(task, task)}": re.split("→|, ", cell)
        for row in rows
        for task, cell in zip(head[1:], row[1:], strict=True)
        if cell
    }
    assert told == of_pair
    (share,) = re.findall(r"auto ([\d.]+)\.$", file, flags=re.MULTILINE)
    assert f"and {share} of the states stay" in README
    assert "for every pair" in file
