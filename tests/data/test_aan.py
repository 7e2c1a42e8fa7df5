"""Pairs of texts: official files, damaged ones, and the generated stand-in."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data import AANConfig, load_task
from data.builtin.aan.topics import COMMON_WORDS, TOPIC_WORDS, TopicTexts

GENERATED = AANConfig(source="generated", length=600, train=80, validation=10, test=40)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "aan" / "tsv_data"
    place.mkdir(parents=True)
    for part, count in (("train", 6), ("eval", 2), ("test", 3)):
        lines = [
            f"{i % 2}.0\tP{i}\tQ{i}\tfirst of {i}\tthe “second” of {i}\n" for i in range(count)
        ]
        (place / f"new_aan_pairs.{part}.tsv").write_text("".join(lines))
    return tmp_path / "aan"


def test_official_pairs_are_read(folder):
    task = load_task("aan", AANConfig(length=12), data_dir=folder)
    assert (task.kind, task.length, task.classes) == ("pair", 12, 2)
    batch = task.splits["test"].take(np.arange(3))
    assert batch.inputs.shape == (3, 2, 12)
    assert batch.labels.tolist() == [0, 1, 0]
    assert batch.inputs[2, 0, :10].astype(np.uint8).tobytes() == b"first of 2"
    assert batch.inputs[2, 1].astype(np.uint8).tobytes() == "the “second” of 2".encode()[:12]
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [[10, 12]] * 3
    assert task.notes[0] == "the files hold 6 of the 147086 train samples"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"1.0\tP\tQ\tonly one", "must have 5 columns .*got 4"),
        (b"2.0\tP\tQ\tone\ttwo", r"must have a label of 0 or 1, got '2\.0'"),
        (b"\n1.0\tP\tQ\tone\ttwo", "must have 5 columns .*got 1"),
    ],
)
def test_a_damaged_line_is_named(folder, line, message, cache):
    path = folder / "tsv_data" / "new_aan_pairs.eval.tsv"
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ValueError, match=message) as caught:
        load_task("aan", data_dir=folder)
    assert f"{path}, line 3" in str(caught.value)
    assert not list(cache.rglob("dataset_info.json"))


def test_empty_texts_are_skipped_and_reported(folder):
    path = folder / "tsv_data" / "new_aan_pairs.train.tsv"
    path.write_bytes(path.read_bytes() + b"1.0\tP\tQ\t\ttwo\n0.0\tP\tQ\tone\t\n")
    task = load_task("aan", data_dir=folder)
    assert len(task.splits["train"]) == 6
    assert f"skipped 2 of the pairs in {path}, one text of which is empty: lines 7, 8" in task.notes


def test_without_a_network_the_wanted_file_is_named(offline):
    with pytest.raises(FileNotFoundError, match=r"lra_release\.gz \(7\.7 GB\) .* --data-dir"):
        load_task("aan")


def test_a_folder_without_them_names_the_wanted_file_and_the_stand_in(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"new_aan_pairs\.train\.tsv.*source generated"):
        load_task("aan", data_dir=tmp_path)


def test_generated_texts_take_no_folder(tmp_path):
    with pytest.raises(ValueError, match="data_dir must be left out with source generated"):
        load_task("aan", GENERATED, data_dir=tmp_path)


@pytest.mark.parametrize(("topics", "topical"), [(24, 0.2), (3, 0.6)])
def test_generated_pairs_belong_together_when_their_topics_do(topics, topical):
    config = replace(GENERATED, topics=topics, topical=topical)
    task = load_task("aan", config)
    assert task.name == "aan (generated)"
    assert task.notes == ("these pairs of texts are generated: they are not those of AAN",)
    texts = TopicTexts(config.seed, topics, topical)
    topic_of = {word: topic for topic, words in enumerate(texts.topics) for word in words}
    assert len(topic_of) == topics * TOPIC_WORDS
    assert len(set(texts.common) - set(topic_of)) == COMMON_WORDS
    own = []
    for split in task.splits.values():
        assert split.lengths is not None
        assert split.lengths.min() >= 150
        assert split.lengths.max() <= 600
        assert np.bincount(split.labels).tolist() == [len(split) // 2] * 2
        for pair, lengths, label in zip(split.inputs, split.lengths, split.labels, strict=True):
            about = []
            for text, length in zip(pair, lengths, strict=True):
                words = text[:length].tobytes().split(b" ")[:-1]  # the last may be cut
                found = {topic_of[word] for word in words if word in topic_of}
                assert len(found) == 1
                about += found
                own.append(np.mean([word in topic_of for word in words]))
            assert (about[0] == about[1]) == (label == 1)
    assert abs(np.mean(own) - topical) < 0.01


def test_generated_pairs_depend_on_the_seed():
    first, again, other = (
        load_task("aan", replace(GENERATED, seed=seed, train=size)).splits["test"]
        for seed, size in ((0, 80), (0, 20), (1, 80))
    )
    assert np.array_equal(first.inputs, again.inputs)
    assert not np.array_equal(first.inputs, other.inputs)
