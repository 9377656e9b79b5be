"""The page Inspect: pictures are inspected, and the answers of a visit, or the latest ones, are shown."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.serve.pages.batch import new_batch, start_of_batch
from unalike.serve.pages.inspection_view import InspectionView
from unalike.serve.pages.rendering import render_page
from unalike.serve.problems import Problem
from unalike.serve.request_context import context_of
from unalike.serve.resources import InspectorResource
from unalike.serve.routes.decisions import find_decision
from unalike.serve.security import require_gallery
from unalike.serve.service import Service
from unalike.serve.store import DecisionFilter
from unalike.serve.store.records import check_page
from unalike.serve.uploads import Parameters

PAGE_SIZE = 12


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
        view = await _answer(service, request, resource, decision_id)
        return render_page(request, "fragments/inspection.html.j2", inspector=resource.name, answer=view)

    return router


def read_inspector(service: Service, request: Request) -> tuple[InspectorResource, Parameters]:
    """The inspector that an address names, and its other parameters. Raises Problem (403, 404)."""
    parameters = Parameters(dict(request.query_params))
    return service.inspector(request, parameters.text("inspector", most=64)), parameters


async def _answer(service: Service, request: Request, resource: InspectorResource, decision_id: str) -> InspectionView:
    """One answer of an inspector. Raises Problem (404)."""
    record = await find_decision(service.store, context_of(request), decision_id)
    if (record.kind, record.resource) != ("inspect", resource.name):
        raise Problem(404, "no-decision", f"no decision of the inspector {resource.name} has this id")
    return InspectionView.of(record)


async def _answers(service: Service, request: Request) -> dict[str, Any]:
    """What the list of answers shows: those of the batch or the decision in the address, else the latest of the inspector."""
    resource, parameters = read_inspector(service, request)
    batch, decision = parameters.text("batch", most=128), parameters.text("decision", most=64)
    after = parameters.text("after", most=64)
    parameters.finish()
    check_page(after, PAGE_SIZE)

    def find() -> tuple[list[InspectionView], str | None]:
        selection = DecisionFilter(
            kind="inspect", resource=resource.name, request_id=batch, since=start_of_batch(batch) if batch else None
        )
        page = service.store.decisions.find(selection, after, PAGE_SIZE)
        return [InspectionView.of(record) for record in page.items], page.next

    if decision is not None:
        views, following = [await _answer(service, request, resource, decision)], None
    else:
        views, following = await asyncio.to_thread(find)
    return {"inspector": resource.name, "answers": views, "following": following, "batch": batch, "decision": decision,
            "is_first": after is None}  # fmt: skip
