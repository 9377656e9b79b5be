"""Answers to questions about groups: what they mean for the images, what is refused, and which image is asked for next."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.discovery.naming import Label, Naming
from unalike.errors import DataError


def make(sizes: dict[str, int], *, seed: int = 0, alone: int = 2) -> Naming:
    """Groups of images around one direction each, and images in no group."""
    rng = np.random.default_rng(seed)
    images, groups, rows = [], [], []
    for group, size in sizes.items():
        center = rng.normal(size=16)
        for number in range(size):
            images.append(f"{group}/{number}.png")
            groups.append(group)
            rows.append(center + 0.2 * rng.normal(size=16))
    for number in range(alone):
        images.append(f"alone-{number}.png")
        groups.append("")
        rows.append(rng.normal(size=16))
    vectors = np.array(rows)
    return Naming(images, groups, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.arange(len(images)))


def names(naming: Naming) -> list[str]:
    return [label.name if label else "" for label in naming.labels()]


def test_a_name_labels_the_group_and_an_answer_for_an_image_rules_over_it() -> None:
    naming = make({"group-001": 3, "group-002": 2, "group-003": 2})
    naming.give("group-001", "  red mug ")
    naming.give("group-002", "=group-001")
    naming.give("group-001/1.png", "blue mug")
    naming.give("group-001/2.png", "/skip")
    assert names(naming) == ["red mug", "blue mug", "", "red mug", "red mug", "", "", "", ""]
    assert naming.labels()[:2] == [Label("red mug", "group"), Label("blue mug", "image")]
    assert [naming.reason(row) for row in (2, 5, 7)] == ["skipped", "not asked", "in no group"]
    assert naming.classes() == ["blue mug", "red mug"]
    naming.give("group-001", "cup")  # a later answer replaces an earlier one, for both groups
    assert names(naming)[3:5] == ["cup", "cup"]
    assert naming.undo() == "group-001" and naming.class_of("group-002") == ""


def test_a_group_may_be_named_like_one_that_is_named_later() -> None:
    naming = make({"group-001": 2, "group-002": 2})
    naming.give("group-001", "=group-002")
    assert names(naming)[:2] == ["", ""] and naming.reason(0) == "not asked"
    naming.give("group-002", "cup")
    assert names(naming)[:4] == ["cup"] * 4


@pytest.mark.parametrize(
    ("subject", "answer", "message"),
    [
        ("group-009", "cup", "neither a group nor an image"),
        ("group-001", "=group-009", "there is no such group"),
        ("group-001", "=group-001", "name each other"),
        ("group-002", "=group-001", "name each other"),
        ("group-001", "=group-003", "that group is mixed"),
        ("group-001", "/mixd", "did you mean '/mixed'"),
        ("group-001/0.png", "/mixed", "expected a class name"),
        ("group-001", "a/b", "a part of a path"),
        ("group-001", "..", "a part of a path"),
        ("group-001", "red\x1b[2Jmug", "control characters"),
        ("group-001", "mug\u202egnp", "control characters"),
        ("group-001", "x" * 201, "more than 200"),
        ("group-001", "ü" * 150, "more than 200"),
    ],
)
def test_answers_that_are_none(subject: str, answer: str, message: str) -> None:
    naming = make({"group-001": 2, "group-002": 2, "group-003": 2})
    naming.give("group-003", "/mixed")
    if subject == "group-002":
        naming.give("group-001", "=group-002")
    before = dict(naming.answers)
    with pytest.raises(DataError, match=message) as caught:
        naming.give(subject, answer)
    assert naming.answers == before and "\x1b" not in str(caught.value) and "\u202e" not in str(caught.value)


def test_questions_come_group_by_group_the_most_typical_image_first() -> None:
    naming = make({"group-002": 2, "group-001": 3})
    naming.order_N[:] = naming.order_N[::-1].copy()
    naming.__post_init__()
    question = naming.next_group()
    assert question is not None and question.subject == "group-001" and question.is_group
    assert [naming.images[row] for row in question.rows] == [f"group-001/{n}.png" for n in (2, 1, 0)]
    naming.give("group-001", "cup")
    assert naming.next_group().subject == "group-002"  # type: ignore[union-attr]
    naming.give("group-002", "/skip")
    assert naming.next_group().subject == "group-002"  # type: ignore[union-attr]
    assert naming.next_group({"group-002"}) is None


def mixed(seed: int = 1) -> tuple[Naming, list[str]]:
    """A group of two kinds of image, with the kind of each."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(2, 16))
    kind = [n % 2 for n in range(20)]
    vectors = np.array([centers[k] + 0.2 * rng.normal(size=16) for k in kind])
    naming = Naming([f"{n}.png" for n in range(20)], ["group-001"] * 20,
                    vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.arange(20))  # fmt: skip
    return naming, ["cup" if k else "mug" for k in kind]


def test_a_mixed_group_is_split_by_a_few_of_its_images() -> None:
    naming, truth = mixed()
    naming.give("group-001", "/mixed")
    asked = 0
    while (question := naming.next_group()) is not None:
        assert not question.is_group and question.subject not in naming.answers
        naming.give(question.subject, truth[question.rows[0]])
        asked += 1
    assert asked <= 6 and names(naming) == truth
    assert {label.basis for label in naming.labels() if label} == {"image", "predicted"}


def test_what_no_answer_is_like_stays_without_label() -> None:
    naming, truth = mixed()
    naming.give("group-001", "/mixed")
    first = naming.next_group()
    assert first is not None
    naming.give(first.subject, truth[first.rows[0]])
    other = [name for name, kind in zip(names(naming), truth, strict=True) if kind != truth[first.rows[0]]]
    assert other.count("") >= 8  # the other kind was not asked for yet
    row = other.index("")
    assert (
        naming.reason([i for i, kind in enumerate(truth) if kind != truth[first.rows[0]]][row])
        == "mixed group, not sure"
    )


def test_skipped_images_of_a_mixed_group_are_not_asked_again() -> None:
    naming, _ = mixed()
    naming.give("group-001", "/mixed")
    asked = []
    while (question := naming.next_group()) is not None:
        asked.append(question.subject)
        naming.give(question.subject, "")
    assert len(asked) == len(set(asked)) == 20 and names(naming) == [""] * 20


def test_single_images_are_those_without_a_label() -> None:
    naming = make({"group-001": 4}, alone=3)
    naming.give("group-001", "cup")
    asked = set()
    while (question := naming.next_image()) is not None:
        asked.add(question.subject)
        naming.give(question.subject, "thing" if len(asked) < 3 else "/skip")
    assert asked == {"alone-0.png", "alone-1.png", "alone-2.png"} and naming.classes() == ["cup", "thing"]


def test_the_most_similar_named_group_is_suggested() -> None:
    naming = make({"group-001": 4, "group-002": 4, "group-003": 4})
    naming.vectors_ND[8:12] = naming.vectors_ND[4:8]
    assert naming.suggestion("group-003") == ""
    naming.give("group-001", "cup")
    naming.give("group-002", "mug")
    assert naming.suggestion("group-003") == "group-002"
