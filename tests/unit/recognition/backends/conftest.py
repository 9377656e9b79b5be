"""A law of a gallery that is skipped is a failure."""

from tests.support.laws import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]
