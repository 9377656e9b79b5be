"""Names for groups that discover made: questions, answers, and the labels that follow from them.

A question is about a group or about one image. An answer is a class name, ``=GROUP`` (the same class as that group), ``/skip``, or
``/mixed`` of a group that shows several classes, whose images are then asked for one by one. A later answer replaces an earlier one.

Shape letters: N images, M images of a mixed group, D vector width.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from unalike.discovery.label_choice import UNLABELED, LabelChooser, class_margins
from unalike.errors import DataError, closest
from unalike.sanitize import one_line

SKIP, MIXED = "/skip", "/mixed"
SAME = "="
MAX_NAME = 200  # characters of a class name
# An image of a mixed group takes the class of the nearest one that was asked for where that is as near as this in cosine of whitened
# features, and no other class is as near by this margin; the others stay unlabeled.
SURE_COSINE, SURE_MARGIN = 0.6, 0.1


class Label(NamedTuple):
    """The class of an image: by the answer for its group, by its own, or predicted within a mixed group."""

    name: str
    basis: Literal["group", "image", "predicted"]


@dataclass(frozen=True)
class Question:
    """What to ask for next: a group, or one image.

    Attributes:
        subject: Name of the group, or of the image.
        rows: The images that it is about: of a group all of them, the most typical first.
        is_group: Whether it is about a group.
    """

    subject: str
    rows: tuple[int, ...]
    is_group: bool


@dataclass
class Naming:
    """The images, and the answers so far.

    Attributes:
        images: Name of each image, unique.
        groups: Name of each image's group; empty for none.
        vectors_ND: Whitened unit vectors of the images.
        order_N: Rank of each image within its group, the most typical first.
        answers: Subject -> answer, in the order in which they were given.
    """

    images: Sequence[str]
    groups: Sequence[str]
    vectors_ND: np.ndarray
    order_N: np.ndarray
    answers: dict[str, str] = field(default_factory=dict)
    _chooser: LabelChooser | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.row_of = {name: row for row, name in enumerate(self.images)}
        self.members: dict[str, list[int]] = {}
        for row in np.argsort(self.order_N, kind="stable").tolist():
            if self.groups[row]:
                self.members.setdefault(self.groups[row], []).append(row)
        self.members = dict(sorted(self.members.items()))

    # -- answers --

    def check(self, subject: str, answer: str) -> str:
        """Return an answer as it is kept.

        Raises:
            DataError: There is no such subject, or the answer is none.
        """
        is_group = subject in self.members
        if not is_group and subject not in self.row_of:
            near = closest(subject, [*self.members, *self.row_of])
            raise DataError(
                f"{subject!r} is neither a group nor an image here", expected="a name of groups.csv", remedy=near
            )
        answer = unicodedata.normalize("NFC", answer.strip())
        if not answer or answer == SKIP:
            return SKIP
        if answer.startswith("/"):
            words = (SKIP, MIXED) if is_group else (SKIP,)
            if answer not in words:
                raise DataError(f"{answer!r} for {subject}", expected=f"a class name, {SAME}GROUP, {' or '.join(words)}",
                                remedy=closest(answer, words))  # fmt: skip
            return answer
        if answer.startswith(SAME):
            self._check_same(subject, answer[len(SAME) :].strip())
            return SAME + answer[len(SAME) :].strip()
        return _checked_name(answer)

    def _check_same(self, subject: str, group: str) -> None:
        if group not in self.members:
            raise DataError(f"{SAME}{group}: there is no such group", expected=f"{SAME} and the name of a group",
                            remedy=closest(group, self.members))  # fmt: skip
        subjects = {subject}
        while group not in subjects:
            subjects.add(group)
            answer = self.answers.get(group, "")
            if not answer.startswith(SAME):
                if answer == MIXED:
                    raise DataError(f"{SAME}{group}: that group is mixed", expected="a group of one class")
                return
            group = answer[len(SAME) :]
        raise DataError(f"{subject} = {group}: these name each other", expected="a class name for one of them")

    def give(self, subject: str, answer: str) -> None:
        """Keep an answer, checked."""
        checked = self.check(subject, answer)
        self.answers.pop(subject, None)
        self.answers[subject] = checked

    def undo(self) -> str:
        """Take back the last answer; returns its subject, empty where there is none."""
        return self.answers.popitem()[0] if self.answers else ""

    def class_of(self, subject: str) -> str:
        """The class that was given for a group or an image; empty for none."""
        answer = self.answers.get(subject, "")
        while answer.startswith(SAME):
            answer = self.answers.get(answer[len(SAME) :], "")
        return "" if answer in (SKIP, MIXED) else answer

    # -- labels --

    def labels(self) -> list[Label | None]:
        """The label of each image; None where there is none."""
        labels: list[Label | None] = [None] * len(self.images)
        for group, rows in self.members.items():
            name = self.class_of(group)
            for row in rows if name else ():
                labels[row] = Label(name, "group")
            if self.answers.get(group) == MIXED:
                for row, name in self._predict(rows).items():
                    labels[row] = Label(name, "predicted")
        for row, image in enumerate(self.images):
            if image in self.answers:
                name = self.class_of(image)
                labels[row] = Label(name, "image") if name else None
        return labels

    def reason(self, row: int) -> str:
        """Why an image has no label."""
        if self.answers.get(self.images[row]) == SKIP:
            return "skipped"
        group = self.groups[row]
        if not group:
            return "in no group"
        answer = self.answers.get(group, "")
        while answer.startswith(SAME):
            answer = self.answers.get(answer[len(SAME) :], "")
        return {"": "not asked", SKIP: "skipped", MIXED: "mixed group, not sure"}.get(answer, "")

    def classes(self) -> list[str]:
        """The classes that were given, sorted."""
        return sorted({name for subject in self.answers if (name := self.class_of(subject))})

    def suggestion(self, group: str) -> str:
        """The named group that is most similar to a group, by the mean vectors; empty where none is named."""
        others = [other for other in self.members if other != group and self.class_of(other)]
        if not others:
            return ""
        own_D = self.vectors_ND[self.members[group]].mean(axis=0)
        cosines = [_cosine(own_D, self.vectors_ND[self.members[other]].mean(axis=0)) for other in others]
        best = int(np.argmax(cosines))
        return others[best] if cosines[best] > 0 else ""

    # -- questions --

    def next_group(self, passed: Iterable[str] = ()) -> Question | None:
        """The next question about groups: a group without answer, or an image of a mixed group; None where there is none.

        Args:
            passed: Groups that are not asked about: what was skipped comes again in another session.
        """
        passed = set(passed)
        for group, rows in self.members.items():
            if group in passed:
                continue
            answer = self.answers.get(group, SKIP)
            if answer == SKIP:
                return Question(group, tuple(rows), True)
            if answer == MIXED and (row := self._next_of(rows)) is not None:
                return Question(self.images[row], (row,), False)
        return None

    def next_image(self) -> Question | None:
        """The image without a label that tells most about the others (``label_choice``); None where all are labeled or skipped."""
        labels = self.labels()
        has_answer_N = np.array([image in self.answers for image in self.images], bool)
        codes = {name: code for code, name in enumerate(sorted({label.name for label in labels if label is not None}))}
        code_N = np.array([UNLABELED if label is None else codes[label.name] for label in labels], np.int64)
        self._chooser = self._chooser or LabelChooser(self.vectors_ND)
        row = self._chooser.choose(
            code_N, 1, candidate_N=~has_answer_N, clusters=len(self.members) + len(self.answers) + 1
        )
        return Question(self.images[int(row[0])], (int(row[0]),), False) if len(row) else None

    def _codes(self, rows: Sequence[int]) -> tuple[np.ndarray, list[str]]:
        """Class number of each image of a mixed group that was asked for, ``UNLABELED`` of the others; and the classes."""
        names = [self.class_of(self.images[row]) for row in rows]
        classes = sorted(set(names) - {""})
        return np.array([classes.index(name) if name else UNLABELED for name in names], np.int64), classes

    def _sure(self, rows: Sequence[int], code_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(nearest class, whether an image is surely of it) of each image of a mixed group."""
        vectors_MD, labeled = self.vectors_ND[list(rows)], np.flatnonzero(code_M != UNLABELED)
        if not len(labeled):
            return np.full(len(rows), UNLABELED), np.zeros(len(rows), bool)
        cosine_ML = vectors_MD @ vectors_MD[labeled].T
        sure_M = cosine_ML.max(axis=1) >= SURE_COSINE
        if len(np.unique(code_M[labeled])) > 1:
            sure_M &= class_margins(vectors_MD, code_M) >= SURE_MARGIN
        return code_M[labeled[cosine_ML.argmax(axis=1)]], sure_M

    def _predict(self, rows: Sequence[int]) -> dict[int, str]:
        code_M, classes = self._codes(rows)
        nearest_M, sure_M = self._sure(rows, code_M)
        return {row: classes[nearest_M[m]] for m, row in enumerate(rows) if sure_M[m] and code_M[m] == UNLABELED}

    def _next_of(self, rows: Sequence[int]) -> int | None:
        """The image of a mixed group to ask for next, of those that no asked one is surely like."""
        code_M, _ = self._codes(rows)
        _, sure_M = self._sure(rows, code_M)
        has_answer_M = np.array([self.images[row] in self.answers for row in rows], bool)
        choice = LabelChooser(self.vectors_ND[list(rows)]).choose(code_M, 1, candidate_N=~sure_M & ~has_answer_M)
        return rows[int(choice[0])] if len(choice) else None


def _cosine(a_D: np.ndarray, b_D: np.ndarray) -> float:
    return float(a_D @ b_D / max(float(np.linalg.norm(a_D) * np.linalg.norm(b_D)), 1e-12))


def _checked_name(name: str) -> str:
    """A class name that a folder can have too. Raises DataError for any other."""
    fault = ""
    if len(name) > MAX_NAME or len(os.fsencode(name)) > MAX_NAME:
        fault = f"a name of more than {MAX_NAME} bytes"
    elif one_line(name) != name:
        fault = "control characters, or characters that turn the direction of writing"
    elif "/" in name or "\\" in name or name in (".", ".."):
        fault = "a part of a path"
    if fault:
        raise DataError(f"class name {name[:MAX_NAME]!r}: {fault}", expected="a name that a folder can have")
    return name
