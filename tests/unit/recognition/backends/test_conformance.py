"""The laws of a gallery, kept by its file."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.laws import ALL_LAWS
from unalike.recognition import backends
from unalike.recognition.backends import conformance
from unalike.recognition.backends.conformance import LAWS
from unalike.recognition.gallery import Gallery
from unalike.recognition.snapshot_view import SnapshotView


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_file_keeps_the_law(law: Callable[[str], None], tmp_path: Path) -> None:
    law(str(tmp_path / "shop.gallery"))


def test_a_law_finds_a_backend_that_breaks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fault is found by the law that speaks of it."""
    search = SnapshotView._search

    def search_backwards(self: SnapshotView, *arguments: Any) -> tuple[np.ndarray, np.ndarray]:
        scores, rows = search(self, *arguments)
        return scores[:, ::-1], rows[:, ::-1]

    def broken(law: str, address: str) -> None:
        with pytest.raises(AssertionError):
            getattr(conformance, law)(str(tmp_path / address))

    with monkeypatch.context() as patch:
        patch.setattr(SnapshotView, "_search", search_backwards)
        broken("search_and_lists_equal_a_plain_list", "a")
        broken("equal_scores_are_ordered_by_id", "b")
    with monkeypatch.context() as patch:
        patch.setattr(Gallery, "refresh", lambda self: False)
        broken("refresh_takes_over_changes_of_others", "c")
    with monkeypatch.context() as patch:
        patch.setattr(SnapshotView, "stale", "")
        broken("a_calibration_is_kept_and_becomes_stale", "d")


def test_every_backend_is_tried_by_the_laws_of_all_modules() -> None:
    modules = [import_module(f"{backends.__name__}.{module.name}") for module in pkgutil.iter_modules(backends.__path__)
               if module.name.startswith("conformance")]  # fmt: skip
    laws = [law for module in modules for name, value in vars(module).items() if name.endswith("LAWS") for law in value]
    assert set(laws) == set(ALL_LAWS) and len(ALL_LAWS) == len(set(ALL_LAWS))


def test_a_law_that_is_skipped_is_a_failure(tmp_path: Path) -> None:
    """Where a backend cannot be tried, by a fixture, in the law or as a fault that is known; other tests may be skipped."""
    (tmp_path / "conftest.py").write_text("from tests.support.laws import pytest_runtest_makereport")
    (tmp_path / "test_laws.py").write_text("""
import pytest

@pytest.fixture
def address():
    pytest.importorskip("a_server_that_is_not_installed")

def skip():
    pytest.skip("no server")

by_name = pytest.mark.parametrize("law", [skip])

@by_name
def test_fixture(law, address): law()

@by_name
def test_law(law): law()

@by_name
@pytest.mark.xfail
def test_known_fault(law): assert False

@by_name
@pytest.mark.skip
def test_mark(law): law()

def test_other(): skip()
""")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1 and "2 failed, 1 skipped, 2 errors" in done.stdout, done.stdout
    assert "a law was not tried: Skipped: could not import 'a_server_that_is_not_installed'" in done.stdout
