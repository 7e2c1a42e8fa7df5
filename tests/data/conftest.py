"""What the tests of the tasks share."""

import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import data.store.download


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

    monkeypatch.setattr(data.store.download, "urlopen", urlopen)


@pytest.fixture
def raw(shared: Path) -> Callable[[str], Path]:
    """The folder of real samples of a data set, beside the repository; skips where it is not."""

    def folder(name: str) -> Path:
        place = shared / "data" / name
        if not place.is_dir():
            pytest.skip(f"../shared/data/{name} is not there")
        return place

    return folder


class FileServer(ThreadingHTTPServer):
    """Gives `content`, whatever the path, but breaks off after `limit` bytes of each answer."""

    daemon_threads = True

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.limit = content, len(content)
        self.resumes = True
        self.hashes: list[str] = []
        """What is announced as Google Cloud Storage does, like `md5=...`."""
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.bin"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        server, asked = self.server, self.headers["Range"]
        server.asked.append(" ".join(filter(None, (self.command, asked))))
        start = int(re.findall(r"\d+", asked)[0]) if asked and server.resumes else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(server.content) - start))
        for told in ("crc32c=AAAAAA==", *server.hashes):
            self.send_header("x-goog-hash", told)
        if start:
            end = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{end + 1}")
        self.end_headers()
        if body:
            self.wfile.write(server.content[start : start + server.limit])

    def log_message(self, format, *args):
        pass


@pytest.fixture
def serve():
    """A function that starts a `FileServer`; it is stopped after the test."""
    started: list[tuple[FileServer, threading.Thread]] = []

    def start(content: bytes) -> FileServer:
        server = FileServer(content)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()
