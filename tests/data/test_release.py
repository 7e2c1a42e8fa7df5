"""The Long Range Arena release from a server of our own: announced, resumed, checked, unpacked."""

import base64
import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data.store.download
import data.store.release
from data import AANConfig, ListOpsConfig, PathfinderConfig, load_task
from data.store.release import RELEASE, unpack_release


def png(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (32, 32), grey).save(file, "png")
    return file.getvalue()


def members() -> Iterator[tuple[str, bytes]]:
    """A few samples of each task, in the places of the real ones, and something to be left out."""
    root = "lra_release/lra_release"
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        lines = [f"( ( ( [MAX {i} ) 5 ) ] )\t{max(i, 5)}\n" for i in range(count)]
        yield (
            f"{root}/listops-1000/basic_{part}.tsv",
            ("Source\tTarget\n" + "".join(lines)).encode(),
        )
    for part, count in (("train", 4), ("eval", 2), ("test", 3)):
        lines = [f"{i % 2}.0\tP{i}\tQ{i}\ttext {i}\tother {i}\n" for i in range(count)]
        yield f"{root}/tsv_data/new_aan_pairs.{part}.tsv", "".join(lines).encode()
    for difficulty in ("curv_baseline", "curv_contour_length_9"):
        place = f"{root}/pathfinder32/{difficulty}"
        lines = [f"imgs/0 sample_{i}.png {i} {i % 2} 1.0 6 2\n" for i in range(20)]
        for i in range(20):
            yield f"{place}/imgs/0/sample_{i}.png", png(i)
        yield f"{place}/metadata/0.npy", "".join(lines).encode()
    yield "lra_release/../listops-1000/../../evil", b"out of here"
    yield f"{root}/checkpoints/large.bin", np.random.default_rng(0).bytes(300_000)


@pytest.fixture(scope="module")
def archive() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in members():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def server(archive, serve, monkeypatch):
    server = serve(archive)
    server.hashes = [f"md5={base64.b64encode(hashlib.md5(archive).digest()).decode()}"]
    monkeypatch.setattr(data.store.release, "RELEASE", replace(RELEASE, url=server.url))
    return server


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_each_task_takes_its_own_part_of_one_download(server, cache):
    heard = []

    def progress(done, total, what):
        heard.append((done, total, what))

    listops = load_task("listops", ListOpsConfig(source="official"), progress=progress)
    size = len(server.content)
    assert heard[0] == (0, size, f"downloading lra_release.gz ({size / 1e6:.1f} MB)")
    assert (size, size, "unpacking listops-1000 of lra_release.gz") in heard
    assert {name: len(split) for name, split in listops.splits.items()} == {
        "train": 5,
        "validation": 2,
        "test": 3,
    }
    place = cache / "data" / "downloads" / "lra"
    parts = ("train", "val", "test")
    assert {name for name in files_below(place) if not name.endswith(".lock")} == {
        "lra_release.gz",
        *(f"listops-1000/basic_{part}.tsv" for part in parts),
    }
    pairs = load_task("aan", AANConfig(length=20))
    assert pairs.splits["test"].inputs[1, 1, :7].tobytes() == b"other 1"
    pictures = load_task("pathfinder", PathfinderConfig(source="official", contour_length=9))
    assert sum(map(len, pictures.splits.values())) == 20
    assert {path.name for path in (place / "pathfinder32").iterdir()} == {"curv_contour_length_9"}
    assert server.asked == ["HEAD", "GET"]
    assert not list(cache.parent.rglob("evil"))


def test_a_download_that_broke_off_goes_on(server, tmp_path):
    server.limit = 200_000
    unpack_release("listops-1000", tmp_path)
    assert server.asked == ["HEAD", "GET", "GET bytes=200000-"]
    assert (tmp_path / "lra" / "lra_release.gz").read_bytes() == server.content


def test_another_file_than_the_announced_one_is_refused(server, tmp_path):
    server.hashes = ["md5=" + base64.b64encode(bytes(16)).decode()]
    with pytest.raises(ValueError, match=r"must give the published file, of MD5 0000.* got"):
        unpack_release("listops-1000", tmp_path)
    assert files_below(tmp_path / "lra") == {"lra_release.gz.lock"}


@pytest.mark.parametrize("damage", ["cut", "one byte", "no archive", "another archive"])
def test_without_an_announced_checksum_damage_is_found_in_unpacking(server, tmp_path, damage):
    server.hashes = []
    content = server.content
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "one byte":  # in what is not unpacked: only the stream's checksum can tell
        place = len(content) - 100_000
        content = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    elif damage == "no archive":
        content = b"<html>not here</html>"
    folder, message = "listops-1000", "damaged or cut short in .*: remove it"
    if damage == "another archive":
        folder, message = "listops-2000", "holds no listops-2000"
    server.content, server.limit = content, len(content)
    with pytest.raises(ValueError, match=message) as caught:
        unpack_release(folder, tmp_path)
    assert str(tmp_path / "lra" / "lra_release.gz") in str(caught.value)
    assert all(name.startswith(("lra_release.gz", "unp")) for name in files_below(tmp_path / "lra"))


def test_a_disk_without_room_is_found_out_before(server, tmp_path, monkeypatch):
    monkeypatch.setattr(
        data.store.download.shutil, "disk_usage", lambda path: type("", (), {"free": 9})
    )
    with pytest.raises(OSError, match=r"lra_release\.gz .* needs .* has 0\.0 GB left"):
        unpack_release("listops-1000", tmp_path)
    assert server.asked == ["HEAD"]


def test_official_files_must_be_asked_for(offline):
    small = {"train": 20, "validation": 10, "test": 10, "workers": 1}
    for name, config in (
        ("listops", ListOpsConfig(min_length=10, max_length=60, **small)),
        ("pathfinder", PathfinderConfig(resolution=16, contour_length=3, **small)),
    ):
        assert len(load_task(name, config).splits["train"]) == 20
        with pytest.raises(ValueError, match="data_dir must be left out with source generated"):
            load_task(name, replace(config, source="generated"), data_dir=Path("."))
    with pytest.raises(FileNotFoundError, match=r"lra_release\.gz \(7\.7 GB\) could not be"):
        load_task("pathfinder", PathfinderConfig(source="official"))


def test_what_has_been_prepared_in_full_needs_no_files(server, cache, monkeypatch):
    import data.builtin.listops.builder

    counts = {"train": 5, "validation": 2, "test": 3}
    monkeypatch.setattr(data.builtin.listops.builder, "PUBLISHED", counts)
    first = load_task("listops", ListOpsConfig(source="official"))
    for path in sorted((cache / "data" / "downloads").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    again = load_task("listops", ListOpsConfig(source="official"))
    assert np.array_equal(first.splits["test"].inputs, again.splits["test"].inputs)
    assert server.asked == ["HEAD", "GET"]
