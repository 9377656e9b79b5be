"""Endpoints ``classes``: list, rename, merge, remove."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.data.class_names import hidden_sign, is_visible, normalize_class_name
from unalike.errors import closest
from unalike.recognition.backends.protocol import GalleryBackend
from unalike.serve.changes import Change, apply, bounded, carry_out, request_digest
from unalike.serve.documents import add_scoped, json_body, query_parameters
from unalike.serve.problems import Problem
from unalike.serve.resources import GalleryResource
from unalike.serve.service import Service, json_response
from unalike.serve.uploads import Parameters, parse_json, read_body

MAX_BODY = 1 << 20
MAX_PAGE = 1000
MAX_LABEL = 500
PAGE_PARAMETERS: dict[str, dict[str, Any]] = {
    "after": {"type": "string", "description": "`next` of the page before."},
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 100},
}
_LABEL: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": MAX_LABEL}


class ClassModel(BaseModel):
    label: str
    images: int = Field(description="Number of its references.")


class ClassPage(BaseModel):
    gallery: str
    classes: list[ClassModel]
    total: int = Field(description="Number of all classes, of those that `search` selects.")
    next: str | None


class ClassChange(BaseModel):
    gallery: str
    label: str
    images: int = Field(description="Number of references that were changed.")


def class_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter()
    _add_list(service, router)
    _add_rename(service, router)
    _add_merge(service, router)
    _add_remove(service, router)
    return router


def _add_list(service: Service, router: APIRouter) -> None:
    async def classes(request: Request, name: str | None) -> Response:
        """List the classes of a gallery by name."""
        resource = service.gallery(request, name)
        parameters = Parameters.of_query(request)
        after, limit = parameters.text("after"), parameters.integer("limit", 100, 1, MAX_PAGE)
        search = parameters.text("search", "", most=MAX_LABEL) or ""
        parameters.finish()
        counts = await asyncio.to_thread(resource.gallery.counts)
        matches = find_labels(counts, search)
        labels = [label for label in matches if after is None or label > after]
        page = labels[:limit]
        return json_response({
            "gallery": resource.name, "classes": [{"label": label, "images": counts[label]} for label in page],
            "total": len(matches), "next": page[-1] if len(labels) > limit else None,
        })  # fmt: skip

    add_scoped(router, "GET", "galleries", "/classes", classes, answer=ClassPage, summary="List the classes of a gallery.",
               extra=query_parameters(
                   search={"type": "string", "maxLength": MAX_LABEL, "description": "Part of the name, in any case."},
                   **PAGE_PARAMETERS,
               ))  # fmt: skip


def find_labels(labels: Iterable[str], search: str) -> list[str]:
    """Classes by name; those whose name contains a text, in any case."""
    word = normalize_class_name(search).casefold()
    return sorted(label for label in labels if word in label.casefold())


async def _change(
    service: Service, request: Request, name: str | None, action: str, values: dict[str, Any], label: str,
    function: Callable[[GalleryBackend], int], is_applied: Callable[[Mapping[str, int]], bool],
) -> Response:  # fmt: skip
    """Carry out a change of a class; ``is_applied`` tells by the counts of classes whether a killed process made it."""
    resource = service.gallery(request, name)

    async def perform(change: Change) -> tuple[int, Any]:
        def answer(count: int) -> tuple[int, Any]:
            return 200, {"gallery": resource.name, "label": label, "images": count}

        def once(gallery: GalleryBackend) -> int:
            if change.claim is not None and change.claim.is_retry and is_applied(counts := gallery.counts()):
                return counts.get(label, 0)
            return function(gallery)

        details = {key: bounded(value) if isinstance(value, list) else value for key, value in values.items()}
        return await asyncio.to_thread(apply, service, resource, change, action, details, once, answer)

    return await carry_out(service, request, request_digest(request, values), perform)


def _add_rename(service: Service, router: APIRouter) -> None:
    async def rename(request: Request, name: str | None) -> Response:
        """Rename a class; its references keep their pictures and ids."""
        parameters = await _body(request)
        label, new = _required(parameters, "label"), _required(parameters, "new")
        parameters.finish()
        await check_new_classes(service.gallery(request, name), [new])

        def function(gallery: GalleryBackend) -> int:
            require_classes(gallery, [label])
            gallery.rename(label, new)
            return gallery.counts().get(new, 0)

        return await _change(service, request, name, "classes.rename", {"label": label, "new": new}, new, function,
                             lambda counts: label not in counts and new in counts)  # fmt: skip

    add_scoped(router, "POST", "galleries", "/classes/rename", rename, answer=ClassChange, summary="Rename a class.",
               extra=json_body({"label": _LABEL, "new": _LABEL}, ["label", "new"]), statuses=[409])  # fmt: skip


def _add_merge(service: Service, router: APIRouter) -> None:
    async def merge(request: Request, name: str | None) -> Response:
        """Merge several classes into one, which may be new."""
        parameters = await _body(request)
        labels = [normalize_class_name(label) for label in parameters.texts("labels")]
        into = _required(parameters, "into")
        parameters.finish()
        await check_new_classes(service.gallery(request, name), [into])

        def function(gallery: GalleryBackend) -> int:
            require_classes(gallery, [label for label in labels if label != into])
            return gallery.merge(labels, into)

        return await _change(service, request, name, "classes.merge", {"labels": labels, "into": into}, into, function,
                             lambda counts: into in counts and not ({*labels} - {into}) & counts.keys())  # fmt: skip

    add_scoped(router, "POST", "galleries", "/classes/merge", merge, answer=ClassChange, summary="Merge several classes.",
               extra=json_body({"labels": {"type": "array", "items": _LABEL, "minItems": 1}, "into": _LABEL}, ["labels", "into"]),
               statuses=[409])  # fmt: skip


def _add_remove(service: Service, router: APIRouter) -> None:
    async def remove(request: Request, name: str | None) -> Response:
        """Remove a class with all of its references."""
        parameters = Parameters.of_query(request)
        label = _required(parameters, "label")
        parameters.finish()

        def function(gallery: GalleryBackend) -> int:
            require_classes(gallery, [label])
            return gallery.remove(labels=[label])

        return await _change(service, request, name, "classes.remove", {"label": label}, label, function,
                             lambda counts: label not in counts)  # fmt: skip

    add_scoped(router, "DELETE", "galleries", "/classes", remove, answer=ClassChange, summary="Remove a class.",
               extra=query_parameters(label=_LABEL), statuses=[409])  # fmt: skip


async def _body(request: Request) -> Parameters:
    return Parameters(parse_json(await read_body(request, MAX_BODY)))


def _required(parameters: Parameters, name: str) -> str:
    value = parameters.text(name, most=MAX_LABEL)
    if value is None or not value.strip():
        raise Problem(422, "invalid-value", f"no {name}", expected=f"{name}: the name of a class")
    return normalize_class_name(value)


async def check_new_classes(resource: GalleryResource, labels: Iterable[str]) -> None:
    """Refuse names that no new class may get: every file, page and terminal shows what is visible text alike.

    Classes that the gallery has, such as those of folders, keep their names.

    Raises:
        Problem: 422.
    """
    hidden = {label: sign for label in labels if (sign := hidden_sign(label)) is not None or not is_visible(label)}
    counts = await asyncio.to_thread(resource.gallery.counts) if hidden else {}
    for label, sign in hidden.items():
        if label not in counts:
            if sign is None:
                raise Problem(422, "invalid-value", f"a class name without a visible character: {label[:100]!a}",
                              expected="the name of a class")  # fmt: skip
            raise Problem(422, "invalid-value", f"a class name with the character U+{ord(sign):04X}: {label[:100]!a}",
                          expected="a name without control characters and halves of characters")  # fmt: skip


def require_classes(gallery: GalleryBackend, labels: Iterable[str]) -> None:
    """Refuse classes that a gallery does not have. Raises Problem (404)."""
    counts = gallery.counts()
    for label in labels:
        if label not in counts:
            raise no_class(label, list(counts))


def no_class(label: str, labels: list[str]) -> Problem:
    """The problem of a class that does not exist."""
    return Problem(404, "no-class", f"no class {label[:100]!r}", remedy=closest(label, labels))
