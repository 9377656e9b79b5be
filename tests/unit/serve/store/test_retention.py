"""The retention runs by itself, spares references of all registered galleries, and removes nothing when it cannot know."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.reference_galleries import make_gallery
from unalike.errors import DataError
from unalike.serve.store import Store
from unalike.serve.store.purge import PurgeReport, Retention
from unalike.serve.store.records import utc_now
from unalike.serve.store.references import reference_name
from unalike.serve.store.retention import RetentionThread


def old_images(store: Store) -> tuple[str, str, str]:
    hashes = tuple(store.images.put(content) for content in (b"own", b"other", b"decision"))
    moment = (utc_now() - timedelta(days=31)).timestamp()
    for sha in hashes:
        os.utime(Path(store.images.address) / sha[:2] / sha, (moment, moment))
    return hashes  # type: ignore[return-value]


def test_references_of_other_services_stay(sqlite_store: Store, tmp_path: Path) -> None:
    own, other, decision = old_images(sqlite_store)
    gallery = make_gallery(("pear", reference_name(own, "1")))
    path = make_gallery(("pear", reference_name(other, "1"))).save(tmp_path / "other.gallery")
    sqlite_store.galleries.register({"other": str(path)})
    thread = RetentionThread(sqlite_store, Retention(), lambda: {"shop": gallery})
    assert thread.run_once() == PurgeReport(images=1)
    assert set(sqlite_store.images.hashes()) == {own, other} and not sqlite_store.images.exists(decision)


def test_nothing_is_removed_while_a_gallery_cannot_be_opened(sqlite_store: Store, tmp_path: Path) -> None:
    old_images(sqlite_store)
    sqlite_store.galleries.register({"other": str(tmp_path / "unmounted" / "other.gallery")})
    with pytest.raises(DataError, match=r"other\.gallery"):
        RetentionThread(sqlite_store, Retention(), dict).run_once()
    assert len(list(sqlite_store.images.hashes())) == 3


def test_it_runs_by_itself_goes_on_after_a_failure_and_ends(
    sqlite_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old_images(sqlite_store)
    sqlite_store.galleries.register({"other": str(tmp_path / "other.gallery")})
    thread = RetentionThread(sqlite_store, Retention(), dict, interval_s=0.05)
    thread.start()
    message = ""
    while "nothing is removed that is past its retention" not in message:
        time.sleep(0.01)
        message += capsys.readouterr().err
    sqlite_store.galleries.forget("other")
    while list(sqlite_store.images.hashes()):
        time.sleep(0.01)
    thread.stop()
    thread._thread.join(30)
    assert not thread._thread.is_alive()
