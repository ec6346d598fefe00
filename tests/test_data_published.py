"""CIFAR and SVHN as their authors published them: read by torchvision, which checks and downloads them, here from a
server in this process. What is damaged or not to be had is said in a sentence, and nothing is executed."""

import hashlib
import io
import pickle
import resource
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import CIFAR10, CIFAR100, SVHN

from harness.data import load as loading
from harness.data.load import Split, canonical, digest, load
from harness.datasets import DATASETS
from tests.copies import Runs, random_split
from variants.fields import UsageError

CIFARS: dict[str, Any] = {"c10": CIFAR10, "c100": CIFAR100}
TRAIN, TEST = random_split(60), random_split(30, seed=1)


@pytest.fixture(autouse=True)
def nothing_loaded() -> None:
    load.cache_clear()


@pytest.fixture
def offline(monkeypatch) -> None:
    def unknown(*args: Any, **options: Any) -> None:
        raise urllib.error.URLError(OSError(-3, "Temporary failure in name resolution"))

    monkeypatch.setattr(urllib.request, "urlopen", unknown)


# --- the published files ---------------------------------------------------------------------------------------------


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def cifar_pickle(name: str, split: Split) -> bytes:
    """One file of CIFAR, as its authors laid it out."""
    planes = np.ascontiguousarray(split.images.transpose(0, 3, 1, 2)).reshape(len(split), -1)
    labels = split.labels.tolist()
    more = {"labels": labels} if name == "c10" else {"fine_labels": labels, "coarse_labels": [0] * len(split)}
    return pickle.dumps({"data": planes, **more}, protocol=2)


def published(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """TRAIN and TEST as archive and unpacked, or for SVHN as its two files; their MD5s are now the published ones."""
    if name == "svhn":
        files, sums = {}, {}
        for split, images in (("train", TRAIN), ("test", TEST)):
            url, file, _ = SVHN.split_list[split]
            files[file] = svhn_file(images)
            sums[split] = [url, file, md5(files[file])]
        monkeypatch.setattr(SVHN, "split_list", sums)
        return files, {}
    source = CIFARS[name]
    batches = [file for file, _ in source.train_list]
    parts = [TRAIN.part(slice(i, None, len(batches))) for i in range(len(batches))]
    files = {file: cifar_pickle(name, part) for file, part in zip(batches, parts)}
    files[source.test_list[0][0]] = cifar_pickle(name, TEST)
    classes = [f"class {i}" for i in range(DATASETS[name].num_classes)]
    files[source.meta["filename"]] = pickle.dumps({source.meta["key"]: classes}, protocol=2)
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(source, part, [[file, md5(files[file])] for file, _ in getattr(source, part)])
    monkeypatch.setattr(source, "meta", source.meta | {"md5": md5(files[source.meta["filename"]])})
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for file, content in files.items():
            member = tarfile.TarInfo(f"{source.base_folder}/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(source, "tgz_md5", md5(stream.getvalue()))
    return {source.filename: stream.getvalue()}, {f"{source.base_folder}/{file}": files[file] for file in files}


def svhn_file(split: Split) -> bytes:
    """32 x 32 x 3 x N, labels as a column in which 10 is the digit 0."""
    labels = np.where(split.labels == 0, 10, split.labels).astype(np.uint8)[:, None]
    stream = io.BytesIO()
    savemat(stream, {"X": split.images.transpose(1, 2, 3, 0), "y": labels}, do_compression=True)
    return stream.getvalue()


def lay_out(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


FORMS = [("c10", "archive"), ("c10", "unpacked"), ("c100", "archive"), ("c100", "unpacked"), ("svhn", "archive")]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("name", "form"), FORMS)
def test_the_published_files_give_what_arrays_give(tmp_path, monkeypatch, recwarn, name, form):
    packed, unpacked = published(name, monkeypatch)
    lay_out(tmp_path, packed if form == "archive" else unpacked)
    data = load(name, tmp_path)
    train, test = canonical(TRAIN), canonical(TEST)
    assert data.digest == digest(train, test)
    for split, wanted in ((data.train, train), (data.test, test)):
        assert np.array_equal(split.images, wanted.images) and np.array_equal(split.labels, wanted.labels)
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
    assert data.mean == DATASETS[name].mean and not recwarn.list
    assert data.classes[:2] == (["0", "1"] if name == "svhn" else ["class 0", "class 1"])


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[:-1000],
    "one bit": lambda content: content[:-500] + bytes([content[-500] ^ 1]) + content[-499:],
    "something else": lambda content: b"<html>no such page</html>",
}


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("name", "form"), [form for form in FORMS if form[0] != "c100"])
def test_files_with_another_checksum_are_not_used(tmp_path, monkeypatch, name, form, damage):
    packed, unpacked = published(name, monkeypatch)
    files = packed if form == "archive" else unpacked
    bad = next(iter(files))
    lay_out(tmp_path, files | {bad: DAMAGES[damage](files[bad])})
    with pytest.raises(UsageError, match=f"{name} is not in {tmp_path}/, or damaged there(.|\n)*--data-dir DIR"):
        load(name, tmp_path)


@pytest.mark.usefixtures("offline")
def test_nothing_is_unpickled_before_its_checksum_matched(tmp_path, monkeypatch):
    """Whichever version of torchvision is installed."""
    _, unpacked = published("c10", monkeypatch)
    file = f"{CIFAR10.base_folder}/data_batch_1"
    lay_out(tmp_path, unpacked | {file: pickle.dumps(Runs(tmp_path / "ran"), protocol=2)})
    with pytest.raises(UsageError):
        load("c10", tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["c10", "c100", "svhn"])
def test_missing_data_without_a_network(tmp_path, name):
    """One message that names the ways to provide them."""
    with pytest.raises(UsageError) as caught:
        load(name, tmp_path / "data")
    for words in (name, "no connection", "name resolution", "train_images.npy", "--data-dir", loading.PUBLISHED[name]):
        assert words in str(caught.value)


# --- downloads -------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    server: "Server"  # type: ignore[assignment]

    def log_message(self, format, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.server.asked += 1
        content = self.answer()
        turn = self.server.turn
        self.wfile.write(content[: len(content) // 2])
        time.sleep(self.server.pause_s)
        if turn == "silent":
            self.server.over.wait(30)
        if turn not in ("cut off", "silent"):
            self.wfile.write(content[len(content) // 2 :])

    def answer(self) -> bytes:
        if self.server.turn == "404":
            self.send_error(404)
            return b""
        content = bytes(len(self.server.content)) if self.server.turn == "other bytes" else self.server.content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.turn, self.asked, self.pause_s = content, "", 0, 0.0
        self.over = threading.Event()

    def handle_error(self, request, client_address) -> None:
        """Whoever was cut off is what the tests are about."""


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    """Has CIFAR-10's archive."""
    monkeypatch.setenv("no_proxy", "*")
    packed, _ = published("c10", monkeypatch)
    with Server(packed[CIFAR10.filename]) as server:
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_address[1]}/{CIFAR10.filename}")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ("404", "HTTP Error 404"),
        ("other bytes", "what came does not have the published checksum"),
        ("cut off", "what came does not have the published checksum"),
        ("silent", "timed out"),
    ],
)
def test_a_failed_download_is_said_and_the_next_one_starts_afresh(tmp_path, monkeypatch, server, turn, words):
    monkeypatch.setattr(loading, "SILENCE_S", 0.3)
    server.turn = turn
    with pytest.raises(UsageError, match=rf"c10 is not in .* could not be downloaded \(.*{words}.*\)(.|\n)*--data-dir"):
        load("c10", tmp_path / "data")
    server.turn = ""
    assert len(load("c10", tmp_path / "data").train) == 60
    asked = server.asked
    load.cache_clear()
    assert len(load("c10", tmp_path / "data").train) == 60 and server.asked == asked, "it is there now"


def test_a_full_disk_is_said(tmp_path, server):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(UsageError, match=r"could not be downloaded \(.*File too large"):
            load("c10", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(load("c10", tmp_path).train) == 60


def test_a_place_that_cannot_be_written_to(tmp_path, server):
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(UsageError, match=r"could not be downloaded \(.*exists"):
        load("c10", tmp_path / "data")


def test_of_three_at_once_one_downloads_and_the_others_wait(tmp_path, server):
    server.pause_s = 0.3
    read = []
    threads = [
        threading.Thread(target=lambda: read.append(len(loading.read_published(DATASETS["c10"], tmp_path)[0])))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [60, 60, 60] and server.asked == 2, "once where the file is and once for the file"
