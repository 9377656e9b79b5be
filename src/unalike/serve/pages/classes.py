"""The page Classes: all classes of a gallery in a grid that is searched, and of which a browser holds what it shows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.serve.pages.rendering import render_page
from unalike.serve.resources import GalleryResource
from unalike.serve.routes.classes import MAX_LABEL, find_labels
from unalike.serve.routes.references import plain_reference
from unalike.serve.service import Service
from unalike.serve.uploads import Parameters

PAGE_SIZE = 60
MAX_OFFSET = 2**31


@dataclass(frozen=True)
class ClassCell:
    """One class in the grid.

    Attributes:
        label: its name.
        images: number of its references.
        image: address of the picture of its first reference; None where there is none.
    """

    label: str
    images: int
    image: str | None


def class_pages(service: Service) -> APIRouter:
    """The page and its parts."""
    router = APIRouter(include_in_schema=False)

    @router.get("/classes")
    async def classes(request: Request) -> Response:
        values = await _cells(service, request, is_whole=True)
        state = await _calibration(service.gallery(request, values["gallery"]))
        return render_page(request, "classes.html.j2", service=service, max_label=MAX_LABEL, **values, **state)

    @router.get("/classes/cells")
    async def cells(request: Request) -> Response:
        return render_page(request, "fragments/class_cells.html.j2", **await _cells(service, request))

    @router.get("/classes/calibration")
    async def calibration(request: Request) -> Response:
        parameters = Parameters.of_query(request)
        resource = service.gallery(request, parameters.text("gallery"))
        parameters.finish()
        return render_page(request, "fragments/calibration.html.j2", **await _calibration(resource))

    return router


async def _calibration(resource: GalleryResource) -> dict[str, Any]:
    """When an image is unknown, as the page says it."""

    def find() -> dict[str, Any]:
        with resource.gallery.view() as view:
            calibration = view.calibration
            # It rises with the gallery, as that of the answers.
            threshold = None if calibration is None else calibration.threshold_for(*view.size)
            return {"calibration": calibration, "threshold": threshold, "stale": view.stale}

    state = await asyncio.to_thread(find)
    needs = "" if state["calibration"] is None else state["calibration"].needs
    return {**state, "needs_sentence": f"{needs[:1].upper()}{needs[1:]}"}


async def _cells(service: Service, request: Request, *, is_whole: bool = False) -> dict[str, Any]:
    """A part of the grid: ``PAGE_SIZE`` classes by name from number ``offset`` on, of those whose name contains ``search``."""
    parameters = Parameters.of_query(request)
    resource = service.gallery(request, parameters.text("gallery"))
    search = (parameters.text("search", "", most=MAX_LABEL) or "").strip()
    offset = 0 if is_whole else parameters.integer("offset", 0, 0, MAX_OFFSET)
    parameters.finish()

    def find() -> dict[str, Any]:
        with resource.gallery.view() as view:
            counts = view.counts()
            matches = find_labels(counts, search)
            labels = matches[offset : offset + PAGE_SIZE]
            first = view.first_entries(labels)
        cells = [
            ClassCell(
                label, counts[label], plain_reference(resource, first[label])["image"] if label in first else None
            )
            for label in labels
        ]
        return {"cells": cells, "total": len(matches), "classes": len(counts), "references": sum(counts.values())}

    values = await asyncio.to_thread(find)
    return {"gallery": resource.name, "search": search, "offset": offset, "page_size": PAGE_SIZE, **values}
