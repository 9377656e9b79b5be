"""Purges remove what they should, everywhere, and nothing that another reference or decision holds."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.postgres import new_database
from tests.support.reference_galleries import make_gallery
from unalike.errors import DataError, NoSuchImage
from unalike.recognition.backends.address import open_gallery, replace_gallery, save_gallery
from unalike.recognition.gallery import Gallery
from unalike.serve.store import DecisionFilter, DecisionRecord, Feedback, New, Store
from unalike.serve.store import purge as module
from unalike.serve.store.purge import PurgeReport, Retention, purge_class, purge_expired, purge_image
from unalike.serve.store.records import utc_now
from unalike.serve.store.references import reference_name, references_of


def age(store: Store, sha: str, days: float) -> None:
    """As if an image had been given so long ago."""
    path = Path(store.images.address) / sha[:2] / sha
    moment = (utc_now() - timedelta(days=days)).timestamp()
    os.utime(path, (moment, moment))


def decision(store: Store, days: float = 0, **values: object) -> DecisionRecord:
    values = {"kind": "identify", "resource": "shop", "decision": "label"} | values
    record = DecisionRecord(time=utc_now() - timedelta(days=days), **values)  # type: ignore[arg-type]
    store.decisions.add([record])
    return record


def ids(store: Store, selection: DecisionFilter | None = None) -> set[str]:
    return {record.id for record in store.decisions.find(selection, limit=1000).items}


def test_images_past_their_retention_go_and_those_of_references_stay(store: Store) -> None:
    old, referenced, new = (store.images.put(content) for content in (b"old", b"referenced", b"new"))
    for sha in (old, referenced):
        age(store, sha, 31)
    gallery = make_gallery(("pear", reference_name(referenced, "t")), ("pear", "photos/a.jpg"))
    record = decision(store, 31, image=old)
    assert purge_expired(store, Retention(), [gallery]) == PurgeReport(images=1)
    assert sorted(store.images.hashes()) == sorted([referenced, new])
    assert ids(store) == {record.id}  # the decision stays, without its picture
    assert purge_expired(store, Retention(images=None), []) == PurgeReport()
    assert purge_expired(store, Retention(), []) == PurgeReport(images=1)  # no reference names it any more


def test_decisions_past_their_retention_go_with_their_feedback(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 2)
    for _ in range(5):
        store.decisions.give_feedback(decision(store, 400).id, Feedback("confirmed"))
    young = decision(store, 300)
    assert purge_expired(store, Retention(decisions=timedelta(days=365)), []).decisions == 5
    assert ids(store) == {young.id}
    with store.database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM feedback").scalar() == 0


def test_answers_are_kept_for_a_day(store: Store) -> None:
    for key in ("a", "b"):
        claim = store.idempotency.claim(key, "ann", "d" * 64)
        assert isinstance(claim, New) and store.idempotency.complete(claim, 200, "{}")
    assert purge_expired(store, Retention(), []).answers == 0
    assert purge_expired(store, Retention(), [], now=utc_now() + timedelta(hours=25)).answers == 2


def test_one_image_goes_everywhere(store: Store) -> None:
    sha, other = store.images.put(b"\xff\xd8one"), store.images.put(b"other")
    shop = make_gallery(("pear", reference_name(sha, "1")), ("apple", reference_name(other, "2")), ("pear", "a.jpg"))
    line = make_gallery(("x", reference_name(sha, "3")))
    store.decisions.give_feedback(decision(store, image=sha).id, Feedback("unusable"))
    kept = decision(store, image=other)
    claim = store.idempotency.claim("key", "ann", "d" * 64)
    assert isinstance(claim, New)
    store.idempotency.complete(claim, 201, f'{{"name": "{reference_name(sha, "1")}"}}')
    report = purge_image(store, sha, {"shop": shop, "line": line}, actor="ann", request_id="r1")
    assert report == PurgeReport(images=1, references=2, decisions=1, answers=1)
    assert [one.id for one in references_of(shop)] == [1, 2] and not len(line)
    assert not store.images.exists(sha) and store.images.exists(other) and ids(store) == {kept.id}
    (entry,) = store.audit.find(action="purge.image").items
    assert (entry.actor, entry.outcome, entry.request_id) == ("ann", "done", "r1")
    assert entry.details == {"image": sha, "images": 1, "references": 2, "decisions": 1, "answers": 1}
    assert purge_image(store, sha, {"shop": shop, "line": line}) == PurgeReport()
    with pytest.raises(NoSuchImage):
        purge_image(store, "../../x", {})


def test_one_class_goes_everywhere(store: Store) -> None:
    own, shared, asked, apple = (store.images.put(content) for content in (b"own", b"shared", b"asked", b"apple"))
    shop = make_gallery(
        ("pear", reference_name(own, "1")), ("pear", reference_name(shared, "2")), ("pear", "a.jpg"),
        ("apple", reference_name(apple, "3")),
    )  # fmt: skip
    line = make_gallery(("other", reference_name(shared, "4")))
    decision(store, label="pear", image=asked)
    decision(store, label="apple", nearest="pear")
    decision(store, label="apple", result={"neighbors": [{"label": "apple"}, {"label": "pear"}]})
    store.decisions.give_feedback(decision(store, label="apple").id, Feedback("wrong", "pear"))
    stay = [
        decision(store, label="apple", image=apple, result={"neighbors": [{"label": "Pear"}, {"label": "pear tree"}]}),
        decision(store, label="pear", resource="line"),
        decision(store),
    ]
    report = purge_class(store, "shop", "pear", {"shop": shop, "line": line}, actor="ann")
    assert report == PurgeReport(images=2, references=3, decisions=4)
    assert ids(store) == {record.id for record in stay}
    assert sorted(store.images.hashes()) == sorted([shared, apple])
    assert shop.counts() == {"apple": 1} and line.counts() == {"other": 1}
    with pytest.raises(DataError, match="no class 'pear' in gallery 'shop'"):
        purge_class(store, "shop", "pear", {"shop": shop, "line": line})
    assert [entry.outcome for entry in store.audit.find(action="purge.class").items] == ["failed", "done"]


@pytest.mark.parametrize("label", ["pear", "Ä%_\\\"'", "{}", "a b"])
def test_an_image_that_another_decision_holds_stays(store: Store, label: str) -> None:
    sha = store.images.put(b"content")
    gallery = make_gallery((label, reference_name(sha, "1")))
    decision(store, label="apple", result={"label": label}, image=sha)
    other = decision(store, label=None, image=sha)
    assert purge_class(store, "shop", label, {"shop": gallery}) == PurgeReport(references=1, decisions=1)
    assert store.images.exists(sha) and ids(store) == {other.id}


def test_a_gallery_that_is_not_there(sqlite_store: Store) -> None:
    with pytest.raises(DataError, match="no gallery 'shp'; did you mean 'shop'"):
        purge_class(sqlite_store, "shp", "pear", {"shop": make_gallery()})


def test_an_interrupted_purge_is_completed_by_another(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = store.images.put(b"content")
    gallery = make_gallery(("pear", reference_name(sha, "1")))
    decision(store, label="pear", image=sha)

    def fail(*_: object) -> int:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(module, "_delete", fail)
        with pytest.raises(ZeroDivisionError):
            purge_class(store, "shop", "pear", {"shop": gallery})
    assert purge_class(store, "shop", "pear", {"shop": gallery}) == PurgeReport(references=1, decisions=1)
    assert not ids(store) and not len(gallery) and not store.images.exists(sha)


def test_a_decision_that_was_written_while_the_references_were_removed_goes_too(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = make_gallery(("pear", reference_name(store.images.put(b"content"), "1")))
    remove = module._remove_references

    def remove_slowly(*arguments: Any) -> int:
        decision(store, label="pear")  # its search saw the class
        return remove(*arguments)

    monkeypatch.setattr(module, "_remove_references", remove_slowly)
    assert purge_class(store, "shop", "pear", {"shop": gallery}) == PurgeReport(images=1, references=1, decisions=1)
    assert not ids(store)


def test_nothing_of_a_purged_decision_stays_in_the_files(sqlite_store: Store) -> None:
    decision(sqlite_store, label="secret-class", file="secret-file.jpg", result={"label": "secret-class"})
    decision(sqlite_store, label="apple")
    purge_class(sqlite_store, "shop", "secret-class", {"shop": make_gallery()})
    sqlite_store.decisions.count()
    content = b"".join(path.read_bytes() for path in sqlite_store.folder.glob("store.db*"))
    assert content.count(b"secret-class") == 1  # in the audit log, which says what was purged
    assert b"apple" in content and b"secret-file" not in content


@pytest.mark.parametrize("way", ["image", "retention"])
def test_the_name_of_a_file_goes_with_its_decision(sqlite_store: Store, way: str) -> None:
    sha = sqlite_store.images.put(b"picture")
    decision(sqlite_store, 40, image=sha, file="secret-file.jpg")
    decision(sqlite_store, file="other.jpg")
    if way == "image":
        purge_image(sqlite_store, sha, {})
    else:
        purge_expired(sqlite_store, Retention(decisions=timedelta(days=30)), [])
    assert [record.file for record in sqlite_store.decisions.find().items] == ["other.jpg"]
    module._empty_journal(sqlite_store.database)
    content = b"".join(path.read_bytes() for path in sqlite_store.folder.glob("store.db*"))
    assert b"other.jpg" in content and b"secret-file" not in content


def test_removed_vectors_leave_the_file_of_a_gallery(tmp_path: Path) -> None:
    gallery = Gallery(8)
    gallery.enrol(np.eye(8, dtype=np.float32)[:3], ["pear", "pear", "apple"], ["pear-1.jpg", "pear-2.jpg", "apple.jpg"])
    path = gallery.save(tmp_path / "shop.gallery")
    path.chmod(0o640)
    with Gallery.edit(path) as open_gallery:
        open_gallery.remove(names=["pear-1.jpg"])
    assert b"pear-1.jpg" in path.read_bytes()
    module._rewrite_file(path)
    assert b"pear-1.jpg" not in path.read_bytes() and path.stat().st_mode & 0o777 == 0o640
    gallery.reload()
    assert gallery.names == ("pear-2.jpg", "apple.jpg") and os.listdir(tmp_path) == ["shop.gallery"]


def test_a_class_of_a_gallery_in_a_database(sqlite_store: Store) -> None:
    address = new_database()
    sha = sqlite_store.images.put(b"content")
    source = make_gallery(("pear", reference_name(sha, "1")), ("apple", "a.jpg"))
    gallery = save_gallery(source, f"{address}{'&' if '?' in address else '?'}gallery=shop")
    assert purge_class(sqlite_store, "shop", "pear", {"shop": gallery}) == PurgeReport(images=1, references=1)
    gallery.refresh()
    assert gallery.counts() == {"apple": 1}
    gallery.close()


def test_a_former_gallery_in_a_database_keeps_nothing_of_a_purged_class(sqlite_store: Store) -> None:
    address = f"{new_database()}&gallery=shop"
    memory = make_gallery(("pear", "a.jpg"), ("apple", "b.jpg"))
    former = save_gallery(memory, address)
    with former.view() as view:
        pass
    assert replace_gallery(address, memory, view)
    purge_class(sqlite_store, "shop", "pear", {"shop": open_gallery(address)})
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(address.partition("&gallery=")[0]) as connection:
        assert connection.execute("SELECT count(*) FROM unalike_galleries").fetchone() == (1,)


@pytest.mark.parametrize("what", ["image", "class"])
def test_a_purge_leaves_nothing_with_what_learning_keeps(store: Store, what: str) -> None:
    from unalike.serve.store.learning import COMPARE, TRAIN

    sha = store.images.put(b"seen")
    decision(store, image=sha, label="pear")
    files = [
        store.folder / name
        for name in (
            "models/vectors/x.gallery",
            "tasks/t/run/report.html",
            "tasks/t/images/a.png",
            "uploads/u.zip",
        )
    ]
    model = store.folder / "models/m/model.onnx"
    for file in (*files, model):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"picture")
    tasks = [store.tasks.add(kind, "shop", {}) for kind in (TRAIN, COMPARE)]
    assert [store.tasks.claim((kind,)) is not None for kind in (TRAIN, COMPARE)] == [True, True]
    if what == "image":
        purge_image(store, sha, {})
    else:
        purge_class(store, "shop", "pear", {"shop": make_gallery(("pear", reference_name(sha, "t")), ("oak", "o.jpg"))})
    assert not any(file.exists() for file in files) and model.exists()
    states = [store.tasks.get(task.id).state for task in tasks]  # type: ignore[union-attr]
    assert states == ["canceled", "running"]


def test_a_picture_that_an_answer_kept_again_meanwhile_goes_too(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = sqlite_store.images.put(b"asked again")
    decision(sqlite_store, image=sha)
    former = module._delete

    def answer_first(database: Any, table: Any, condition: Any) -> int:
        if table.name == "decisions":
            sqlite_store.images.put(b"asked again")
        return former(database, table, condition)

    monkeypatch.setattr(module, "_delete", answer_first)
    purge_image(sqlite_store, sha, {})
    assert not ids(sqlite_store) and not sqlite_store.images.exists(sha)


def test_a_picture_of_an_answer_that_named_the_class_meanwhile_goes_too(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = make_gallery(("pear", reference_name(sqlite_store.images.put(b"reference"), "t")), ("apple", "a.jpg"))
    former = module._remove_references
    shared = sqlite_store.images.put(b"shared")
    decision(sqlite_store, label="apple", image=shared)

    def answer_first(*arguments: Any) -> int:
        for content in (b"in flight", b"shared"):
            decision(sqlite_store, label="pear", image=sqlite_store.images.put(content))
        return former(*arguments)

    monkeypatch.setattr(module, "_remove_references", answer_first)
    report = purge_class(sqlite_store, "shop", "pear", {"shop": gallery})
    assert (report.images, report.decisions, report.references) == (2, 2, 1)
    assert set(sqlite_store.images.hashes()) == {shared}, "which another decision holds"
