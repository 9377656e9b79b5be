"""Good images of a service: decisions that people called good, the newest that was judged of each picture, with kept pictures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.serving import store_in
from unalike.serve import good_images as module
from unalike.serve.good_images import GoodImages, collect_good_images
from unalike.serve.store import DecisionRecord, Feedback, Store
from unalike.serve.store.records import new_id

START = datetime(2026, 1, 1, tzinfo=UTC)


def add(
    store: Store, decision: str, verdict: str | None, image: str | None = "", minute: int = 0, *, resource: str = "part",
    kind: str = "inspect", file: str | None = None,
) -> str | None:  # fmt: skip
    """A decision that somebody judged; the hash of its picture, by default one of its own."""
    time = START + timedelta(minutes=minute)
    sha = store.images.put(new_id().encode()) if image == "" else image
    record = DecisionRecord(kind, resource, decision, image=sha, file=file, time=time, id=new_id(time))
    store.decisions.add([record])
    if verdict is not None:
        store.decisions.give_feedback(record.id, Feedback(verdict))
    return sha


def hashes(good: GoodImages) -> list[str]:
    return [entry["sha256"] for entry in good.images]


def test_good_is_what_people_called_good(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        confirmed = add(store, "good", "confirmed", minute=1, file="a.png")
        mistaken = add(store, "defective", "wrong", minute=2)
        for decision, verdict in (("good", None), ("good", "wrong"), ("defective", "confirmed"), ("good", "unusable"),
                                  ("undecided", "confirmed"), ("good", "withdrawn")):  # fmt: skip
            add(store, decision, verdict)
        add(store, "good", "confirmed", resource="other")
        add(store, "good", "confirmed", kind="verify")
        good = collect_good_images(store, "part")
        assert hashes(good) == [mistaken, confirmed] and good.not_kept == 0
        assert good.images[1]["name"] == "a.png" and good.images[0]["name"].startswith("decision ")


def test_of_a_picture_the_newest_judged_decision_counts(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        bad = add(store, "good", "confirmed", minute=1)
        add(store, "defective", "confirmed", bad, minute=2)
        good = add(store, "defective", "confirmed", minute=3)
        add(store, "good", "confirmed", good, minute=4)
        add(store, "defective", None, good, minute=5)
        assert hashes(collect_good_images(store, "part")) == [good]


def test_pictures_that_are_not_kept_are_counted(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        add(store, "good", "confirmed", None)
        add(store, "defective", "confirmed", None)
        gone = add(store, "good", "confirmed")
        assert gone is not None and store.images.delete(gone)
        kept = add(store, "good", "confirmed")
        good = collect_good_images(store, "part")
        assert hashes(good) == [kept] and good.not_kept == 2


def test_time_chooses_decisions_in_all_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAGE", 2)
    with store_in(tmp_path) as store:
        images = [add(store, "good", "confirmed", minute=minute) for minute in range(7)]
        assert hashes(collect_good_images(store, "part")) == images[::-1]
        since, until = START + timedelta(minutes=2), START + timedelta(minutes=5)
        assert hashes(collect_good_images(store, "part", since, until)) == images[4:1:-1]
