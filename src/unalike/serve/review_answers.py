"""What an answer of a review does: references are added, moved or removed, decisions get feedback; and how it is taken back.

The gallery changes first. Feedback, the answer and the entry of the audit log are then written in one transaction.

Shape letters: N pictures, D width of an embedding.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import sqlalchemy as sa
from starlette.requests import Request

from unalike.data.class_names import normalize_class_name
from unalike.errors import NoSuchImage
from unalike.recognition.attributes import NO_ATTRIBUTES
from unalike.recognition.backends.protocol import Entry, GalleryBackend
from unalike.recognition.decision import LABEL
from unalike.serve.changes import Change, apply, bounded
from unalike.serve.problems import Problem
from unalike.serve.resources import GalleryResource
from unalike.serve.routes.classes import MAX_LABEL, check_new_classes
from unalike.serve.routes.decisions import no_decision
from unalike.serve.routes.reference_sets import find_moved, move_references
from unalike.serve.routes.references import MAX_ID, embed_references, no_reference, plain_reference
from unalike.serve.service import Service
from unalike.serve.store import DecisionRecord, Feedback
from unalike.serve.store.records import WITHDRAWN
from unalike.serve.store.references import reference_name
from unalike.serve.store.reviews import (
    ACTIONS,
    CONFIRMED,
    DISMISSED,
    DOUBTFUL,
    DRIFTED,
    DUPLICATE,
    LABELED,
    NEW_CLASS,
    REMOVED,
    REVIEW_KINDS,
    UNUSABLE,
    WRONG_LABEL,
    Review,
    decision_item,
    pair_item,
    reference_item,
)
from unalike.serve.uploads import Parameters, Upload

MAX_DECISIONS = 64
ACTION, UNDO = "review.answer", "review.undo"
# Kind -> (actions, number of references; None: it is about decisions).
_RULES: dict[str, tuple[tuple[str, ...], int | None]] = {
    NEW_CLASS: ((LABELED, UNUSABLE, DISMISSED), None),
    DOUBTFUL: ((CONFIRMED, LABELED, UNUSABLE, DISMISSED), None),
    DRIFTED: ((LABELED, UNUSABLE, DISMISSED), None),
    WRONG_LABEL: ((CONFIRMED, LABELED, REMOVED, DISMISSED), 1),
    DUPLICATE: ((CONFIRMED, REMOVED, DISMISSED), 2),
}


@dataclass(frozen=True)
class AnswerRequest:
    """What somebody says about an entry.

    Attributes:
        kind, action: of the answer.
        decisions: ids of decisions.
        references: ids of references.
        label: the class, with ``labeled``.
        remove: the reference that is removed, with ``removed``.
    """

    kind: str
    action: str
    decisions: tuple[str, ...] = ()
    references: tuple[int, ...] = ()
    label: str | None = None
    remove: int | None = None


def read_answer(values: Mapping[str, Any]) -> AnswerRequest:
    """Read the body of an answer. Raises Problem (422)."""
    rest = dict(values)
    ids = rest.pop("references", [])
    parameters = Parameters(rest)
    kind, action = parameters.choice("kind", REVIEW_KINDS), parameters.choice("action", ACTIONS)
    decisions, label = parameters.texts("decisions", most=MAX_DECISIONS), parameters.text("label", most=MAX_LABEL)
    remove = parameters.integer("remove", -1, 0, MAX_ID)
    parameters.finish()
    if kind is None or action is None:
        raise Problem(422, "invalid-value", "no kind or no action", expected="both", remedy="see GET /v1/review")
    actions, count = _RULES[kind]
    if action not in actions:
        raise Problem(
            422, "invalid-value", f"the action {action} for the kind {kind}", expected=f"one of {', '.join(actions)}"
        )
    if not isinstance(ids, list) or not all(type(id) is int and 0 <= id <= MAX_ID for id in ids):
        raise Problem(422, "invalid-value", "references that are no list of ids", expected="ids of references")
    if len(ids) != (count or 0) or len(set(ids)) < len(ids) or (not decisions if count is None else bool(decisions)):
        what = "decisions alone" if count is None else f"references alone, {count} of them"
        raise Problem(422, "invalid-value", f"an answer of the kind {kind} about {len(decisions)} decisions and {len(ids)} references",
                      expected=what)  # fmt: skip
    if (label is not None and label.strip() != "") != (action == LABELED):
        raise Problem(422, "invalid-value", f"the action {action} {'with' if label else 'without'} a label",
                      expected=f"a label with {LABELED} alone")  # fmt: skip
    reference_id = None
    if action == REMOVED:
        reference_id = max(ids) if remove < 0 else remove
        if reference_id not in ids:
            raise Problem(422, "invalid-value", f"remove: {reference_id}", expected="one of the references")
    return AnswerRequest(kind, action, tuple(dict.fromkeys(decisions)), tuple(sorted(ids)),
                         normalize_class_name(label) if label else None, reference_id)  # fmt: skip


async def give_answer(
    service: Service, request: Request, resource: GalleryResource, form: AnswerRequest, change: Change
) -> tuple[int, Any]:
    """Carry out an answer. Raises Problem (404, 409, 422), UnalikeError."""
    if form.label is not None:
        await check_new_classes(resource, [form.label])
    if form.decisions:
        return await _answer_decisions(service, request, resource, form, change)
    return await asyncio.to_thread(_answer_references, service, resource, form, change)


# ---- decisions ----


@dataclass(frozen=True)
class _Remark:
    """What is said about one decision: its feedback, and the class of which its picture becomes a reference."""

    record: DecisionRecord
    feedback: Feedback | None
    label: str | None


async def _answer_decisions(
    service: Service, request: Request, resource: GalleryResource, form: AnswerRequest, change: Change
) -> tuple[int, Any]:
    remarks = await asyncio.to_thread(_read_remarks, service, resource, form, change)
    uploads, labels = [], []
    for remark in remarks:
        if remark.label is not None and remark.record.image is not None:
            try:
                content = await asyncio.to_thread(service.store.images.get, remark.record.image)
            except NoSuchImage:
                continue  # its retention is over: the feedback stands without a reference
            uploads.append(Upload(f"decision {remark.record.id}", content, sha=remark.record.image))
            labels.append(remark.label)
    items = tuple(decision_item(remark.record.id) for remark in remarks)
    review = _review(resource, form, change, items)
    feedback = {remark.record.id: remark.feedback for remark in remarks if remark.feedback is not None}
    if not uploads:
        return await asyncio.to_thread(_write_plain, service, resource, change, form, review, feedback)
    vectors_ND = await embed_references(service, request, resource, uploads)
    return await asyncio.to_thread(
        _enroll, service, resource, change, form, review, feedback, vectors_ND, uploads, labels
    )


def _read_remarks(service: Service, resource: GalleryResource, form: AnswerRequest, change: Change) -> list[_Remark]:
    """What an answer says about each decision. Raises Problem (404, 409)."""
    records = service.store.decisions.get_many(form.decisions)
    answered = service.store.reviews.answered(resource.name, [decision_item(id) for id in form.decisions])
    counts = resource.gallery.counts()
    remarks = []
    for id in form.decisions:
        record = records.get(id)
        if record is None or (record.kind, record.resource) != ("identify", resource.name):
            raise no_decision(id)
        if decision_item(id) in answered or (record.feedback and record.feedback[-1].verdict != WITHDRAWN):
            raise _answered_before()
        remarks.append(_remark(record, form, counts, change.context.actor))
    return remarks


def _remark(record: DecisionRecord, form: AnswerRequest, counts: Mapping[str, int], actor: str) -> _Remark:
    if form.action == DISMISSED:
        return _Remark(record, None, None)
    if form.action == UNUSABLE:
        return _Remark(record, Feedback(UNUSABLE, actor=actor), None)
    label = form.label if form.action == LABELED else record.nearest
    if record.decision == LABEL and label == record.label:
        # What was recognized for sure adds little to the gallery; what was named by hand is a reference all the same.
        return _Remark(record, Feedback(CONFIRMED, actor=actor), label if form.action == LABELED else None)
    verdict = "wrong" if label in counts else "new class"
    return _Remark(record, Feedback(verdict, label, actor=actor), label)


def _enroll(
    service: Service, resource: GalleryResource, change: Change, form: AnswerRequest, review: Review,
    feedback: Mapping[str, Feedback], vectors_ND: np.ndarray, uploads: Sequence[Upload], labels: Sequence[str],
) -> tuple[int, Any]:  # fmt: skip
    names = [reference_name(str(upload.sha), change.token(number)) for number, upload in enumerate(uploads)]
    decoding = resource.view.decoding

    def function(gallery: GalleryBackend) -> list[Entry]:
        own = gallery.model_identity.decoding
        gallery.model_identity = gallery.model_identity.with_decoding(own.completed(decoding))
        if change.claim is not None and change.claim.is_retry and gallery.has_name(names[0]):
            ids = [gallery.ids_of_name(name)[0] for name in names]  # applied before the process was killed
        else:
            ids = gallery.enrol(vectors_ND, list(labels), names)
        return [Entry(id, label, name) for id, label, name in zip(ids, labels, names, strict=True)]

    def with_undo(entries: list[Entry]) -> Review:
        return replace(review, undo={**(review.undo or {}), "added": [[entry.id, entry.name] for entry in entries]})

    return _apply(service, resource, change, form, function, with_undo, feedback)


# ---- references ----


def _answer_references(
    service: Service, resource: GalleryResource, form: AnswerRequest, change: Change
) -> tuple[int, Any]:
    with resource.gallery.view() as view:
        entries = [view.entry(id) for id in form.references]
    is_retry = change.claim is not None and change.claim.is_retry
    for id, entry in zip(form.references, entries, strict=True):
        if entry is None and not is_retry:
            raise no_reference(id)
    existing = [entry for entry in entries if entry is not None]
    items = _reference_items(form.kind, existing)
    if service.store.reviews.answered(resource.name, items):
        raise _answered_before()
    review = _review(resource, form, change, tuple(items))
    if form.action == LABELED:
        return _move(service, resource, form, change, review, existing)
    if form.action == REMOVED:
        return _remove(service, resource, form, change, review)
    return _write_plain(service, resource, change, form, review, {})


def _reference_items(kind: str, entries: Sequence[Entry]) -> list[str]:
    if kind == DUPLICATE:
        pairs = [(entry.id, entry.name) for entry in entries]
        return [pair_item(pairs[0], pairs[1])] if len(pairs) == 2 else []
    return [reference_item(entry.id, entry.label, entry.name) for entry in entries]


def _move(
    service: Service, resource: GalleryResource, form: AnswerRequest, change: Change, review: Review,
    entries: Sequence[Entry],
) -> tuple[int, Any]:  # fmt: skip
    label, ids = str(form.label), list(form.references)
    old = entries[0].label if entries else None
    if label == old:
        raise Problem(422, "invalid-value", "the class that the reference has", expected="another class",
                      remedy=f"the action {CONFIRMED} says that it is right")  # fmt: skip

    def function(gallery: GalleryBackend) -> list[Entry]:
        return find_moved(gallery, change, len(ids), label) or move_references(gallery, change, ids, label)

    def with_undo(moved: list[Entry]) -> Review:
        back = {"references": [[entry.id, entry.name] for entry in moved], "label": old} if old is not None else None
        return replace(review, undo={**(review.undo or {}), "moved": back})

    return _apply(service, resource, change, form, function, with_undo, {})


def _remove(
    service: Service, resource: GalleryResource, form: AnswerRequest, change: Change, review: Review
) -> tuple[int, Any]:
    id = form.remove
    assert id is not None
    backup: list[dict[str, Any]] = []

    def function(gallery: GalleryBackend) -> list[Entry]:
        with gallery.view() as view:
            entry = view.entry(id)
            if entry is None:
                if change.claim is not None and change.claim.is_retry:
                    return []  # removed before the process was killed: only its picture could bring it back
                raise no_reference(id)
            vector_D = view.vectors([id])[0]
        attributes = {"attributes": dict(entry.attributes)} if entry.attributes else {}
        backup.append({"label": entry.label, "name": entry.name, "vector": _packed(vector_D), **attributes})
        gallery.remove(ids=[id])
        return []

    def with_undo(_: list[Entry]) -> Review:
        return replace(review, undo={**(review.undo or {}), "removed": backup})

    return _apply(service, resource, change, form, function, with_undo, {})


def _packed(vector_D: np.ndarray) -> str:
    return base64.b64encode(vector_D.astype("<f4").tobytes()).decode("ascii")


def _unpacked(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)


# ---- writing ----


def _review(resource: GalleryResource, form: AnswerRequest, change: Change, items: tuple[str, ...]) -> Review:
    undo = {"decisions": list(form.decisions) if form.action != DISMISSED else [], "network": resource.network.key}
    return Review(form.kind, resource.name, form.action, form.label, change.context.actor, items, undo)


def _details(form: AnswerRequest) -> dict[str, Any]:
    return {"kind": form.kind, "action": form.action, "label": form.label, "decisions": bounded(form.decisions),
            "references": list(form.references), "remove": form.remove}  # fmt: skip


def _apply(
    service: Service, resource: GalleryResource, change: Change, form: AnswerRequest, function: Any, with_undo: Any,
    feedback: Mapping[str, Feedback],
) -> tuple[int, Any]:  # fmt: skip
    """Change the gallery, then write answer and feedback."""
    reviews: list[Review] = []

    def answer(entries: list[Entry]) -> tuple[int, Any]:
        reviews.append(with_undo(entries))
        return 201, _plain(resource, reviews[0], entries)

    def record(connection: sa.Connection, _: list[Entry]) -> None:
        _write(service, connection, reviews[0], feedback)

    return apply(service, resource, change, ACTION, _details(form), function, answer, record)


def _write_plain(
    service: Service, resource: GalleryResource, change: Change, form: AnswerRequest, review: Review,
    feedback: Mapping[str, Feedback],
) -> tuple[int, Any]:  # fmt: skip
    """Write an answer that changes no gallery."""
    store, context, value = service.store, change.context, _plain(resource, review, [])
    with store.transaction() as connection:
        entry = store.audit.begin(
            context.actor, ACTION, resource.name, _details(form), request_id=context.id, connection=connection
        )
        _write(service, connection, review, feedback)
        store.audit.finish(entry, connection=connection)
        if change.claim is not None:
            store.idempotency.complete(change.claim, 201, json.dumps(value), connection=connection)
    return 201, value


def _write(service: Service, connection: sa.Connection, review: Review, feedback: Mapping[str, Feedback]) -> None:
    for id, remark in feedback.items():
        service.store.decisions.give_feedback(id, remark, connection=connection)
    service.store.reviews.add(review, connection=connection)


def _plain(resource: GalleryResource, review: Review, entries: Sequence[Entry]) -> dict[str, Any]:
    return {**review.to_dict(), "references": [plain_reference(resource, entry) for entry in entries]}


def _answered_before() -> Problem:
    return Problem(409, "answered", "somebody has answered this before", expected="an entry of GET /v1/review")


# ---- taking back ----


async def take_back(service: Service, resource: GalleryResource, review_id: str, change: Change) -> tuple[int, Any]:
    """Take an answer back. Raises Problem (404, 409)."""
    return await asyncio.to_thread(_take_back, service, resource, review_id, change)


def _take_back(service: Service, resource: GalleryResource, review_id: str, change: Change) -> tuple[int, Any]:
    store, context = service.store, change.context
    review = store.reviews.get(review_id)
    if review is None or review.resource != resource.name:
        raise Problem(404, "no-answer", f"no answer {review_id[:64]!r}", expected="an id of GET /v1/review/answers")
    if review.undo is None:
        raise Problem(409, "too-old", "an answer of more than 24 hours ago", expected="a later one",
                      remedy="change classes and references on the page Classes")  # fmt: skip
    undo, details = review.undo, {"id": review.id, "kind": review.kind, "action": review.action, "label": review.label}

    def record(connection: sa.Connection, _: list[Entry]) -> None:
        for id in undo.get("decisions") or ():
            store.decisions.give_feedback(id, Feedback(WITHDRAWN, actor=context.actor), connection=connection)
        store.reviews.remove(review.id, connection=connection)

    def answer(entries: list[Entry]) -> tuple[int, Any]:
        plain = [plain_reference(resource, entry) for entry in entries]
        return 200, {"gallery": resource.name, "id": review.id, "references": plain}

    if any(undo.get(name) for name in ("added", "moved", "removed")):
        if undo.get("network") != resource.network.key:
            raise Problem(409, "other-network", "the gallery has another network since: its references are others",
                          expected="an answer of the network in service",
                          remedy="change classes and references on the page Classes")  # fmt: skip
        function = partial(_restore, change=change, undo=undo)
        return apply(service, resource, change, UNDO, details, function, answer, record)
    status, value = answer([])
    with store.transaction() as connection:
        entry = store.audit.begin(
            context.actor, UNDO, resource.name, details, request_id=context.id, connection=connection
        )
        record(connection, [])
        store.audit.finish(entry, connection=connection)
        if change.claim is not None:
            store.idempotency.complete(change.claim, status, json.dumps(value), connection=connection)
    return status, value


def _restore(gallery: GalleryBackend, change: Change, undo: Mapping[str, Any]) -> list[Entry]:
    """Undo what an answer changed in the gallery, as far as it is still there. The references that came back."""
    extra_ids = _present(gallery, undo.get("added") or ())
    if extra_ids:
        gallery.remove(ids=extra_ids)
    moved, entries = undo.get("moved") or {"references": [], "label": ""}, []
    ids = _present(gallery, moved["references"])
    if ids:
        entries += move_references(gallery, change, ids, moved["label"])
    is_retry = change.claim is not None and change.claim.is_retry  # it may have come back before the process was killed
    lost = [one for one in undo.get("removed") or () if not (is_retry and gallery.has_name(one["name"]))]
    if lost:
        vectors_MD = np.stack([_unpacked(one["vector"]) for one in lost])
        labels, names = [one["label"] for one in lost], [one["name"] for one in lost]
        attributes = [one.get("attributes", NO_ATTRIBUTES) for one in lost]
        new_ids = gallery.enrol(vectors_MD, labels, names, attributes)
        entries += [Entry(*values) for values in zip(new_ids, labels, names, attributes, strict=True)]
    return entries


def _present(gallery: GalleryBackend, references: Sequence[Sequence[Any]]) -> list[int]:
    """Ids of those references, each by id and name, that are still in the gallery."""
    return [id for id, name in references if (entry := gallery.entry(id)) is not None and entry.name == name]
