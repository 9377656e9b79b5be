"""The page on which a folder of classes, or a table with its pictures, becomes references."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.data.decode import IMAGE_SUFFIXES
from unalike.serve.pages.rendering import render_page
from unalike.serve.routes.export import TABLE
from unalike.serve.service import Service
from unalike.serve.uploads import Parameters


def class_import_pages(service: Service) -> APIRouter:
    """The page."""
    router = APIRouter(include_in_schema=False)

    @router.get("/classes/import")
    async def class_import(request: Request) -> Response:
        parameters = Parameters.of_query(request)
        resource = service.gallery(request, parameters.text("gallery"))
        parameters.finish()
        return render_page(
            request,
            "class_import.html.j2",
            service=service,
            gallery=resource.name,
            suffixes=sorted(IMAGE_SUFFIXES),
            table=TABLE,
        )

    return router
