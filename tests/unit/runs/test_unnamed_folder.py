"""Folders of runs for which the user named none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unalike.errors import Interrupted, RunError
from unalike.runs.filenames import RUNS_FOLDER, STATUS_FILE
from unalike.runs.unnamed_folder import keep_or_remove, make_folder, named_for

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_two_folders_of_one_second_differ() -> None:
    first, second = make_folder("train"), make_folder("train")
    assert first != second and first.is_dir() and second.is_dir() and first.parent == Path(RUNS_FOLDER)


def test_a_folder_that_the_user_named_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="x"), named_for("train", tmp_path / "mine") as folder:
        raise RunError("x")
    assert folder == tmp_path / "mine" and not Path(RUNS_FOLDER).exists()


def test_the_last_run_is_linked_as_latest() -> None:
    with named_for("train", None) as folder:
        (folder / "result").touch()
    assert (Path(RUNS_FOLDER) / "latest").resolve() == folder.resolve()


@pytest.mark.parametrize("written", [False, True])
def test_the_folder_of_a_call_that_failed_at_once_is_removed(written: bool) -> None:
    def fail() -> None:
        with named_for("train", None) as folder:
            if written:
                (folder / STATUS_FILE).write_text(json.dumps({"status": "FAILURE"}) + "\n")
            raise RunError("no images")

    with pytest.raises(RunError, match="no images"):
        fail()
    assert not Path(RUNS_FOLDER).exists()


@pytest.mark.parametrize("failure", [Interrupted(2, "stopped"), RunError("broken"), None])
def test_what_was_written_is_kept(failure: Exception | None) -> None:
    folder = make_folder("train")
    (folder / "checkpoint.pth").touch()
    keep_or_remove(folder, failure)
    assert (folder / "checkpoint.pth").exists() and (Path(RUNS_FOLDER) / "latest").exists()
