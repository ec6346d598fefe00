"""Downloads, from a server in this process that does all that servers do: only what is whole gets the file's name."""

import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.data import download
from harness.data.download import DownloadError, fetch
from harness.data.load import load
from tests.copies import CIFARS, cifar_files, md5, publish_cifar, random_split
from variants.fields import UsageError

ROOT = Path(__file__).resolve().parents[1]
CONTENT = np.random.default_rng(0).bytes(300_000)
SUM = md5(CONTENT)


class Server(ThreadingHTTPServer):
    """Does in turn what `turns` say, then sends the file as it should."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.turns, self.asked = CONTENT, [], []
        self.pause_s = 0.0  # after each tenth of the file
        self.awaited = 1  # nobody is answered before so many have asked
        self.url = f"http://127.0.0.1:{self.server_address[1]}/file.bin"

    def handle_error(self, request, client_address) -> None:
        """Whoever was cut off is what the tests are about."""


class Handler(BaseHTTPRequestHandler):
    server: Server  # type: ignore[assignment]

    def log_message(self, format, *args) -> None:
        pass

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        until = time.monotonic() + 30
        while len(server.asked) < server.awaited and time.monotonic() < until:
            time.sleep(0.01)
        turn = server.turns.pop(0) if server.turns else "whole"
        if turn.isdigit():
            return self.send_error(int(turn))
        if turn == "hang up":
            return self.connection.close()
        content = bytes(len(server.content)) if "wrong" in turn else server.content
        first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and turn != "ignore range" else 0
        if first >= len(content) > 0 and wanted:
            return self.send_error(416)
        if wanted and turn != "ignore range":
            self.send_response(206)
            start = first + 7 if turn == "other range" else first
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if turn != "no length":
            self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        end = first + (len(content) - first) // 2 if turn.startswith("cut") else len(content)
        self.send(content[first:end])
        if turn == "cut by silence":
            time.sleep(4 * download.SILENCE_S)

    def send(self, content: bytes) -> None:
        step = max(1, len(self.server.content) // 10)
        for start in range(0, len(content), step):
            self.wfile.write(content[start : start + step])
            self.wfile.flush()
            time.sleep(self.server.pause_s)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PAUSES_S", (0.0,) * 5)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ranges(server: Server) -> list[int]:
    return [int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0 for asked in server.asked]


TURNS = {
    "at once": ([], [0]),
    "cut off once": (["cut"], [0, 150_000]),
    "cut off ten times": (["cut"] * 10, None),
    "hangs up, then not": (["hang up", "hang up"], [0, 0, 0]),
    "503, then not": (["503", "503"], [0, 0, 0]),
    "429, then not": (["429"], [0, 0]),
    "cut off, then 503": (["cut", "503"], [0, 150_000, 150_000]),
    "cut off, then no ranges": (["cut", "ignore range"], [0, 150_000]),
    "cut off, then another range": (["cut", "other range"], [0, 150_000, 0]),
    "says no length": (["no length"], [0]),
    "wrong bytes once": (["wrong bytes"], [0, 0]),
    "wrong rest once": (["cut", "wrong bytes"], [0, 150_000, 0]),
    "wrong start once": (["cut wrong"], [0, 150_000, 0]),
}


@pytest.mark.parametrize("kind", TURNS)
def test_the_file_comes_whole_whatever_the_server_does(tmp_path, server, tried, kind):
    turns, wanted = TURNS[kind]
    server.turns = list(turns)
    fetch(server.url, tmp_path / "data" / "file.bin", SUM)
    assert (tmp_path / "data" / "file.bin").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["file.bin"], "nothing else is left"
    assert server.turns == [] and (wanted is None or ranges(server) == wanted)
    tried("downloads", {kind: 1})


def test_what_an_earlier_process_left_is_gone_on_with(tmp_path, server, tried):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:123_456])
    fetch(server.url, tmp_path / "file.bin", SUM)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and ranges(server) == [123_456]
    tried("downloads", {"gone on with": 1})


@pytest.mark.parametrize("left", [CONTENT, CONTENT + b"more", bytes(100), b"x" * 300_000], ids=len)
def test_what_was_left_is_whole_or_too_much_or_of_another_file(tmp_path, server, tried, left):
    (tmp_path / "file.bin.part").write_bytes(left)
    fetch(server.url, tmp_path / "file.bin", SUM)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert ranges(server)[0] == len(left) and len(server.asked) == (1 if left == CONTENT else 2)
    tried("downloads", {"a rest that does not belong to it": 1})


def test_the_server_s_file_changed_in_between(tmp_path, server):
    """And the published sum with it: the halves of two files are not taken for one."""
    server.turns = ["cut"] * 2 + ["404"]
    with pytest.raises(DownloadError):
        fetch(server.url, tmp_path / "file.bin", SUM)
    server.content, server.asked = CONTENT[::-1], []
    fetch(server.url, tmp_path / "file.bin", md5(CONTENT[::-1]))
    assert (tmp_path / "file.bin").read_bytes() == CONTENT[::-1] and ranges(server) == [225_000, 0]


@pytest.mark.parametrize(
    ("turns", "words", "left"),
    [
        (["wrong bytes"] * 2, f"whose MD5 is {md5(bytes(300_000))}; {SUM} was published", None),
        (["404"], "404 Not Found", None),
        (["cut", "403"], "403 Forbidden", 150_000),
        (["503"] * 6, "503 Service Unavailable", None),
        (["cut", *["hang up"] * 6], "no connection", 150_000),
    ],
)
def test_what_cannot_be_had_is_said_and_never_gets_the_name(tmp_path, server, tried, turns, words, left):
    server.turns = list(turns)
    with pytest.raises(DownloadError, match=words):
        fetch(server.url, tmp_path / "file.bin", SUM)
    assert not (tmp_path / "file.bin").exists() and server.turns == []
    there = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert there == ({"file.bin.part": left} if left else {})
    tried("downloads", {"refused: " + words.split(";")[0].split(md5(bytes(300_000)))[0].strip(): 1})


def test_without_the_checksum_wrong_bytes_would_be_taken(tmp_path, server, monkeypatch, tried):
    """The planted defect: all that stands between the server and the file's name."""
    monkeypatch.setattr(download, "_md5", lambda part: SUM)
    server.turns = ["wrong bytes"]
    fetch(server.url, tmp_path / "file.bin", SUM)
    assert (tmp_path / "file.bin").read_bytes() != CONTENT
    tried("downloads", {}, {"without the checksum": 1})


def test_a_server_that_falls_silent(tmp_path, server, monkeypatch, tried):
    monkeypatch.setattr(download, "SILENCE_S", 0.3)
    server.turns = ["cut by silence"]
    fetch(server.url, tmp_path / "file.bin", SUM)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and ranges(server) == [0, 150_000]
    tried("downloads", {"silence": 1})


def test_pauses_grow_until_something_comes(tmp_path, server, monkeypatch):
    slept = []
    clock = SimpleNamespace(sleep=slept.append, monotonic=time.monotonic)
    monkeypatch.setattr(download, "PAUSES_S", (1.0, 2.0, 4.0))
    monkeypatch.setattr(download, "time", clock)
    server.turns = ["503", "503", "cut", "503", "503"]
    fetch(server.url, tmp_path / "file.bin", SUM)
    assert slept == [1.0, 2.0, 1.0, 1.0, 2.0]


def test_no_network_is_said_at_once(tmp_path, server, monkeypatch, capsys):
    """Unless there was one a moment ago."""

    def unknown(*args):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    known = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match=r"no connection .*Temporary failure in name resolution"):
        fetch(server.url, tmp_path / "file.bin", SUM)
    assert list(tmp_path.iterdir()) == [] and "trying again" not in capsys.readouterr().err
    names = iter([known, unknown, known])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: next(names)(*args))
    server.turns = ["cut"]
    fetch(server.url, tmp_path / "file.bin", SUM)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and ranges(server) == [0, 150_000]


def test_a_disk_without_room_is_said_before_it_is_full(tmp_path, server, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    with pytest.raises(DownloadError, match=r"file\.bin\.part needs 0\.3 MB more, and 0\.1 MB are free"):
        fetch(server.url, tmp_path / "file.bin", SUM)
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:250_000])
    fetch(server.url, tmp_path / "file.bin", SUM)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_disk_that_fills_up_keeps_what_it_has(tmp_path, server, tried):
    """As a quota does it: a write that comes to nothing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DownloadError, match=r"file\.bin cannot be written: File too large"):
            fetch(server.url, tmp_path / "file.bin", SUM)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:100_000]
    fetch(server.url, tmp_path / "file.bin", SUM)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and ranges(server) == [0, 100_000]
    tried("downloads", {"full disk": 1})


def test_a_place_that_cannot_be_written_to(tmp_path, server):
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match=r"data/file\.bin cannot be written"):
        fetch(server.url, tmp_path / "data" / "file.bin", SUM)


@contextmanager
def processes(server: Server, folder: Path, count: int, first: str = "") -> Iterator[list[subprocess.Popen]]:
    code = f"from harness.data import download; from pathlib import Path; {first}\n"
    code += f"download.fetch({server.url!r}, Path({str(folder)!r}) / 'file.bin', {SUM!r})"
    started = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=-1, text=True) for _ in range(count)]
    try:
        yield started
    finally:
        for process in started:
            with suppress(OSError):
                process.kill()
            process.wait()
            assert process.stderr
            process.stderr.close()


def test_of_three_processes_one_fetches_and_the_others_wait(tmp_path, server, tried):
    server.pause_s = 0.1
    with processes(server, tmp_path, 3) as started:
        told = [process.communicate(timeout=60)[1] for process in started]
        assert [process.returncode for process in started] == [0, 0, 0], told
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and len(server.asked) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]
    tried("downloads", {"three processes at once": 1})


def test_without_the_lock_they_would_all_fetch(tmp_path, server, tried):
    server.awaited = 3
    with processes(server, tmp_path, 3, "download.fcntl = None") as started:
        for process in started:
            process.communicate(timeout=60)
    assert len(server.asked) >= 3
    tried("downloads", {}, {"without the lock": 1})


def test_killed_in_the_middle(tmp_path, server, tried):
    """The lock is free again, and what came is gone on with."""
    server.pause_s = 0.1
    with processes(server, tmp_path, 1) as (process,):
        part = tmp_path / "file.bin.part"
        until = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size >= 60_000) and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
        process.wait()
    have = part.stat().st_size
    assert 60_000 <= have < len(CONTENT) and not (tmp_path / "file.bin").exists()
    server.pause_s = 0
    fetch(server.url, tmp_path / "file.bin", SUM)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and ranges(server)[1:] == [have]
    tried("downloads", {"killed in the middle": 1})


def test_a_file_that_somebody_brought_meanwhile_is_left_alone(tmp_path, server):
    (tmp_path / "file.bin").write_bytes(b"theirs")
    fetch(server.url, tmp_path / "file.bin", SUM)
    assert (tmp_path / "file.bin").read_bytes() == b"theirs" and server.asked == []
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("terminal", [True, False])
def test_how_far_it_is(tmp_path, server, monkeypatch, capsys, terminal):
    monkeypatch.setattr(download, "SHOWN_EVERY_S", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    server.turns = ["cut"]
    fetch(server.url, tmp_path / "file.bin", SUM)
    shown = capsys.readouterr().err
    assert "file.bin: cut off after 0.1 of 0.3 MB; trying again in 0 s, from 0.1 MB" in shown
    assert ("file.bin: 0.3 of 0.3 MB" in shown) == ("\x1b[2K" in shown) == terminal
    assert ("fetching file.bin, 0.0 of 0.3 MB are here\n" in shown) == (not terminal)


# --- through the loader ----------------------------------------------------------------------------------------------


def test_cifar_from_the_server_to_the_arrays(tmp_path, server, monkeypatch):
    files = cifar_files("c10", random_split(100), random_split(50, seed=1))
    server.content = publish_cifar(monkeypatch, "c10", files)
    monkeypatch.setattr(CIFARS["c10"], "url", server.url)
    server.turns = ["cut", "503"]
    assert len(load("c10", tmp_path / "data").train) == 100
    assert [path.name for path in (tmp_path / "data").iterdir()] == [CIFARS["c10"].filename]


def test_an_interrupted_download_is_not_taken_for_a_whole_one(tmp_path, server, monkeypatch):
    files = cifar_files("c10", random_split(100), random_split(50, seed=1))
    server.content = publish_cifar(monkeypatch, "c10", files)
    monkeypatch.setattr(CIFARS["c10"], "url", server.url)
    server.turns = ["cut"]

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as inner:
        inner.setattr(download, "time", SimpleNamespace(sleep=interrupt, monotonic=time.monotonic))
        with pytest.raises(KeyboardInterrupt):
            load("c10", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{CIFARS['c10'].filename}.part"]
    assert len(load("c10", tmp_path).train) == 100


def test_a_download_that_fails_names_the_other_ways(tmp_path, server, monkeypatch):
    monkeypatch.setattr(CIFARS["c10"], "url", server.url)
    server.turns = ["404"]
    with pytest.raises(UsageError, match=r"c10 is not in .* \(.*404 Not Found\)(.|\n)*--data-dir"):
        load("c10", tmp_path)
