"""A browser for tests of pages: marker ``browser``, started once, with a drawn camera. ``make test-browser`` runs them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chromium import find_chromium

# The camera is a drawing of the browser's own.
FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


# Files that take longest begin first, so that no process waits for one of them in the end.
LONGEST = [
    "test_workbench_train.py",
    "test_workbench_review.py",
    "test_workbench_classes.py",
    "test_workbench_recognize.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder has the marker."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """A Chromium; without one the tests are skipped, or fail where BROWSER_TESTS is ``required``."""
    path = find_chromium()
    if path is None:
        message = "no Chromium on the PATH and none in CHROMIUM"
        if os.environ.get("BROWSER_TESTS") == "required":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()
