"""The page of an inspector's settings: its threshold over the distribution of scores, and the regions in which it looks for nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.serve.inspector_settings import fitted_threshold
from unalike.serve.pages.inspection import read_inspector
from unalike.serve.pages.inspection_view import Distribution, axis_end
from unalike.serve.pages.rendering import render_page
from unalike.serve.resources import InspectorResource
from unalike.serve.service import Service
from unalike.serve.store import DecisionFilter, DecisionRecord
from unalike.serve.uploads import Parameters

RECENT, SHOWN = 500, 24
MAX_THRESHOLD = 1e9


def inspector_settings_pages(service: Service) -> APIRouter:
    """The page and its parts."""
    router = APIRouter(include_in_schema=False)

    @router.get("/inspect/settings")
    async def settings(request: Request) -> Response:
        resource, parameters = read_inspector(service, request)
        parameters.finish()
        values = await _values(service, resource, None)
        picture = next((record for record in values["records"] if record.image), None)
        return render_page(
            request, "inspector_settings.html.j2", inspectors=list(service.resources.inspectors), frame=resource.loaded.frame,
            boxes=[list(box) for box in resource.settings.ignore_boxes], picture=picture, **values,
        )  # fmt: skip

    @router.get("/inspect/distribution")
    async def distribution(request: Request) -> Response:
        resource, parameters = read_inspector(service, request)
        tried_threshold = _number(parameters, "threshold")
        parameters.finish()
        return render_page(
            request, "fragments/distribution.html.j2", **await _values(service, resource, tried_threshold)
        )

    return router


def _number(parameters: Parameters, name: str) -> float | None:
    return parameters.number(name, None, 1e-9, MAX_THRESHOLD)


async def _values(service: Service, resource: InspectorResource, tried_threshold: float | None) -> dict[str, Any]:
    """What page and part show: the scores, with a threshold that is tried, else the one that counts."""

    def find() -> list[DecisionRecord]:
        return service.store.decisions.find(DecisionFilter(kind="inspect", resource=resource.name), None, RECENT).items

    records = await asyncio.to_thread(find)
    fit_scores = [float(score) for score in resource.loaded.facts.get("good_scores", ())]
    alarm, fitted_value = resource.inspector.threshold, fitted_threshold(resource.loaded)
    present = None if alarm is None else alarm.threshold
    high = axis_end(fit_scores, records, fitted_value, present)
    threshold = present if tried_threshold is None else tried_threshold
    return {
        "inspector": resource.name, "records": records, "high": high, "present": present, "fitted": fitted_value,
        "alarm": alarm, "is_chosen": resource.settings.threshold is not None, "is_stale": resource.settings.is_stale(resource.loaded),
        "tried": threshold, "distribution": Distribution.of(fit_scores, records, threshold, max(high, threshold or 0.0)),
        "most": SHOWN,
    }  # fmt: skip
