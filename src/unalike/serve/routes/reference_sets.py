"""Endpoints ``references/move`` and ``references/remove``: many references at once, all or none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.data.class_names import normalize_class_name
from unalike.recognition.backends.protocol import Entry, GalleryBackend, pages
from unalike.serve.changes import Change, apply, bounded, carry_out, request_digest
from unalike.serve.documents import add_scoped, json_body
from unalike.serve.problems import Problem
from unalike.serve.routes.classes import MAX_LABEL, check_new_classes
from unalike.serve.routes.references import MAX_ID, Enrollment, ReferenceRemoval, no_reference, plain_reference
from unalike.serve.service import Service
from unalike.serve.store.references import hash_of_reference, reference_name
from unalike.serve.uploads import Parameters, parse_json, read_body

MAX_BODY = 1 << 20
MAX_REFERENCES = 1000
_LABEL: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": MAX_LABEL}
_IDS: dict[str, Any] = {
    "type": "array", "minItems": 1, "maxItems": MAX_REFERENCES, "uniqueItems": True,
    "items": {"type": "integer", "minimum": 0, "maximum": MAX_ID},
}  # fmt: skip


def reference_set_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter()
    _add_move(service, router)
    _add_removal(service, router)
    return router


def _add_move(service: Service, router: APIRouter) -> None:
    async def move(request: Request, name: str | None) -> Response:
        """Move references to another class, which may be new. They keep vectors and pictures, and get new ids."""
        resource = service.gallery(request, name)
        values = parse_json(await read_body(request, MAX_BODY))
        ids, parameters = _ids(values)
        label = parameters.text("label", most=MAX_LABEL)
        parameters.finish()
        if label is None or not label.strip():
            raise Problem(422, "invalid-value", "no label", expected="label: the class to move to")
        target = normalize_class_name(label)
        await check_new_classes(resource, [target])

        async def perform(change: Change) -> tuple[int, Any]:
            def function(gallery: GalleryBackend) -> list[Entry]:
                moved = find_moved(gallery, change, len(ids), target)
                return moved or move_references(gallery, change, ids, target)

            def answer(entries: list[Entry]) -> tuple[int, Any]:
                plain = [plain_reference(resource, entry) for entry in entries]
                return 200, {"gallery": resource.name, "references": plain, "images": len(resource.gallery)}

            details = {"ids": bounded([str(id) for id in ids]), "label": target}
            return await asyncio.to_thread(
                apply, service, resource, change, "references.move", details, function, answer
            )

        return await carry_out(service, request, request_digest(request, values), perform)

    add_scoped(router, "POST", "galleries", "/references/move", move, answer=Enrollment, statuses=[409],
               summary="Move references to another class.", extra=json_body({"ids": _IDS, "label": _LABEL}, ["ids", "label"]))  # fmt: skip


def _add_removal(service: Service, router: APIRouter) -> None:
    async def remove(request: Request, name: str | None) -> Response:
        """Remove references."""
        resource = service.gallery(request, name)
        values = parse_json(await read_body(request, MAX_BODY))
        ids, parameters = _ids(values)
        parameters.finish()

        async def perform(change: Change) -> tuple[int, Any]:
            def function(gallery: GalleryBackend) -> int:
                missing = [id for id in ids if gallery.entry(id) is None]
                if change.claim is not None and change.claim.is_retry and len(missing) == len(ids):
                    return len(ids)  # removed before the process was killed
                if missing:
                    raise no_reference(missing[0])
                return gallery.remove(ids=ids)

            def answer(count: int) -> tuple[int, Any]:
                return 200, {"gallery": resource.name, "images": count}

            details = {"ids": bounded([str(id) for id in ids])}
            return await asyncio.to_thread(
                apply, service, resource, change, "references.remove", details, function, answer
            )

        return await carry_out(service, request, request_digest(request, values), perform)

    add_scoped(router, "POST", "galleries", "/references/remove", remove, answer=ReferenceRemoval, statuses=[409],
               summary="Remove references.", extra=json_body({"ids": _IDS}, ["ids"]))  # fmt: skip


def _ids(values: dict[str, Any]) -> tuple[list[int], Parameters]:
    """The ids of a body, and its other parameters. Raises Problem (422)."""
    rest = dict(values)
    ids = rest.pop("ids", None)
    is_list = isinstance(ids, list) and all(type(id) is int and 0 <= id <= MAX_ID for id in ids)
    if not is_list or not 0 < len(ids) <= MAX_REFERENCES or len(set(ids)) < len(ids):
        raise Problem(422, "invalid-value", "ids that are no list of ids", expected=f"1 to {MAX_REFERENCES} different ids of references",
                      remedy="see GET /v1/references")  # fmt: skip
    return ids, Parameters(rest)


def move_references(gallery: GalleryBackend, change: Change, ids: Sequence[int], label: str) -> list[Entry]:
    """Enroll the vectors of references under another class, and remove the references. Raises Problem (404)."""
    with gallery.view() as view:
        entries = [view.entry(id) for id in ids]
        missing = [id for id, entry in zip(ids, entries, strict=True) if entry is None]
        if missing:
            raise no_reference(missing[0])
        vectors_MD = view.vectors(ids)
    names, attributes = [], []
    for number, entry in enumerate(entries):
        assert entry is not None
        attributes.append(entry.attributes)
        sha = hash_of_reference(entry.name)
        names.append(entry.name if sha is None else reference_name(sha, change.token(number)))
    new_ids = gallery.enrol(vectors_MD, [label] * len(ids), names, attributes)
    gallery.remove(ids=ids)
    return [Entry(id, label, name, own) for id, name, own in zip(new_ids, names, attributes, strict=True)]


def find_moved(gallery: GalleryBackend, change: Change, count: int, label: str) -> list[Entry]:
    """What a process that was killed moved under the same Idempotency-Key: its references bear tokens of that key.

    References without a picture in the store keep their names and are not found: the repeated request is answered with 404.
    """
    if change.claim is None or not change.claim.is_retry:
        return []
    with gallery.view() as view:
        if label not in view.counts():
            return []
        entries = {entry.name.rpartition("/")[2]: entry for entry in pages(view, label)}
    tokens = [change.token(number) for number in range(count)]
    return [entries[token] for token in tokens] if all(token in entries for token in tokens) else []
