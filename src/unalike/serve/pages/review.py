"""The page Review: what is most worth a look, answered by one key each."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.serve.pages.rendering import render_page
from unalike.serve.routes.classes import MAX_LABEL
from unalike.serve.routes.review import find_reviews
from unalike.serve.service import Service
from unalike.serve.store.reviews import DOUBTFUL, DRIFTED, DUPLICATE, NEW_CLASS, REVIEW_KINDS, WRONG_LABEL
from unalike.serve.uploads import Parameters

PAGE_SIZE = 12
# Kind -> its name on the page.
KIND_NAMES = {
    NEW_CLASS: "New classes", DOUBTFUL: "Doubtful answers", WRONG_LABEL: "Wrong labels", DUPLICATE: "Near-duplicates",
    DRIFTED: "Unlike everything",
}  # fmt: skip


def review_pages(service: Service) -> APIRouter:
    """The page and its list."""
    router = APIRouter(include_in_schema=False)

    @router.get("/review")
    async def review(request: Request) -> Response:
        values = await _entries(service, request)
        return render_page(request, "review.html.j2", service=service, max_label=MAX_LABEL, **values)

    @router.get("/review/entries")
    async def entries(request: Request) -> Response:
        return render_page(request, "fragments/review_entries.html.j2", **await _entries(service, request))

    return router


async def _entries(service: Service, request: Request) -> dict[str, Any]:
    """The first entries, of one kind where the address names it, and how far the review is."""
    parameters = Parameters.of_query(request)
    resource = service.gallery(request, parameters.text("gallery"))
    kind = parameters.choice("kind", REVIEW_KINDS)
    parameters.finish()
    values = await find_reviews(service, resource, kind, PAGE_SIZE)
    total = values["open"] if kind is None else values["counts"][kind]
    return {**values, "kind": kind, "kinds": KIND_NAMES, "total": total}
