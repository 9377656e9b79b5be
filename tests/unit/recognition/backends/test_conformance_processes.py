"""The laws of several processes, kept by the file of a gallery."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from unalike.recognition.backends import conformance_processes
from unalike.recognition.backends.conformance_processes import PROCESS_LAWS
from unalike.recognition.gallery import Gallery


@pytest.mark.parametrize("law", PROCESS_LAWS, ids=lambda law: law.__name__)
def test_a_file_keeps_the_law(law: Callable[[str], None], tmp_path: Path) -> None:
    law(str(tmp_path / "shop.gallery"))


def test_the_law_on_compaction_writes_a_file_anew_several_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, generations = tmp_path / "shop.gallery", set()
    refresh = Gallery.refresh

    def watched(self: Gallery) -> bool:
        generations.add(path.stat().st_ino)
        return refresh(self)

    monkeypatch.setattr(Gallery, "refresh", watched)
    monkeypatch.setattr(conformance_processes, "WRITERS", 1)
    conformance_processes.changes_under_load_survive_compaction(str(path))
    assert len(generations) >= 2, "the reader worked beside a file that was written anew"


def test_a_writer_that_acknowledges_too_early_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gallery whose changes never reach the file breaks the laws."""
    monkeypatch.setattr(Gallery, "refresh", lambda self: False)
    monkeypatch.setattr(conformance_processes, "WRITERS", 1)
    with pytest.raises(AssertionError, match="does not see"):
        conformance_processes.processes_lose_nothing(str(tmp_path / "shop.gallery"))
