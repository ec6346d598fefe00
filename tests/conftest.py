"""What several test files share."""

import os
import signal
from collections.abc import Iterator

import pytest

from harness.commands import wait_passively
from tests.robustness import FILE, Trials, machine, skipped

wait_passively()  # here and in every process that a test starts; so no import above may load torch

TRIALS = pytest.StashKey[Trials]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--report", action="store_true", help="write what was tried into results/robustness.md, if every test passes"
    )


def pytest_configure(config: pytest.Config) -> None:
    chosen = str(config.getoption("markexpr"))
    if "cuda" in chosen and "not cuda" not in chosen:
        # A step that falls back from its CUDA graph fails; torch._inductor reads it.
        os.environ.setdefault("TORCHINDUCTOR_CUDAGRAPH_OR_ERROR", "1")
    config.stash[TRIALS] = Trials()
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    if not config.getoption("--report"):
        return
    trials = config.stash[TRIALS]
    if exitstatus or not trials.found:
        terminalreporter.write_line(f"{FILE} is left as it was: {'a test failed' if exitstatus else 'nothing tried'}")
        return
    passed = len(terminalreporter.stats.get("passed", ()))
    reasons = [report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", ())]
    FILE.write_text(trials.text([f"{passed:,} tests passed. {machine()}.", skipped(reasons)]))
    terminalreporter.write_line(f"wrote {FILE}")


@pytest.fixture
def tried(request: pytest.FixtureRequest) -> Trials:
    """For results/robustness.md: tried("title", {"kind": cases}, {"planted defect": cases that found it})."""
    return request.config.stash[TRIALS]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For thousands of tiny tensors: waking a second thread for each costs more than it saves."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
