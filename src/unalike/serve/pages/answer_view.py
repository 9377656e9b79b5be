"""An answer of ``identify`` as the pages show it: what was decided, its figures on one scale, its neighbors, what was said about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from unalike.recognition.backends.protocol import Entry, GalleryView
from unalike.recognition.decision import AMBIGUOUS, UNKNOWN
from unalike.serve.resources import GalleryResource
from unalike.serve.review_queue import NEAR
from unalike.serve.routes.references import plain_reference
from unalike.serve.store import DecisionRecord, Feedback
from unalike.serve.store.records import WITHDRAWN

MAX_NEIGHBORS = 3
CLEAR, NOT_CALIBRATED, DOUBTFUL, RIGHT, CORRECTED, WRONG, UNUSABLE = "clear", "not calibrated", "doubtful", "right", "corrected", "wrong", "unusable"  # fmt: skip
# State of an answer -> its mark beside the word. The list of answers counts them in this order.
STATES = {
    CLEAR: "●",
    NOT_CALIBRATED: "○",
    DOUBTFUL: "≈",
    UNKNOWN: "?",
    RIGHT: "✓",
    CORRECTED: "✎",
    WRONG: "✗",
    UNUSABLE: "⊘",
}
# Those that need a look come first where that is asked for.
FIRST_STATES = (DOUBTFUL, UNKNOWN)
# Width of the drawing of the scale, and the room beside it for half a label, in its own units.
WIDTH, EDGE = 400.0, 20.0


@dataclass(frozen=True)
class Scale:
    """Places of the figures on an axis of cosines, in units of the drawing.

    Attributes:
        low: value at its left end: 0, or -1 where a figure is negative; 1 is at the right end.
        score, threshold, second: places; None where there is none. ``second`` is the best score of another class.
    """

    low: float
    score: float | None
    threshold: float | None
    second: float | None

    @classmethod
    def of(cls, score: float | None, threshold: float | None, margin: float | None) -> Scale:
        """The scale of a decision's figures."""
        second = None if score is None or margin is None else score - margin
        figures = [value for value in (score, threshold, second) if value is not None]
        low = -1.0 if any(value < 0 for value in figures) else 0.0
        return cls(low, *(None if value is None else _place(value, low) for value in (score, threshold, second)))


def _place(value: float, low: float) -> float:
    share = min(max((value - low) / (1 - low), 0.0), 1.0)
    return round(EDGE + share * (WIDTH - 2 * EDGE), 1)


@dataclass(frozen=True)
class NeighborView:
    """A reference that was near.

    Attributes:
        label: its class then.
        score: cosine to the picture.
        image: address of its picture; None where there is none.
        is_gone: whether it was removed since.
    """

    label: str
    score: float
    image: str | None
    is_gone: bool


@dataclass(frozen=True)
class AnswerView:
    """One answer.

    Attributes:
        record: the decision.
        state: one of ``STATES``: what people said about it, else how sure it is.
        doubt: why it is doubtful, in words; empty where it is not.
        headline: what was decided, in words; the right class where people named it.
        decided: what was decided, where the headline is the right class; else empty.
        second: the next class, or None.
        note: why the image is unknown, and what a promised rate would need.
        scale: its figures.
        neighbors: the nearest references.
        feedback: what counts of what was said about it; None where nothing does.
    """

    record: DecisionRecord
    state: str
    doubt: str
    headline: str
    decided: str
    second: str | None
    note: str
    scale: Scale
    neighbors: tuple[NeighborView, ...]
    feedback: Feedback | None

    @property
    def mark(self) -> str:
        """The sign of its state, so that color alone says nothing."""
        return STATES[self.state]


def view_answers(records: Iterable[DecisionRecord], resource: GalleryResource) -> list[AnswerView]:
    """Answers of ``identify`` by one gallery, with the pictures that their neighbors have now."""
    entries: dict[str, Entry | None] = {}
    with resource.gallery.view() as view:
        return [_view_answer(record, resource, view, entries) for record in records]


def count_states(answers: Iterable[AnswerView]) -> list[tuple[str, int]]:
    """How many answers are of each state, those that there are."""
    counts = Counter(answer.state for answer in answers)
    return [(state, counts[state]) for state in STATES if counts[state]]


def sort_doubtful_first(answers: Iterable[AnswerView]) -> list[AnswerView]:
    """Doubtful answers, then unknown ones, then the rest; otherwise in the order in which they came."""
    return sorted(
        answers, key=lambda one: FIRST_STATES.index(one.state) if one.state in FIRST_STATES else len(FIRST_STATES)
    )


def _view_answer(
    record: DecisionRecord, resource: GalleryResource, view: GalleryView, entries: dict[str, Entry | None]
) -> AnswerView:
    neighbors = []
    for neighbor in list(record.result.get("neighbours", ()))[:MAX_NEIGHBORS]:
        name = neighbor["name"]
        if name not in entries:
            ids = view.ids_of_name(name) if name else []
            entries[name] = view.entry(ids[0]) if ids else None
        entry = entries[name]
        image = None if entry is None else plain_reference(resource, entry)["image"]
        neighbors.append(NeighborView(neighbor["label"], neighbor["score"], image, bool(name) and entry is None))
    feedback = record.feedback[-1] if record.feedback else None
    if feedback is not None and feedback.verdict == WITHDRAWN:
        feedback = None
    doubt = find_doubt(record, 0.0 if view.calibration is None else view.calibration.margin)
    state, decided = _state(record, doubt, feedback), _headline(record, record.result)
    is_corrected = state == CORRECTED and feedback is not None
    return AnswerView(
        record, state, doubt, (feedback.label or "") if is_corrected and feedback else decided, decided if is_corrected else "", record.result.get("second"), record.result.get("note", ""),
        Scale.of(record.score, record.threshold, record.margin), tuple(neighbors),
        feedback,
    )  # fmt: skip


def find_doubt(record: DecisionRecord, margin: float) -> str:
    """Why an answer is doubtful, in words: ambiguous, or as near to a bound as the page Review asks about; empty where it is not.

    Args:
        record: the decision.
        margin: the smallest lead of the best class over the second with which the gallery names a class.
    """
    if record.decision == AMBIGUOUS:
        return "Two classes are too close to tell apart."
    if record.decision == UNKNOWN:
        return ""
    if record.margin is not None and record.margin - margin < NEAR:
        return "Another class is nearly as close."
    if record.score is not None and record.threshold is not None and record.score - record.threshold < NEAR:
        return "It is hardly above the threshold."
    return ""


def _state(record: DecisionRecord, doubt: str, feedback: Feedback | None) -> str:
    if feedback is not None:
        state = {"confirmed": RIGHT, "unusable": UNUSABLE}.get(feedback.verdict)
        return state or (CORRECTED if feedback.label else WRONG)
    if record.decision == UNKNOWN:
        return UNKNOWN
    return DOUBTFUL if doubt else CLEAR if record.calibrated else NOT_CALIBRATED


def _headline(record: DecisionRecord, result: Mapping[str, Any]) -> str:
    if record.decision == "label":
        return record.label or ""
    if record.decision == "ambiguous":
        return " or ".join(name for name in (record.nearest, result.get("second")) if name)
    return "Unknown"
