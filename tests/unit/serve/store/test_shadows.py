"""Shadows: one of a gallery runs, answers are counted beside what was decided, and go with their decisions."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.support.reference_galleries import make_gallery
from unalike.errors import DataError
from unalike.serve.store import DecisionRecord, Feedback, Store, purge
from unalike.serve.store.learning import ModelRecord
from unalike.serve.store.purge import Retention, purge_class, purge_expired, purge_image
from unalike.serve.store.records import Page, utc_now
from unalike.serve.store.shadows import ENDED, RUNNING, ShadowAnswer, ShadowDifference, ShadowRecord, ShadowSummary


def begin(store: Store, gallery: str = "shop") -> ShadowRecord:
    """A shadow of a candidate."""
    model = ModelRecord(gallery, "second", "models/x/model.onnx", "0" * 64, "weights 2")
    store.learning.add_model(model)
    record = ShadowRecord(gallery, model.id, 0.25, "weights 1", "chief")
    assert store.shadows.begin(record)
    return record


def answer(
    store: Store, shadow: ShadowRecord, label: str | None, other: str | None, *, decision: str = "label",
    candidate: str = "label", **values: object,
) -> DecisionRecord:  # fmt: skip
    """A decision, and what the candidate says of it."""
    record = DecisionRecord("identify", "shop", decision, label=label, nearest=label or "pear", score=0.5, **values)  # type: ignore[arg-type]
    store.decisions.add([record])
    said = ShadowAnswer(shadow.id, record.id, candidate, other, other or "plum", 0.75, 0.5)
    assert store.shadows.add_answer(said)
    return record


def test_of_a_gallery_one_runs_and_it_survives_until_it_is_ended(store: Store) -> None:
    first = begin(store)
    assert not store.shadows.begin(replace(first, id="other")) and store.shadows.latest("shop") == first
    other = begin(store, "line")
    assert {record.id for record in store.shadows.active()} == {first.id, other.id}
    assert store.shadows.active("shop") == [first] and store.shadows.latest("none") is None
    assert store.shadows.change(first.id, state=RUNNING, reference_count=7, left_out=1)
    store.shadows.add_dropped(first.id, 3)
    store.shadows.add_dropped(first.id, 2)
    assert store.shadows.end(first.id, "<b>why") and not store.shadows.end(first.id)
    final = store.shadows.get(first.id)
    assert final is not None and final.ended is not None and store.shadows.get("none") is None
    assert (final.state, final.message, final.dropped, final.reference_count) == (ENDED, "<b>why", 5, 7)
    second = ShadowRecord("shop", first.model, 1.0, "weights 1")
    assert store.shadows.begin(second) and store.shadows.latest("shop") == second
    assert not store.shadows.change(first.id, state=RUNNING)
    with pytest.raises(DataError, match="state is 'asleep'"):
        replace(first, state="asleep")


def test_answers_are_counted_beside_what_was_decided_and_corrected(store: Store) -> None:
    shadow = begin(store)
    assert store.shadows.summary(shadow.id) == ShadowSummary(0, 0, 0, 0, 0)
    alike = answer(store, shadow, "pear", "pear")
    store.decisions.give_feedback(alike.id, Feedback("confirmed"))
    answer(store, shadow, None, None, decision="unknown", candidate="unknown")
    gain = answer(store, shadow, "pear", "plum", image="a" * 64)
    store.decisions.give_feedback(gain.id, Feedback("wrong", "plum"))
    loss = answer(store, shadow, "fig", None, candidate="ambiguous")
    store.decisions.give_feedback(loss.id, Feedback("confirmed"))
    unusable = answer(store, shadow, "pear", "plum")
    store.decisions.give_feedback(unusable.id, Feedback("unusable"))
    assert store.shadows.summary(shadow.id) == ShadowSummary(5, 2, 3, 2, 2)
    items = store.shadows.differences(shadow.id).items
    assert [item.answer.decision_id for item in items] == [unusable.id, loss.id, gain.id]
    assert (items[1].decision, items[1].label, items[1].answer.decision) == ("label", "fig", "ambiguous")
    assert (items[2].right_label, items[2].verdict, items[2].image) == ("plum", "wrong", "a" * 64)
    page = store.shadows.differences(shadow.id, limit=2)
    assert page.next == loss.id and [
        item.answer.decision_id for item in store.shadows.differences(shadow.id, page.next, 2).items
    ] == [gain.id]
    with pytest.raises(DataError):
        store.shadows.differences(shadow.id, limit=0)


def test_numbers_and_differences_are_of_one_state(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow = begin(store)
    first = answer(store, shadow, "pear", "plum")
    read = store.shadows.differences

    def read_beside_a_writer(*values: Any, **named: Any) -> Page[ShadowDifference]:
        page = read(*values, **named)
        answer(store, shadow, "fig", "plum")
        return page

    monkeypatch.setattr(store.shadows, "differences", read_beside_a_writer)
    summary, page = store.shadows.results(shadow.id)
    assert (summary.sampled, summary.same) == (1, 0) and [d.answer.decision_id for d in page.items] == [first.id]
    monkeypatch.undo()
    summary, page = store.shadows.results(shadow.id)
    assert summary.sampled == len(page.items) == 2


def test_no_answer_is_kept_of_what_is_gone(store: Store) -> None:
    shadow = begin(store)
    said = ShadowAnswer(shadow.id, "none", "label", "pear", "pear", 0.5)
    assert not store.shadows.add_answer(said)
    record = answer(store, shadow, "pear", "pear")
    store.shadows.end(shadow.id)
    other = DecisionRecord("identify", "shop", "label")
    store.decisions.add([other])
    assert not store.shadows.add_answer(replace(said, decision_id=other.id))
    assert store.shadows.summary(shadow.id).sampled == 1 and record.id != other.id


def test_purges_remove_what_a_candidate_said(store: Store) -> None:
    shadow = begin(store)
    sha = store.images.put(b"\xff\xd8one")
    answer(store, shadow, "pear", "pear", image=sha)
    answer(store, shadow, "pear", "plum")
    answer(store, shadow, "apple", "apple", time=utc_now() - timedelta(days=400))
    gallery = make_gallery(("pear", "a.jpg"), ("apple", "b.jpg"))
    purge_expired(store, Retention(decisions=timedelta(days=365)), [gallery])
    assert store.shadows.summary(shadow.id).sampled == 2
    purge_image(store, sha, {"shop": gallery})
    assert store.shadows.summary(shadow.id).sampled == 1
    purge_class(store, "shop", "plum", {"shop": gallery})  # which the candidate alone names
    assert store.shadows.summary(shadow.id).sampled == 0 and store.decisions.count() == 1
    with pytest.raises(DataError, match="no class 'plum'"):
        purge_class(store, "shop", "plum", {"shop": gallery})


def test_a_purge_removes_what_a_candidate_says_while_it_runs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow = begin(store)
    answer(store, shadow, "pear", "plum")
    gallery = make_gallery(("plum", "a.jpg"), ("pear", "b.jpg"))
    remove = purge._remove_references

    def remove_slowly(*values: Any) -> int:
        answer(store, shadow, "pear", "plum")  # by the references that are still there
        return remove(*values)

    monkeypatch.setattr(purge, "_remove_references", remove_slowly)
    purge_class(store, "shop", "plum", {"shop": gallery})
    assert store.shadows.summary(shadow.id).sampled == 0 and store.decisions.count() == 2


def test_of_two_that_begin_at_once_one_is_refused(store: Store) -> None:
    first = begin(store)
    store.shadows.end(first.id)
    second, third = (ShadowRecord("shop", first.model, 1.0, "weights 1") for _ in range(2))
    with ThreadPoolExecutor(1) as pool:
        with store.transaction() as connection:
            assert store.shadows.begin(second, connection=connection)
            other = pool.submit(store.shadows.begin, third)
            time.sleep(0.3)
        assert other.result(30) is False
    assert store.shadows.active("shop") == [second]
