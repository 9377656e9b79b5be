"""Withheld images: never one that the model in service may have seen, the same ones each time, and classes keep enough."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from unalike.learning.labeled_images import CORRECTION, FOLDER, REFERENCE, LabeledImage
from unalike.learning.withholding import KEPT_FOR_TRAINING, TrainingFacts, withhold
from unalike.storage.digests import text_sha256

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def images(label: str, count: int, source: str = CORRECTION, hours: float = 1.0) -> list[LabeledImage]:
    return [
        LabeledImage(text_sha256(f"{label}{source}{n}"), label, source, time=NOW + timedelta(hours=hours))
        for n in range(count)
    ]


def test_of_unknown_training_data_only_later_corrections_count() -> None:
    facts = TrainingFacts(until=NOW)
    later, earlier = images("a", 3), images("a", 3, hours=-1)
    assert all(map(facts.excludes, later)) and not any(map(facts.excludes, earlier))
    assert not any(facts.excludes(image) for source in (REFERENCE, FOLDER) for image in images("a", 2, source))
    assert not any(map(TrainingFacts().excludes, later)) and "no image counts" in TrainingFacts().describe()
    assert all(map(TrainingFacts(is_frozen=True).excludes, [*later, *earlier, *images("a", 2, FOLDER)]))


def test_of_known_training_data_all_other_images_count() -> None:
    own = images("a", 4, REFERENCE, -5)
    facts = TrainingFacts(hashes=frozenset(image.sha256 for image in own[:2]))
    assert [facts.excludes(image) for image in own] == [False, False, True, True]
    assert facts.to_dict()["images"] == 2


def test_a_share_of_each_class_is_withheld_the_same_each_time() -> None:
    everything = [*images("a", 40), *images("b", 100), *images("c", 3)]
    training, withheld = withhold(everything, TrainingFacts(is_frozen=True), share=0.3)
    assert sorted(map(id, [*training, *withheld])) == sorted(map(id, everything))
    counts = {label: sum(image.label == label for image in withheld) for label in "abc"}
    assert counts["a"] in (12, 13) and counts["b"] in (30, 31) and counts["c"] <= 3 - KEPT_FOR_TRAINING
    again = withhold(list(reversed(everything)), TrainingFacts(is_frozen=True), share=0.3)[1]
    assert {image.sha256 for image in again} == {image.sha256 for image in withheld}


def test_small_classes_give_their_share_together() -> None:
    many = [image for n in range(300) for image in images(f"class {n}", 4)]
    withheld = withhold(many, TrainingFacts(is_frozen=True), share=0.3)[1]
    assert 0.25 * len(many) < len(withheld) < 0.35 * len(many)


def test_seen_images_and_classes_that_are_not_enrolled_stay_in_training() -> None:
    everything = [*images("a", 20), *images("new", 20), *images("a", 20, REFERENCE)]
    training, withheld = withhold(everything, TrainingFacts(until=NOW), share=0.5, enrolled={"a": 20})
    assert {image.label for image in withheld} == {"a"} and all(image.source == CORRECTION for image in withheld)
    assert 10 <= len(withheld) <= 11 and len(training) == 60 - len(withheld)
