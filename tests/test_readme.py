"""What the README shows works as shown."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_python_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 3
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    assert namespace["loss"] < 1
    assert namespace["model"].d_state < 64
    assert namespace["error"] <= namespace["reduced"].bound * (1 + 1e-6)
    assert namespace["small"].d_state == namespace["reduced"].rank


def test_ci_runs_the_test_command_of_the_readme():
    commands = re.findall(r"```sh\n(.*?)\n```", README, flags=re.DOTALL)
    test_command = next(command for command in commands if "pytest" in command)
    assert test_command in (ROOT / ".ci" / "run").read_text()


def test_files_that_the_readme_names_are_there():
    for path in re.findall(
        r"`((?:zoo|compress|data|training|scripts|results|docs)/[\w./]+)`", README
    ):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"\]\(((?!http|#)[^)]+)\)", README):
        assert (ROOT / path).exists(), path
