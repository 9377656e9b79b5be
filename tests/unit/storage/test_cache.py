"""Where the cache is when nobody says."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from unalike.errors import DataError
from unalike.storage import cache


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The folder of temporary files; UNALIKE_CACHE is not set."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.delenv("UNALIKE_CACHE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    cache._default_cache_dir.cache_clear()
    yield folder
    cache._default_cache_dir.cache_clear()


def test_the_cache_is_below_a_home_folder_that_can_be_written(temporary, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.default_cache_dir() == tmp_path / ".cache" / "unalike"


@pytest.mark.parametrize("home", [Path("/proc"), None])
def test_without_a_home_folder_the_cache_is_temporary_and_named(temporary, monkeypatch, capsys, home):
    monkeypatch.setattr(cache, "home_folder", lambda: home)
    folder = cache.default_cache_dir()
    assert folder.parent == temporary
    assert folder.stat().st_mode & 0o777 == 0o700
    assert str(folder) in capsys.readouterr().err
    assert cache.default_cache_dir() == folder


def test_a_folder_of_somebody_else_is_no_cache(temporary, monkeypatch):
    monkeypatch.setattr(cache, "home_folder", lambda: None)
    (temporary / f"unalike-cache-{os.getuid()}").symlink_to(temporary.parent)
    with pytest.raises(DataError, match="set UNALIKE_CACHE="):
        cache.default_cache_dir()


def test_a_tilde_that_no_shell_has_expanded_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("UNALIKE_CACHE", "~/a")  # as in the ENV of a container or the unit of a service
    assert cache.default_cache_dir() == tmp_path / "a"


@pytest.mark.parametrize("name", ["UNALIKE_CACHE", "HF_HOME"])
def test_a_failure_of_the_file_system_names_the_cache_and_its_variable(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, str(tmp_path))
    message = f"cache .*, which {name} names, cannot be written .*, or set {name} to"
    with pytest.raises(DataError, match=message), cache.cache_failures(tmp_path, name):
        (tmp_path / "none" / "file").write_text("x")
