"""Our packages have common names: what of the user's bears one of them does no harm, or is named.

Each case is a script in a folder of its own, run by a process of its own.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(folder: Path, code: str, python: str = sys.executable, path: str = str(ROOT)):
    """The process that has run `code` as a script in `folder`."""
    (folder / "script.py").write_text(code)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path:
        env["PYTHONPATH"] = path
    return subprocess.run(
        [python, "script.py"], cwd=folder, env=env, capture_output=True, text=True, timeout=300
    )


def own(folder: Path, name: str, package: bool) -> None:
    """A folder of the user's, with a file in it, as a package or not."""
    (folder / name).mkdir()
    (folder / name / "table.csv").write_text("a,b\n1,2\n")
    if package:
        (folder / name / "__init__.py").write_text("OWN = 1\n")


def test_folders_without_init_do_no_harm(tmp_path):
    own(tmp_path, "data", package=False)
    own(tmp_path, "training", package=False)
    done = run(
        tmp_path, "import compress, zoo, data, training\nprint(data.Task, training.__file__)"
    )
    assert done.returncode == 0, done.stderr
    assert str(ROOT / "training" / "__init__.py") in done.stdout


@pytest.mark.parametrize("path", [str(ROOT), f".{os.pathsep}{ROOT}"])
def test_a_package_in_our_way_is_named(path, tmp_path):
    own(tmp_path, "data", package=True)
    done = run(tmp_path, "import training", path=path)
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("ImportError: `data` must be the package in")
    assert str(tmp_path / "data" / "__init__.py") in said


def test_a_package_that_is_imported_already_is_named(tmp_path):
    own(tmp_path, "zoo", package=True)
    done = run(tmp_path, "import zoo\nassert zoo.OWN\nimport compress")
    assert "ImportError: `zoo` must be the package in" in done.stderr


def test_a_package_of_the_users_keeps_its_name(tmp_path):
    own(tmp_path, "training", package=True)
    done = run(tmp_path, "import training, data\nprint(training.OWN, data.Task)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 ")


@pytest.mark.slow
@pytest.mark.parametrize("how", [["--editable"], []])
def test_an_installed_package_is_found_beside_folders_of_its_names(how, tmp_path):
    venv.create(tmp_path / "env", system_site_packages=True, with_pip=True)
    python = str(tmp_path / "env" / "bin" / "python")
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    pip = [python, "-m", "pip", "install", "-q", "--no-deps"]
    subprocess.run([*pip, *how, str(source)], check=True)
    folder = tmp_path / "work"
    folder.mkdir()
    own(folder, "data", package=False)
    own(folder, "training", package=False)
    # what we depend on is in the environment of this process, whose own .pth files are left aside
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own_packages = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
    others = [p for p in sys.path if p.endswith("site-packages")]
    Path(own_packages, "others.pth").write_text("\n".join(others) + "\n")
    code = "import compress, zoo\nfrom training import fit\nfrom data import Task\nprint(fit, Task)"
    done = run(folder, f"{code}\nprint(zoo.__file__)", python, path="")
    assert done.returncode == 0, done.stderr
    where = str(source) if how else own_packages
    assert done.stdout.splitlines()[-1].startswith(where)
