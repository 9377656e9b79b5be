"""The page Inspect: pictures are inspected, and the answers of a visit, or the latest ones, are shown."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.serve.pages.answer_list import AnswerList
from unalike.serve.pages.batch import new_batch
from unalike.serve.pages.inspection_view import InspectionView
from unalike.serve.pages.rendering import render_page
from unalike.serve.request_context import context_of
from unalike.serve.resources import InspectorResource
from unalike.serve.security import require_gallery
from unalike.serve.service import Service
from unalike.serve.uploads import Parameters


def inspection_pages(service: Service) -> APIRouter:
    """The page and its parts."""
    router = APIRouter(include_in_schema=False)

    @router.get("/inspect")
    async def inspect(request: Request) -> Response:
        if not service.resources.inspectors:
            require_gallery(context_of(request), "page", "Inspect")
            return render_page(request, "inspect_empty.html.j2")
        values = await _answers(service, request)
        return render_page(
            request, "inspect.html.j2", inspectors=list(service.resources.inspectors), keeps_images=service.settings.keep_images,
            new_batch=values["batch"] or new_batch(), **values,
        )  # fmt: skip

    @router.get("/inspect/answer")
    async def answer(request: Request) -> Response:
        resource, parameters = read_inspector(service, request)
        decision_id = parameters.text("id", "", most=64) or ""
        parameters.finish()
        view = await _answers_of(resource).one(service, request, decision_id)
        return render_page(request, "fragments/inspection.html.j2", inspector=resource.name, answer=view)

    return router


def read_inspector(service: Service, request: Request) -> tuple[InspectorResource, Parameters]:
    """The inspector that an address names, and its other parameters. Raises Problem (403, 404)."""
    parameters = Parameters.of_query(request)
    return service.inspector(request, parameters.text("inspector", most=64)), parameters


def _answers_of(resource: InspectorResource) -> AnswerList:
    return AnswerList(
        "inspect", resource.name, "inspector", lambda records: [InspectionView.of(record) for record in records]
    )


async def _answers(service: Service, request: Request) -> dict[str, Any]:
    resource, parameters = read_inspector(service, request)
    return {"inspector": resource.name, **await _answers_of(resource).page(service, request, parameters)}
