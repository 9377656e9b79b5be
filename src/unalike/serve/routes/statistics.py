"""Endpoint ``statistics``: what a gallery did in the last hour, day or week, the times of the service, and alarms."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.serve.documents import add_scoped, query_parameters
from unalike.serve.monitoring import RANGES, read_statistics
from unalike.serve.request_context import context_of
from unalike.serve.resources import GalleryResource
from unalike.serve.service import Service, json_response
from unalike.serve.uploads import Parameters

DEFAULT_RANGE = "day"


class ShareModel(BaseModel):
    count: int
    total: int
    share: float | None
    low: float | None = Field(description="Bounds of the 95 % interval (Wilson).")
    high: float | None


class AlarmModel(BaseModel):
    name: str
    is_on: bool
    rule: str = Field(description="When the alarm is on, in words.")
    text: str
    is_measured: bool = Field(description="Whether there is enough to say whether the rule is broken.")


class OtherModel(BaseModel):
    kind: str
    resource: str
    decision: str
    count: int


class StatisticsModel(BaseModel):
    gallery: str
    range: str = Field(json_schema_extra={"enum": list(RANGES)})
    since: str
    until: str
    bucket_s: int = Field(description="Width of a bucket of `decisions`, in seconds.")
    decisions: list[dict[str, Any]] = Field(
        description="time, and the number of label, ambiguous and unknown, by bucket."
    )
    totals: dict[str, int]
    others: list[OtherModel] = Field(description="Decisions of other galleries, inspectors and assets.")
    feedback: dict[str, int] = Field(description="What was said about the decisions of the range.")
    unknown: ShareModel = Field(description="Of the latest decisions.")
    scores: dict[str, Any] = Field(
        description="Histograms of the scores of labels in the range and of references, each compared with the others; "
        "the share of labels below the score that a tenth of the references have."
    )
    latency: dict[str, Any] = Field(
        description="Times since the start, of `processes` processes of `of_processes`; quantiles are interpolated in buckets."
    )
    requests: dict[str, int] = Field(description="Number of requests since the start by the status of the answer.")
    alarms: list[AlarmModel]


def statistics_router(service: Service) -> APIRouter:
    """The endpoint."""
    router = APIRouter()

    async def statistics(request: Request, name: str | None) -> Response:
        """Count what a gallery decided, compare its scores with those of its references, and tell the times of the service."""
        resource = service.gallery(request, name)
        parameters = Parameters.of_query(request)
        span = parameters.choice("range", tuple(RANGES)) or DEFAULT_RANGE
        parameters.finish()
        return json_response(await find_statistics(service, request, resource, span))

    add_scoped(router, "GET", "galleries", "/statistics", statistics, answer=StatisticsModel, summary="What a gallery did lately.",
               extra=query_parameters(range={"type": "string", "enum": list(RANGES), "default": DEFAULT_RANGE}))  # fmt: skip
    return router


async def find_statistics(service: Service, request: Request, resource: GalleryResource, span: str) -> dict[str, Any]:
    """The statistics of a gallery; the scores of its references are measured in the background where they are not known."""
    baseline = service.review.scan(resource).baseline
    count = partial(
        read_statistics, service.store, service.metrics, resource.name, span, baseline, model=resource.network.key,
        workers=service.settings.workers,
        only=context_of(request).gallery is not None,
    )  # fmt: skip
    return await asyncio.to_thread(count)
