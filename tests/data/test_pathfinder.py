"""Pathfinder as a task: prepared once and whole, or read from the official folder."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import PathfinderConfig, load_task

SMALL = PathfinderConfig(
    resolution=16, contour_length=3, train=120, validation=20, test=30, workers=1
)


def fingerprint(task) -> list:
    return [
        (name, split.labels.tolist(), split.inputs.tobytes()) for name, split in task.splits.items()
    ]


def test_a_drawn_task_is_prepared_once(tmp_path, capfd):
    heard = []
    task = load_task("pathfinder", SMALL, cache_dir=tmp_path, progress=lambda *a: heard.append(a))
    assert heard[-1] == (170, 170, "drawing Pathfinder pictures")
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 120,
        "validation": 20,
        "test": 30,
    }
    assert (task.length, task.input_size, task.classes) == (256, 1, 2)
    inputs = task.splits["train"].take(np.arange(5)).inputs
    assert (inputs.dtype, inputs.min(), inputs.max()) == (np.float32, -1, 1)
    assert set(task.baselines) == {"majority", "disc distance", "disc positions"}
    heard.clear()
    again = load_task("pathfinder", SMALL, cache_dir=tmp_path, progress=lambda *a: heard.append(a))
    assert heard == []
    assert fingerprint(again) == fingerprint(task)
    assert capfd.readouterr() == ("", "")


def test_other_settings_are_another_data_set(tmp_path):
    tasks = [
        load_task("pathfinder", config, cache_dir=tmp_path)
        for config in (SMALL, PathfinderConfig(**(vars(SMALL) | {"seed": 1})))
    ]
    assert fingerprint(tasks[0]) != fingerprint(tasks[1])


def test_an_interrupted_preparation_leaves_nothing_to_mistake_for_data(tmp_path):
    def interrupt(done, total, what):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_task("pathfinder", SMALL, cache_dir=tmp_path, progress=interrupt)
    assert not list(tmp_path.rglob("dataset_info.json"))
    whole = load_task("pathfinder", SMALL, cache_dir=tmp_path)
    assert len(whole.splits["train"]) == 120


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A folder like the official one: 60 pictures of one grey each, which is their number."""
    root = tmp_path / "release" / "pathfinder32"
    for batch in (0, 1):
        folder = root / "curv_baseline" / "imgs" / str(batch)
        folder.mkdir(parents=True)
        (root / "curv_baseline" / "metadata").mkdir(exist_ok=True)
        lines = []
        for number in range(30):
            name = f"sample_{number + 150}.png"
            grey = np.full((32, 32), 30 * batch + number, np.uint8)
            Image.fromarray(grey).save(folder / name)
            label = number % 2
            lines.append(f"imgs/{batch} {name} {number} {label} 1.0 6 2 2 0.5 1 1 1\n")
        (root / "curv_baseline" / "metadata" / f"{batch}.npy").write_text("".join(lines))
    return root


OFFICIAL = PathfinderConfig(contour_length=6)


@pytest.mark.parametrize("parent", [False, True])
def test_the_official_folder_is_read_and_split(release, tmp_path, parent):
    folder = release.parent if parent else release
    task = load_task("pathfinder", OFFICIAL, data_dir=folder, cache_dir=tmp_path / "cache")
    sizes = {name: len(split) for name, split in task.splits.items()}
    assert sizes == {"train": 48, "validation": 6, "test": 6}
    seen = []
    for split in task.splits.values():
        grey = split.inputs[:, 0, 0].astype(int)
        assert (split.inputs == split.inputs[:, :1]).all()
        assert np.array_equal(grey % 2, split.labels)
        seen.extend(grey)
    assert sorted(seen) == list(range(60))
    assert task.notes == ("the files hold 60 of the 200000 official samples",)


def test_the_picture_that_is_known_to_be_empty_is_skipped_and_reported(release, tmp_path):
    empty = release / "curv_baseline/imgs/0/sample_172.png"
    empty.write_bytes(b"")
    for _ in range(2):  # prepared, then from the cache
        task = load_task("pathfinder", OFFICIAL, data_dir=release, cache_dir=tmp_path / "cache")
        assert sum(map(len, task.splits.values())) == 59
        assert task.notes[0] == f"skipped {empty}, which is empty in the release"


def break_other(release: Path) -> Path:
    path = release / "curv_baseline/imgs/1/sample_172.png"
    path.write_bytes(b"")
    return path


def cut_in_half(release: Path) -> Path:
    path = release / "curv_baseline/imgs/1/sample_160.png"
    path.write_bytes(path.read_bytes()[:50])
    return path


def wrong_size(release: Path) -> Path:
    path = release / "curv_baseline/imgs/0/sample_151.png"
    Image.new("L", (64, 64)).save(path)
    return path


def missing(release: Path) -> Path:
    path = release / "curv_baseline/imgs/0/sample_151.png"
    path.unlink()
    return path


def wrong_label(release: Path) -> Path:
    path = release / "curv_baseline/metadata/1.npy"
    path.write_text("imgs/1 sample_150.png 0 2 1.0\n")
    return path


def short_line(release: Path) -> Path:
    path = release / "curv_baseline/metadata/1.npy"
    path.write_text("imgs/1 sample_150.png\n")
    return path


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (break_other, ValueError, "cannot be read as a picture"),
        (cut_in_half, ValueError, "cannot be read as a picture"),
        (wrong_size, ValueError, "must have 32x32 pixels, got 64x64"),
        (missing, FileNotFoundError, "is missing, which line 2 of"),
        (wrong_label, ValueError, "label of 0 or 1, got 'imgs/1 sample_150.png 0 2 1.0'"),
        (short_line, ValueError, "must hold a folder, a file, an index and a label"),
    ],
)
def test_damage_is_named(release, tmp_path, damage, error, message):
    path = damage(release)
    with pytest.raises(error, match=message) as caught:
        load_task("pathfinder", OFFICIAL, data_dir=release, cache_dir=tmp_path / "cache")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("dataset_info.json"))


def test_a_folder_without_pictures_says_what_is_wanted(tmp_path):
    with pytest.raises(FileNotFoundError, match="curv_contour_length_14/metadata"):
        load_task("pathfinder", PathfinderConfig(), data_dir=tmp_path, cache_dir=tmp_path)


def test_only_published_lengths_can_be_read(tmp_path):
    with pytest.raises(ValueError, match="contour_length must be 6, 9 or 14"):
        load_task("pathfinder", PathfinderConfig(contour_length=7), data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"resolution must be 32, 64 or 128 .* got 16"):
        PathfinderConfig(source="official", resolution=16, contour_length=3)
