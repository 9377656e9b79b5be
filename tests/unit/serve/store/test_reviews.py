"""Answers of reviews: what was answered is asked no more, by nobody, and what takes it back is forgotten after a day."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.support.reference_galleries import make_gallery
from unalike.errors import DataError
from unalike.serve.store import DecisionRecord, Feedback, Store
from unalike.serve.store import reviews as module
from unalike.serve.store.purge import Retention, purge_class, purge_expired, purge_image
from unalike.serve.store.records import utc_now
from unalike.serve.store.reviews import (
    DOUBTFUL,
    DUPLICATE,
    NEW_CLASS,
    WRONG_LABEL,
    Review,
    decision_item,
    pair_item,
    reference_item,
)


def decide(store: Store, decision: str, score: float, margin: float | None = 0.5, **values: object) -> DecisionRecord:
    values = {"kind": "identify", "resource": "shop", "threshold": 0.5, "nearest": "mug"} | values
    record = DecisionRecord(decision=decision, score=score, margin=margin, **values)  # type: ignore[arg-type]
    store.decisions.add([record])
    return record


def ids(store: Store, margin: float = 0.1, limit: int = 100) -> tuple[list[str], list[str]]:
    unknown, doubtful = store.reviews.candidates("shop", near=0.05, margin=margin, limit=limit)
    return [one.id for one in unknown], [one.id for one in doubtful]


def test_candidates_are_open_decisions_of_the_gallery_near_a_bound(store: Store) -> None:
    unknown = decide(store, "unknown", 0.1)
    ambiguous = decide(store, "ambiguous", 0.9, 0.01)
    near = decide(store, "label", 0.52, label="mug")
    thin = decide(store, "label", 0.9, 0.12, label="mug")
    decide(store, "label", 0.9, label="mug")
    decide(store, "label", 0.9, None, label="mug")  # no second class
    decide(store, "unknown", 0.1, resource="other")
    decide(store, "unknown", 0.1, kind="inspect")
    assert ids(store) == ([unknown.id], [thin.id, near.id, ambiguous.id])
    assert ids(store, limit=1) == ([unknown.id], [thin.id])
    store.decisions.give_feedback(near.id, Feedback("confirmed"))
    store.reviews.add(Review(DOUBTFUL, "shop", "dismissed", items=(decision_item(thin.id),)))
    store.reviews.add(
        Review(DOUBTFUL, "other", "dismissed", items=(decision_item(ambiguous.id),))
    )  # not this gallery's
    assert ids(store) == ([unknown.id], [ambiguous.id])
    store.decisions.give_feedback(near.id, Feedback("withdrawn"))
    assert ids(store) == ([unknown.id], [near.id, ambiguous.id])


def test_one_picture_is_asked_about_once_and_an_answer_to_one_is_an_answer_to_all(store: Store) -> None:
    first, second = "1" * 64, "2" * 64
    old = decide(store, "unknown", 0.1, image=first)
    new = decide(store, "ambiguous", 0.9, 0.01, image=first)
    other = decide(store, "unknown", 0.1, image=second)
    elsewhere = decide(store, "unknown", 0.1, image=second, resource="other")
    assert ids(store) == ([other.id], [new.id]), "the newest of one picture stands for all"
    store.decisions.give_feedback(elsewhere.id, Feedback("confirmed"))
    assert ids(store) == ([other.id], [new.id]), "what is said in another gallery says nothing here"
    store.decisions.give_feedback(old.id, Feedback("confirmed"))
    assert ids(store) == ([other.id], [])
    store.decisions.give_feedback(old.id, Feedback("withdrawn"))
    review = Review(DOUBTFUL, "shop", "dismissed", items=(decision_item(new.id),))
    store.reviews.add(review)
    assert ids(store) == ([other.id], [])
    store.reviews.remove(review.id)
    assert ids(store) == ([other.id], [new.id])


def test_the_latest_decisions_alone_are_looked_at(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKED_AT", 3)
    records = [decide(store, "unknown", 0.1) for _ in range(5)]
    assert ids(store)[0] == [record.id for record in records[:1:-1]]


def test_an_answer_comes_back_is_counted_and_taken_out(store: Store) -> None:
    first = Review(NEW_CLASS, "shop", "labeled", "cup", "ann", (decision_item("b"), decision_item("a")), {"added": [7]})
    second = Review(WRONG_LABEL, "shop", "confirmed", items=(reference_item(1, "mug", "a.png"),), undo={})
    for review in (first, second, Review(DUPLICATE, "other", "dismissed")):
        store.reviews.add(review)
    loaded = store.reviews.get(first.id)
    assert loaded is not None and set(loaded.items) == set(first.items) and loaded.undo == {"added": [7]}
    assert (loaded.label, loaded.actor, loaded.time) == ("cup", "ann", first.time)
    assert "undo" not in loaded.to_dict() and loaded.to_dict()["can_undo"] is True
    page = store.reviews.find("shop", limit=1)
    assert [one.id for one in page.items] == [second.id] and page.next == second.id
    assert [one.id for one in store.reviews.find("shop", page.next).items] == [first.id]
    assert store.reviews.count_since("shop", utc_now() - timedelta(hours=1)) == 2
    assert store.reviews.count_since("shop", utc_now() + timedelta(hours=1)) == 0
    names = [
        decision_item("a"),
        decision_item("c"),
        reference_item(1, "mug", "a.png"),
        reference_item(1, "mug", "b.png"),
    ]
    assert store.reviews.answered("shop", names) == {names[0], names[2]}
    assert store.reviews.remove(first.id) and not store.reviews.remove(first.id) and store.reviews.get(first.id) is None
    assert store.reviews.answered("shop", names) == {names[2]}


def test_of_two_that_answer_at_once_the_first_counts(store: Store) -> None:
    item = pair_item((1, "a"), (2, "b"))
    first, second = (Review(DUPLICATE, "shop", action, items=(item,)) for action in ("confirmed", "dismissed"))
    store.reviews.add(first)
    store.reviews.add(second)
    assert store.reviews.get(first.id).items == (item,) and store.reviews.get(second.id).items == ()  # type: ignore[union-attr]


def test_names_of_items_tell_galleries_that_were_built_anew_apart() -> None:
    assert reference_item(1, "mug", "a") != reference_item(1, "mug", "b") != reference_item(1, "cup", "b")
    assert reference_item(1, "mu", "ga") != reference_item(1, "mug", "a")
    assert (
        pair_item((1, "a"), (2, "b")) != pair_item((1, "a"), (2, "c"))
        and len(pair_item((2**63, "a"), (2**63, "b"))) <= 120
    )


@pytest.mark.parametrize(("kind", "action"), [("other", "dismissed"), (DOUBTFUL, "other")])
def test_another_kind_or_action_is_refused(kind: str, action: str) -> None:
    with pytest.raises(DataError, match="expected one of"):
        Review(kind, "shop", action)


def test_what_takes_an_answer_back_is_forgotten_after_a_day(store: Store) -> None:
    for hours in (25, 23):
        store.reviews.add(
            Review(WRONG_LABEL, "shop", "removed", undo={"removed": [1]}, time=utc_now() - timedelta(hours=hours))
        )
    purge_expired(store, Retention(), [])
    young, old = (
        store.reviews.find("shop").items
        if store.reviews.find("shop").items[0].undo
        else store.reviews.find("shop").items[::-1]
    )
    assert young.undo == {"removed": [1]} and old.undo is None and old.to_dict()["can_undo"] is False


def test_purges_take_answers_with_them(store: Store) -> None:
    old = utc_now() - timedelta(days=400)
    for kind in (DOUBTFUL, WRONG_LABEL):
        store.reviews.add(Review(kind, "shop", "dismissed", time=old))
    purge_expired(store, Retention(decisions=timedelta(days=365)), [])
    assert [review.kind for review in store.reviews.find("shop").items] == [WRONG_LABEL]
    sha = "ab" * 32
    store.reviews.add(Review(WRONG_LABEL, "shop", "removed", undo={"removed": [{"name": f"sha256:{sha}/t"}]}))
    purge_image(store, sha, {})
    assert len(store.reviews.find("shop").items) == 1
    for review in (
        Review(NEW_CLASS, "shop", "labeled", "mug"), Review(DUPLICATE, "shop", "removed", undo={"removed": [{"label": "mug"}]}),
        Review(NEW_CLASS, "shop", "labeled", "cup"),
    ):  # fmt: skip
        store.reviews.add(review)
    purge_class(store, "shop", "mug", {"shop": make_gallery(("mug", "a.png"), ("cup", "b.png"))})
    assert sorted(str(review.label) for review in store.reviews.find("shop").items) == ["None", "cup"]


def test_candidates_are_those_of_one_network(store: Store) -> None:
    old, new = (decide(store, "unknown", 0.1, model=model) for model in ("old.onnx", "new.onnx"))
    for model, expected in ((None, {old.id, new.id}), ("new.onnx", {new.id}), ("none.onnx", set())):
        unknown, _ = store.reviews.candidates("shop", near=0.05, margin=0.1, model=model)
        assert {one.id for one in unknown} == expected


def test_an_image_that_was_compared_with_nothing_is_no_candidate(store: Store) -> None:
    """Where no reference passed a filter, neither its class nor its score says anything."""
    decide(store, "unknown", -1.0, nearest="")
    other = decide(store, "unknown", 0.1, nearest="mug")
    assert ids(store) == ([other.id], [])
