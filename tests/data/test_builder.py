"""Prepared data: in order, decoded once, mapped when large, whole or not there."""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds

import data.store.builder
from data.store.builder import AbstractTaskBuilder, Recipe, Records, find_complete, prepare, tensor


class Numbers(AbstractTaskBuilder):
    """The numbers below `settings`, and their halves."""

    VERSION = tfds.core.Version("1.2.0")
    RELEASE_NOTES: ClassVar = {"1.2.0": "."}
    DESCRIPTION = "numbers"
    CITATION = "Euclid"
    HOMEPAGE = "https://example.org"

    @property
    def work(self) -> str:
        return "counting"

    def features(self) -> dict:
        return {"number": tensor((2,), np.int32), "half": tensor((), np.float32)}

    def records(self) -> dict[str, Records]:
        count = self.recipe.settings
        self.add_note(f"{count} numbers")
        self.compare({"train": 3000}, {"train": count})
        samples = ({"number": np.array([i, -i], np.int32), "half": i / 2} for i in range(count))
        return {"train": Records(3000, samples)}


def test_samples_come_back_in_order(tmp_path):
    heard = []
    recipe = Recipe(name="all", settings=3000, progress=lambda *a: heard.append(a))
    for _ in range(2):  # written, then found
        prepared = prepare(Numbers, recipe, tmp_path)
        train = prepared.splits["train"]
        assert train["number"].dtype == np.int32
        assert np.array_equal(train["number"], np.arange(3000)[:, None] * [1, -1])
        assert np.array_equal(train["half"], np.arange(3000) / 2)
        assert prepared.metadata["notes"] == ["3000 numbers"]
    assert heard[-1] == (3000, 3000, "counting")
    assert len(heard) == 6


def test_the_data_set_is_one_that_tensorflow_datasets_reads(tmp_path):
    prepare(Numbers, Recipe(name="all", settings=3000), tmp_path)
    builder = tfds.builder_from_directory(str(tmp_path / "numbers" / "all" / "1.2.0"))
    assert builder.info.citation == "Euclid"
    source = builder.as_data_source("train")
    assert len(source) == 3000
    assert source[7]["number"].tolist() == [7, -7]


def test_large_sets_are_mapped(tmp_path, monkeypatch):
    recipe = Recipe(name="all", settings=3000)
    held = prepare(Numbers, recipe, tmp_path).splits["train"]["number"]
    monkeypatch.setattr(data.store.builder, "memory_bytes", lambda: 4 * 3000)
    mapped = prepare(Numbers, recipe, tmp_path).splits["train"]["number"]
    assert not isinstance(held, np.memmap)
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(held, mapped)


def test_a_split_must_hold_what_was_promised(tmp_path):
    with pytest.raises(
        RuntimeError, match="split train must have 3000 samples, as announced, got 20"
    ):
        prepare(Numbers, Recipe(name="few", settings=20), tmp_path)
    assert not list(tmp_path.rglob("*.npy"))
    assert not list(tmp_path.rglob("dataset_info.json"))


def test_only_what_is_complete_is_found(tmp_path):
    assert find_complete(Numbers, "n", tmp_path) is None
    prepare(Numbers, Recipe(name="n_files_abc", settings=3000), tmp_path)
    assert find_complete(Numbers, "n", tmp_path) == "n_files_abc"
    assert find_complete(Numbers, "m", tmp_path) is None
    metadata = tmp_path / "numbers" / "n_files_abc" / "1.2.0" / "metadata.json"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"complete": False}))
    assert find_complete(Numbers, "n", tmp_path) is None


def test_the_files_digests_are_kept(tmp_path):
    path = tmp_path / "raw.txt"
    path.write_bytes(b"abc")
    source: dict[str, Path] = {"it": path, "folder": tmp_path}
    prepared = prepare(Numbers, Recipe(name="n", settings=3000, source=source), tmp_path / "cache")
    assert prepared.metadata["files"] == {
        "raw.txt": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }
