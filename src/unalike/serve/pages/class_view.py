"""The page of one class: its references page by page, how well it is separated, what a deletion could not bring back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.data.class_names import normalize_class_name
from unalike.recognition.backends.protocol import GalleryView, pages
from unalike.serve.pages.rendering import render_page
from unalike.serve.problems import Problem
from unalike.serve.resources import GalleryResource
from unalike.serve.routes.classes import MAX_LABEL
from unalike.serve.routes.references import MAX_ID, plain_reference
from unalike.serve.routes.separation import find_separation
from unalike.serve.service import Service
from unalike.serve.store.references import hash_of_reference
from unalike.serve.uploads import Parameters

PAGE_SIZE = 60
MAX_LOOK_ALIKES = 20


@dataclass(frozen=True)
class ReferenceView:
    """A reference on the page.

    Attributes:
        id: its number.
        image: address of its picture; None where there is none.
        sha: content hash of its picture where the service keeps it; None where a removal cannot be undone.
        attributes: those that it gets again where its removal is undone, as JSON.
    """

    id: int
    image: str | None
    sha: str | None
    attributes: str


def class_view_pages(service: Service) -> APIRouter:
    """The page and its parts."""
    router = APIRouter(include_in_schema=False)

    @router.get("/classes/view")
    async def view(request: Request) -> Response:
        values = await _references(service, request)
        return render_page(
            request,
            "class_view.html.j2",
            service=service,
            max_label=MAX_LABEL,
            max_files=service.limits.max_files,
            **values,
        )

    @router.get("/classes/references")
    async def references(request: Request) -> Response:
        return render_page(request, "fragments/references.html.j2", **await _references(service, request))

    @router.get("/classes/separation")
    async def separation(request: Request) -> Response:
        resource, label, parameters = read_class(service, request)
        parameters.finish()
        result = await find_separation(service, request, resource, label)
        return render_page(
            request,
            "fragments/separation.html.j2",
            gallery=resource.name,
            label=label,
            separation=result,
            most=MAX_LOOK_ALIKES,
        )

    @router.get("/classes/deletion")
    async def deletion(request: Request) -> Response:
        resource, label, parameters = read_class(service, request)
        parameters.finish()

        def count() -> tuple[int, int]:
            with resource.gallery.view() as view:
                total = view.counts().get(label, 0)
                pictures = (
                    sum(hash_of_reference(entry.name) is not None for entry in pages(view, label)) if total else 0
                )
                return total, pictures

        total, pictures = await asyncio.to_thread(count)
        return render_page(
            request,
            "fragments/class_deletion.html.j2",
            gallery=resource.name,
            label=label,
            total=total,
            lost=total - pictures,
        )

    return router


def read_class(service: Service, request: Request) -> tuple[GalleryResource, str, Parameters]:
    """The gallery and the class that an address names, and its other parameters. Raises Problem (422) without a class."""
    parameters = Parameters.of_query(request)
    resource = service.gallery(request, parameters.text("gallery"))
    label = normalize_class_name(parameters.text("label", "", most=MAX_LABEL) or "")
    if not label.strip():
        raise Problem(422, "invalid-value", "no label", expected="label: the name of a class", remedy="see /classes")
    return resource, label, parameters


async def _references(service: Service, request: Request) -> dict[str, Any]:
    """A page of the references of a class; one that does not exist gets some on this page where ``new`` asks for it."""
    resource, label, parameters = read_class(service, request)
    after, is_new = parameters.integer("after", -1, -1, MAX_ID), parameters.boolean("new")
    parameters.finish()

    def find() -> dict[str, Any]:
        with resource.gallery.view() as view:
            return _page(view, resource, label, after)

    values = await asyncio.to_thread(find)
    is_new = is_new and not values["total"]
    return {"gallery": resource.name, "label": label, "after": after, "is_new": is_new, **values}


def _page(view: GalleryView, resource: GalleryResource, label: str, after: int) -> dict[str, Any]:
    total = view.counts().get(label, 0)
    entries = view.entries(label, after, PAGE_SIZE + 1) if total else []
    references = [
        ReferenceView(
            entry.id,
            plain_reference(resource, entry)["image"],
            hash_of_reference(entry.name),
            json.dumps(dict(entry.attributes)),
        )
        for entry in entries[:PAGE_SIZE]
    ]
    following = references[-1].id if len(entries) > PAGE_SIZE else None
    return {"references": references, "total": total, "following": following}
