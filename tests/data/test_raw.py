"""Raw files that somebody has damaged, emptied or blown up: one line each, or read all the same."""

import gzip
import io
import struct
import tarfile
import zlib

import numpy as np
import pytest

from data.builtin.aan import builder as aan
from data.builtin.imdb import builder as imdb
from data.builtin.listops.tokens import read_tsv
from data.builtin.pathfinder.official import read_picture
from data.builtin.scifar import builder as scifar
from data.builtin.smnist.builder import _pictures
from data.registry import load_task
from data.store import raw
from data.store.idx import read_idx

RECORD = bytes([3]) + bytes(3072)


def archive(path, *members):
    """A packed archive of (name, content) or of TarInfo."""
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def idx(*shape, content=b""):
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content


SPECIAL = pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "got a link"),
        (tarfile.LNKTYPE, "got a link"),
        (tarfile.CHRTYPE, "got a device"),
        (tarfile.FIFOTYPE, "got a device"),
    ],
    ids=["symbolic", "hard", "device", "pipe"],
)


@SPECIAL
def test_what_is_no_file_in_an_archive_is_named(tmp_path, kind, said):
    path = archive(
        tmp_path / "a.tar.gz",
        ("x/data_batch_1.bin", RECORD),
        special("x/data_batch_2.bin", kind, "/etc/passwd"),
    )
    with pytest.raises(ValueError, match=rf"data_batch_2.bin must be a plain file, {said}"):
        dict(scifar._batches({"archive": path}))
    path = archive(tmp_path / "b.tar.gz", special("aclImdb/train/pos/1_9.txt", kind, "/etc/passwd"))
    with pytest.raises(ValueError, match=rf"1_9.txt must be a plain file, {said}"):
        list(imdb._in_archive(path))


def test_what_is_not_asked_for_in_an_archive_does_not_matter(tmp_path):
    path = archive(
        tmp_path / "a.tar.gz",
        special("x", tarfile.DIRTYPE),
        special("x/readme", tarfile.SYMTYPE, "/etc/passwd"),
        ("x/data_batch_1.bin", RECORD),
    )
    assert list(dict(scifar._batches({"archive": path}))) == ["data_batch_1.bin"]


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(raw, "FREE", 10_000)


@pytest.mark.usefixtures("small_limits")
def test_files_that_unpack_to_far_more_than_their_size_are_refused(tmp_path):
    bomb = bytes(3_000_000)
    message = r"must unpack to at most \d+ bytes, 200 times its size, got more"
    (tmp_path / "text.gz").write_bytes(gzip.compress(bomb))
    with pytest.raises(ValueError, match=message):
        raw.read_bytes(tmp_path / "text.gz")
    (tmp_path / "images.gz").write_bytes(gzip.compress(idx(10**6, 28, 28, content=bomb)))
    with pytest.raises(ValueError, match=message):
        read_idx(tmp_path / "images.gz", 3)
    (tmp_path / "basic.tsv.gz").write_bytes(gzip.compress(b"7\t7\n" + bomb))
    with pytest.raises(ValueError, match=message):
        list(read_tsv(tmp_path / "basic.tsv.gz"))
    for name in ("x/data_batch_1.bin", "x/other"):  # whether it is asked for or not
        path = archive(tmp_path / "a.tar.gz", (name, bomb))
        with pytest.raises(ValueError, match=message):
            dict(scifar._batches({"archive": path}))
    path = archive(tmp_path / "b.tar.gz", ("aclImdb/train/pos/1_9.txt", bomb))
    with pytest.raises(ValueError, match=message):
        list(imdb._in_archive(path))


def test_a_text_as_dense_as_texts_are_is_read(tmp_path):
    text = " ".join(map(str, range(200_000))).encode()
    (tmp_path / "text.gz").write_bytes(gzip.compress(text))
    assert raw.read_bytes(tmp_path / "text.gz") == text


def test_a_picture_that_is_a_bomb_is_refused_by_its_size(tmp_path):
    def chunk(kind, content):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    image = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    image += chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(image)
    with pytest.raises(ValueError, match=r"a.png must have 32x32"):  # and no warning
        read_picture(tmp_path / "a.png", 32)
    (tmp_path / "b.png").write_bytes(image.replace(struct.pack(">II", 10_000, 10_000), b"\xff" * 8))
    with pytest.raises(ValueError, match=r"b.png cannot be read as a picture"):
        read_picture(tmp_path / "b.png", 32)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (idx(0, 28, 28), idx(0), "images must hold a picture or more, got none"),
        (idx(1, 28, 28, content=bytes(784)), idx(0), "must hold a label for each of 1 pictures"),
        (idx(1, 28, 28, content=bytes(784)), idx(1, content=b"\x0a"), "must hold labels from 0"),
        (idx(1, 9, 9, content=bytes(81)), idx(1, content=b"\x01"), r"of \(28, 28\) pixels"),
        (idx(2**32 - 1, 2**32 - 1, 2**32 - 1), idx(0), "must hold as many bytes as its header"),
        (idx(2**22, 2**21, 2**21), idx(0), "must hold as many bytes as its header"),
        (b"", idx(0), "must begin with 00000803 .* got nothing"),
        (b"\0\0\x08\x03", idx(0), "must have a header of 16 bytes, got 4 bytes"),
    ],
    ids=["none", "fewer", "label", "size", "absurd", "overflow", "empty", "cut"],
)
def test_pictures_that_do_not_fit_are_named(tmp_path, images, labels, message):
    (tmp_path / "images").write_bytes(images)
    (tmp_path / "labels").write_bytes(labels)
    paths = {"train images": tmp_path / "images", "train labels": tmp_path / "labels"}
    with pytest.raises(ValueError, match=message):
        _pictures(paths, "train")


def test_one_record_is_too_few_for_all_splits(tmp_path):
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (tmp_path / name).write_bytes(RECORD)
    with pytest.raises(ValueError, match="split validation must have a sample or more, got none"):
        load_task("scifar", data_dir=tmp_path)


HEADER = b"Source\tTarget\n"
LINES = b"( [MAX 2 9 ] )\t9\n( [MIN 2 9 ] )\t2\n"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        HEADER + LINES,
        raw.BOM + HEADER + LINES,
        raw.BOM + LINES,
        HEADER + LINES + b"\n",
        HEADER + LINES + b"\n\r\n  \n",
        (HEADER + LINES).replace(b"\n", b"\r\n"),
        (HEADER + LINES).rstrip(),
    ],
    ids=["plain", "mark", "mark-no-header", "blank", "blanks", "windows", "no-end"],
)
def test_marks_and_blank_lines_around_a_text_do_not_matter(tmp_path, text, packed):
    path = tmp_path / ("a.tsv.gz" if packed else "a.tsv")
    path.write_bytes(gzip.compress(text) if packed else text)
    assert [worth for _, worth in read_tsv(path)] == [9, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LINES + b"\n" + LINES, "line 3 must have 2 columns, got 1"),
        (b"\xff\n", "line 1 must be plain ASCII"),
        (b"( [MAX 2 9 ] )\t2\n", "line 1 must have the value of its expression, 9, got 2"),
        (b"( [MAX 2 9 ] )\tx\n", "line 1 must have a value from 0 to 9, got 'x'"),
        (b"( [SUM 2 9 ] )\t2\n", r"words must be ListOps', got '\[SUM'"),
    ],
)
def test_lines_that_are_wrong_are_named(tmp_path, text, message):
    (tmp_path / "a.tsv").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        list(read_tsv(tmp_path / "a.tsv"))


def test_a_text_of_a_header_alone_is_named(tmp_path):
    for name in ("train", "val", "test"):
        (tmp_path / f"basic_{name}.tsv").write_bytes(HEADER)
    with pytest.raises(ValueError, match=r"basic_train.tsv must hold an expression or more"):
        load_task("listops", data_dir=tmp_path)


def test_pairs_too_may_have_marks_and_blank_lines(tmp_path):
    line = b"1\t1\t2\tone text\tanother\n"
    (tmp_path / "a.tsv").write_bytes(raw.BOM + line + line + b"\n\n")
    assert [label for _, _, label in aan._read(tmp_path / "a.tsv")] == [1, 1]
    assert aan._count(tmp_path / "a.tsv") == (2, [])
    (tmp_path / "a.tsv").write_bytes(raw.BOM + b"\n\n")
    with pytest.raises(ValueError, match="must hold a pair of texts or more, got none"):
        aan._count(tmp_path / "a.tsv")


def test_lines_are_numbered_with_the_blank_ones_between():
    lines = [raw.BOM + b"a\n", b"\n", b"b\r\n", b"\n", b" \n"]
    assert list(raw.numbered_lines(lines)) == [(1, b"a"), (2, b""), (3, b"b")]
    assert np.array_equal(list(raw.numbered_lines([])), [])
