"""What all tests share."""

import os
import signal

import pytest
from chromium import browser  # noqa: F401  # a fixture

EXPECTED_SKIPS = ("needs a CUDA device", "EFFORTBENCH_DATA is unset", "no axe-core here")
"""With EFFORTBENCH_STRICT_SKIPS=1, as .ci/run sets it, a skip whose reason begins otherwise fails the session."""


def pytest_configure() -> None:
    """What a shell runs in its background ignores Ctrl-C, and so would all that tests start there and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if os.environ.get("EFFORTBENCH_STRICT_SKIPS") != "1":
        return
    unexpected = []
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(EXPECTED_SKIPS):
            unexpected.append(f"{report.nodeid}: {reason}")
    if unexpected:
        terminalreporter.section("unexpected skips", red=True)
        terminalreporter.write_line("\n".join(unexpected))
        terminalreporter._session.exitstatus = pytest.ExitCode.TESTS_FAILED
