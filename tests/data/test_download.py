"""Downloads from a server that breaks off, lies, or is not there."""

import socket
import threading
import time
from hashlib import sha256

import numpy as np
import pytest

import data.store.download
from data.store.download import RemoteFile, download

CONTENT = np.random.default_rng(0).bytes(1_000_000)


@pytest.fixture
def server(serve):
    return serve(CONTENT)


def file_of(server) -> RemoteFile:
    return RemoteFile("file.bin", server.url, len(CONTENT), sha256(CONTENT).hexdigest())


def test_a_file_is_fetched_once(server, tmp_path):
    heard = []
    for _ in range(2):
        path = download(file_of(server), tmp_path / "a", lambda *a: heard.append(a))
        assert path.read_bytes() == CONTENT
    assert server.asked == ["GET"]
    assert heard[-1] == (len(CONTENT), len(CONTENT), "downloading file.bin (1.0 MB)")


def test_a_connection_that_breaks_off_is_resumed(server, tmp_path):
    server.limit = 300_000
    assert download(file_of(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["GET", *(f"GET bytes={n}00000-" for n in (3, 6, 9))]


def test_a_later_call_goes_on_where_an_earlier_one_stopped(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:400_000])
    assert download(file_of(server), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["GET bytes=400000-"]
    assert not (tmp_path / "file.bin.part").exists()


def test_a_server_that_cannot_resume_starts_again(server, tmp_path):
    server.resumes = False
    (tmp_path / "file.bin.part").write_bytes(b"x" * 400_000)
    assert download(file_of(server), tmp_path).read_bytes() == CONTENT


def test_what_has_come_is_kept_when_nothing_more_comes(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:400_000])
    server.limit = 0
    with pytest.raises(FileNotFoundError, match=r"file\.bin \(1\.0 MB\).*broke off after 400000"):
        download(file_of(server), tmp_path)
    assert len(server.asked) == 3
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:400_000]
    assert not (tmp_path / "file.bin").exists()


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"x", b"404" * 333_334])
def test_another_file_is_refused(server, tmp_path, content):
    server.content = content
    with pytest.raises(ValueError, match="must give the published file, of SHA256"):
        download(file_of(server), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin.lock"]


def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    assert download(file_of(server), tmp_path).read_bytes() == CONTENT


def test_processes_do_not_fetch_the_same_file_twice(server, tmp_path):
    arguments = file_of(server), tmp_path
    threads = [threading.Thread(target=download, args=arguments) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked == ["GET"]


def wait_forever(*arguments, **options):
    time.sleep(60)


@pytest.mark.parametrize("trouble", ["refused", "silent", "no such name", "name takes forever"])
def test_without_a_network_the_user_learns_soon_what_to_do(tmp_path, monkeypatch, trouble):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    host = "127.0.0.1"
    if trouble == "refused":
        listener.close()
    elif trouble != "silent":
        host = "data.invalid"
        answer = wait_forever
        if trouble == "no such name":

            def answer(*arguments, **options):
                raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", answer)
    monkeypatch.setattr(data.store.download, "_PATIENCE", 0.5)
    file = RemoteFile("file.bin", f"http://{host}:{port}/file.bin", 7, "0" * 64)
    start = time.monotonic()
    with pytest.raises(FileNotFoundError) as caught:
        download(file, tmp_path)
    assert time.monotonic() - start < 2
    for part in ("file.bin", file.url, str(tmp_path), "--data-dir"):
        assert part in str(caught.value)
    listener.close()


def test_nobody_waits_five_seconds():
    assert data.store.download._PATIENCE < 5
