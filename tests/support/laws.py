"""The laws of a gallery for the tests of each backend: all of them, and a law that is skipped is a failure."""

from __future__ import annotations

from collections.abc import Callable, Generator

import pytest

from unalike.recognition.backends.conformance import LAWS
from unalike.recognition.backends.conformance_copies import COPY_LAWS
from unalike.recognition.backends.conformance_filters import FILTER_LAWS
from unalike.recognition.backends.conformance_networks import NETWORK_LAWS
from unalike.recognition.backends.conformance_processes import PROCESS_LAWS

ALL_LAWS: tuple[Callable[[str], None], ...] = (*LAWS, *PROCESS_LAWS, *NETWORK_LAWS, *COPY_LAWS, *FILTER_LAWS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a test with a parameter ``law`` fail where it would be skipped, since its backend is not there to be tested."""
    report = yield
    if report.skipped and "law" in getattr(getattr(item, "callspec", None), "params", ()):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"a law was not tried: {reason}"
    return report
