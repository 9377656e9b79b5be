"""The page on which an inspector is fitted to good images, with what is being fitted, and the inspectors that were fitted here."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.data.decode import IMAGE_SUFFIXES
from unalike.serve.inspector_fits import KIND
from unalike.serve.pages.rendering import render_page
from unalike.serve.request_context import context_of
from unalike.serve.routes.fits import FITS, LIGHTS, MAX_IMAGES
from unalike.serve.security import require_gallery
from unalike.serve.service import Service
from unalike.serve.uploads import Parameters

MOST = 10


def inspector_fit_pages(service: Service) -> APIRouter:
    """The page and its parts."""
    router = APIRouter(include_in_schema=False)

    @router.get("/inspect/fit")
    async def fit(request: Request) -> Response:
        return render_page(
            request, "inspector_fit.html.j2", lights=LIGHTS, fits=FITS, max_images=MAX_IMAGES, suffixes=sorted(IMAGE_SUFFIXES),
            keeps_images=service.settings.keep_images,
            **await _values(request),
        )  # fmt: skip

    @router.get("/inspect/fits")
    async def fits(request: Request) -> Response:
        return render_page(request, "fragments/fits.html.j2", **await _values(request))

    async def _values(request: Request) -> dict[str, Any]:
        require_gallery(context_of(request), "page", "Inspect")
        Parameters.of_query(request).finish()
        page = await asyncio.to_thread(service.store.tasks.find, (KIND,), None, MOST)
        names = list(service.resources.inspectors)
        return {
            "records": page.items, "is_busy": any(not record.is_settled for record in page.items), "inspectors": names,
            "own": [name for name in names if service.inspectors.is_own(name)],
        }  # fmt: skip

    return router
