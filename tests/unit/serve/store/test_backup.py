"""A backup holds one state of everything, also while others write; restoring gives the same store again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.postgres import new_database
from unalike.errors import StoreError
from unalike.recognition.backends.address import save_gallery
from unalike.recognition.gallery import Gallery
from unalike.serve.store import DecisionRecord, Feedback, Store, open_store
from unalike.serve.store import backup as module
from unalike.serve.store.backup import backup, restore
from unalike.serve.store.references import reference_name

# Puts an image, then enrolls it, then writes a decision about it, as the service does.
SERVICE = """
import os, sys
from pathlib import Path
import numpy as np
from unalike.recognition.gallery import Gallery
from unalike.serve.store import DecisionRecord, open_store
from unalike.serve.store.references import reference_name
store = open_store(sys.argv[1] or None, sys.argv[2])
number = 0
while not Path(sys.argv[4]).exists():
    sha = store.images.put(f"image {number}".encode())
    with Gallery.edit(sys.argv[3]) as gallery:
        gallery.enrol(np.eye(8)[[number % 8]], [f"class{number}"], [reference_name(sha, str(number))])
    store.decisions.add([DecisionRecord("identify", "shop", "label", label=f"class{number}", image=sha)])
    if number == 0:
        os.write(1, b"ready\\n")
    number += 1
"""


def gallery_file(folder: Path) -> Path:
    gallery = Gallery(8)
    gallery.enrol(np.eye(8)[:2], ["apple", "pear"], ["a.jpg", "b.jpg"])
    return gallery.save(folder / "shop.gallery")


def fill(store: Store) -> DecisionRecord:
    sha = store.images.put(b"content")
    record = DecisionRecord("identify", "shop", "label", label="pear\0", image=sha, result={"label": "pear"})
    store.decisions.add([record])
    store.decisions.give_feedback(record.id, Feedback("wrong", "apple"))
    store.keys.add("till", "view")
    store.audit.begin("ann", "references.add", "shop")
    store.idempotency.claim("key", "ann", "d" * 64)
    return record


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_restored_store_is_the_same(store: Store, tmp_path: Path, kind: str) -> None:
    record = fill(store)
    secret = store.keys.add("line", "admin")[1]
    store.galleries.register({"shop": str(gallery_file(tmp_path))})
    report = backup(store, tmp_path / "backup")
    assert list(report.galleries) == ["shop"]
    assert report.images == 1 and report.rows["decisions"] == 1 and report.rows["keys"] == 2
    before = sorted(path.name for path in (tmp_path / "backup").iterdir())
    assert before == ["galleries", "images", "manifest.json", "store.db"]
    url = new_database() if kind == "postgresql" else None
    again = restore(tmp_path / "backup", tmp_path / "new", url)
    assert again.rows == report.rows and again.images == 1
    with open_store(url, tmp_path / "new") as copy:
        assert copy.decisions.find() == store.decisions.find()
        assert copy.audit.find() == store.audit.find() and copy.keys.list() == store.keys.list()
        assert copy.keys.authenticate(secret) is not None
        assert copy.images.get(record.image or "") == b"content"
        assert Gallery.load(copy.galleries.list()["shop"]).labels == ("apple", "pear")
    assert sorted(path.name for path in (tmp_path / "backup").iterdir()) == before  # as it was
    with pytest.raises(StoreError, match="exists|holds a store"):
        restore(tmp_path / "backup", tmp_path / "new", url)


def test_a_backup_while_a_service_writes_holds_all_that_it_names(store: Store, tmp_path: Path) -> None:
    url = "" if store.database.path else store.database._url.render_as_string(hide_password=False)
    gallery, stop = gallery_file(tmp_path), tmp_path / "stop"
    command = [sys.executable, "-c", SERVICE, url, str(store.folder), str(gallery), str(stop)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as service:
        assert service.stdout is not None and service.stdout.readline() == b"ready\n"
        reports = [backup(store, tmp_path / f"backup{number}", {"shop": gallery}) for number in range(2)]
        stop.touch()
    assert service.returncode == 0
    for number, report in enumerate(reports):
        restored = restore(report.folder, tmp_path / f"new{number}")
        copy = Gallery.load(restored.galleries["shop"], verify=True)
        with open_store(None, tmp_path / f"new{number}") as new_store:
            records = new_store.decisions.find(limit=1000).items
            assert len(records) == report.rows["decisions"] > 0
            assert {record.label for record in records} <= set(
                copy.labels
            )  # the gallery is no older than the decisions
            names = [name for name in copy.names if name.startswith("sha256:")]
            images = {record.image for record in records} | {name[7:71] for name in names}
            assert all(new_store.images.exists(sha) for sha in images if sha)
            assert reference_name(records[-1].image or "", "0") in names


def test_a_backup_is_complete_or_not_there(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(sqlite_store)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_copy_images", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            backup(sqlite_store, tmp_path / "backup")
    assert not (tmp_path / "backup").exists() and not [name for name in os.listdir(tmp_path) if "partial" in name]
    (tmp_path / "backup").mkdir()
    backup(sqlite_store, tmp_path / "backup", with_images=False)
    assert not (tmp_path / "backup" / "images").exists()
    with pytest.raises(StoreError, match="is not empty; expected a new or an empty folder"):
        backup(sqlite_store, tmp_path / "backup")


def test_a_gallery_that_is_gone_is_named(sqlite_store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no\.gallery cannot be read"):
        backup(sqlite_store, tmp_path / "backup", {"shop": tmp_path / "no.gallery"})


def test_an_interrupted_restoring_can_be_repeated(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(sqlite_store)
    backup(sqlite_store, tmp_path / "backup", {"shop": gallery_file(tmp_path)})
    with monkeypatch.context() as patch:
        patch.setattr(module, "_copy_images", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            restore(tmp_path / "backup", tmp_path / "new")
    assert restore(tmp_path / "backup", tmp_path / "new").rows["decisions"] == 1


@pytest.mark.parametrize("name", ["store.db", "galleries/shop.gallery", "manifest.json", "images"])
def test_damage_is_found(sqlite_store: Store, tmp_path: Path, name: str) -> None:
    record = fill(sqlite_store)
    backup(sqlite_store, tmp_path / "backup", {"shop": gallery_file(tmp_path)})
    path = tmp_path / "backup" / name
    path = path / (record.image or "")[:2] / (record.image or "") if name == "images" else path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged|cannot be read"):
        restore(tmp_path / "backup", tmp_path / "new")
    assert not (tmp_path / "new" / "store.db").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other"},
        {"format_version": 99},
        {"galleries": {"shop": "../../x"}},
        {"sha256": {"../store.db/..": ""}},
    ],
)
def test_a_manifest_of_another_kind_is_refused(sqlite_store: Store, tmp_path: Path, changes: dict[str, object]) -> None:
    backup(sqlite_store, tmp_path / "backup")
    path = tmp_path / "backup" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(StoreError, match="no manifest|has version 99|damaged|cannot be read"):
        restore(tmp_path / "backup", tmp_path / "new")
    with pytest.raises(StoreError, match="no such file"):
        restore(tmp_path, tmp_path / "new")


def test_a_gallery_in_a_database_becomes_a_file(sqlite_store: Store, tmp_path: Path) -> None:
    address = new_database()
    address += f"{'&' if '?' in address else '?'}gallery=shop"
    source = Gallery.load(gallery_file(tmp_path))
    source.remove(names=["a.jpg"])
    gallery = save_gallery(source, address)
    gallery.close()
    report = backup(sqlite_store, tmp_path / "backup", {"shop": address})
    copy = Gallery.load(report.galleries["shop"], verify=True)
    assert copy.labels == ("pear",) and copy.names == ("b.jpg",) and [entry.id for entry in copy.entries()] == [1]
