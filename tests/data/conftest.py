"""What the tests of the tasks share."""

from collections.abc import Callable
from pathlib import Path

import pytest

import data.download


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    """The default folder for prepared data: one of the test's own."""
    monkeypatch.setenv("COMPRESSM_ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def offline(monkeypatch):
    """Nobody answers, at once, whether or not the machine has a network."""

    def urlopen(request, timeout):
        raise OSError("no network here")

    monkeypatch.setattr(data.download, "urlopen", urlopen)


@pytest.fixture
def raw(shared: Path) -> Callable[[str], Path]:
    """The folder of real samples of a data set, beside the repository; skips where it is not."""

    def folder(name: str) -> Path:
        place = shared / "data" / name
        if not place.is_dir():
            pytest.skip(f"../shared/data/{name} is not there")
        return place

    return folder
