"""What several test files share."""

import os
import signal
from collections.abc import Iterator

import pytest

from harness.commands import wait_passively

wait_passively()  # here and in every process that a test starts; so no import above may load torch
if "PYTEST_XDIST_WORKER" in os.environ:  # a core each: two processes of two threads take twice as long as of one
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    chosen = str(config.getoption("markexpr"))
    if "cuda" in chosen and "not cuda" not in chosen:
        # A step that falls back from its CUDA graph fails; torch._inductor reads it.
        os.environ.setdefault("TORCHINDUCTOR_CUDAGRAPH_OR_ERROR", "1")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a run begun in the background; children inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # one begun with nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not item.get_closest_marker("cuda"):
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For thousands of tiny tensors: waking a second thread for each costs more than it saves."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
