"""The page Compare: an image beside a reference, where they differ, and regions in which differences are ignored."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.serve.comparison_options import OPTIONS, describe_left_out, in_words
from unalike.serve.pages.rendering import render_page
from unalike.serve.problems import Problem
from unalike.serve.region_sets import KIND
from unalike.serve.request_context import context_of
from unalike.serve.routes.decisions import find_decision
from unalike.serve.routes.region_sets import MAX_NAME
from unalike.serve.security import require_gallery
from unalike.serve.service import Service
from unalike.serve.store import DecisionFilter, DecisionRecord
from unalike.serve.uploads import Parameters

LATEST = 10


def comparison_pages(service: Service) -> APIRouter:
    """The page and its parts."""
    router = APIRouter(include_in_schema=False)

    @router.get("/compare")
    async def compare(request: Request) -> Response:
        require_gallery(context_of(request), "page", "Compare")
        parameters = Parameters.of_query(request)
        decision = parameters.text("decision", most=64)
        parameters.finish()
        record = None if decision is None else await _comparison(service, request, decision)

        def find() -> list[DecisionRecord]:
            return service.store.decisions.find(DecisionFilter(kind="compare"), None, LATEST).items

        latest = await asyncio.to_thread(find)
        return render_page(
            request, "compare.html.j2", record=record, latest=latest, options=OPTIONS, in_words=in_words, left_out=describe_left_out,
            networks=list(service.resources.inspectors),
            keeps_images=service.settings.keep_images, frame=None, boxes=[], max_name=MAX_NAME, **await _sets(service),
        )  # fmt: skip

    @router.get("/compare/answer")
    async def answer(request: Request) -> Response:
        require_gallery(context_of(request), "page", "Compare")
        parameters = Parameters.of_query(request)
        decision = parameters.text("id", "", most=64) or ""
        parameters.finish()
        return render_page(
            request,
            "fragments/comparison.html.j2",
            record=await _comparison(service, request, decision),
            in_words=in_words,
            left_out=describe_left_out,
        )

    @router.get("/compare/region-sets")
    async def region_sets(request: Request) -> Response:
        require_gallery(context_of(request), "page", "Compare")
        Parameters.of_query(request).finish()
        return render_page(request, "fragments/region_sets.html.j2", **await _sets(service))

    return router


async def _sets(service: Service) -> dict[str, Any]:
    return {"sets": await asyncio.to_thread(service.store.settings.all, KIND)}


async def _comparison(service: Service, request: Request, decision_id: str) -> DecisionRecord:
    """A decision of compare. Raises Problem (404)."""
    record = await find_decision(service.store, context_of(request), decision_id)
    if record.kind != "compare":
        raise Problem(404, "no-decision", "no comparison has this id")
    return record
