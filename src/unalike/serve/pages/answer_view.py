"""An answer of ``identify`` as the pages show it: what was decided, its figures on one scale, its neighbors, what was said about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from unalike.recognition.backends.protocol import Entry, GalleryView
from unalike.serve.resources import GalleryResource
from unalike.serve.routes.references import plain_reference
from unalike.serve.store import DecisionRecord, Feedback
from unalike.serve.store.records import WITHDRAWN

MAX_NEIGHBORS = 3
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
        headline: what was decided, in words.
        second: the next class, or None.
        note: why the image is unknown, and what a promised rate would need.
        scale: its figures.
        neighbors: the nearest references.
        feedback: what counts of what was said about it; None where nothing does.
    """

    record: DecisionRecord
    headline: str
    second: str | None
    note: str
    scale: Scale
    neighbors: tuple[NeighborView, ...]
    feedback: Feedback | None


def view_answers(records: Iterable[DecisionRecord], resource: GalleryResource) -> list[AnswerView]:
    """Answers of ``identify`` by one gallery, with the pictures that their neighbors have now."""
    entries: dict[str, Entry | None] = {}
    with resource.gallery.view() as view:
        return [_view_answer(record, resource, view, entries) for record in records]


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
    return AnswerView(
        record, _headline(record, record.result), record.result.get("second"), record.result.get("note", ""),
        Scale.of(record.score, record.threshold, record.margin), tuple(neighbors),
        None if feedback is None or feedback.verdict == WITHDRAWN else feedback,
    )  # fmt: skip


def _headline(record: DecisionRecord, result: Mapping[str, Any]) -> str:
    if record.decision == "label":
        return record.label or ""
    if record.decision == "ambiguous":
        return " or ".join(name for name in (record.nearest, result.get("second")) if name)
    return "Unknown"
