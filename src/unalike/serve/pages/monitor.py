"""The page Monitor: decisions, unknown images, scores, times and alarms, as charts that the server draws and as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.report.plots import LinePlot
from unalike.serve.monitoring import DECISIONS, LATEST, RANGES, Share, rates
from unalike.serve.pages.rendering import render_page
from unalike.serve.routes.statistics import DEFAULT_RANGE, find_statistics
from unalike.serve.service import Service
from unalike.serve.uploads import Parameters

# Range -> its name on the page.
RANGE_NAMES = {"hour": "Last hour", "day": "Last day", "week": "Last week"}
STAGE_NAMES = {
    "decode": "Decoding, of each picture", "queue": "Waiting for the network, of each picture",
    "network": "Network, of each batch", "search": "Search and record, of each batch",
}  # fmt: skip
assert set(RANGE_NAMES) == set(RANGES)


def monitor_pages(service: Service) -> APIRouter:
    """The page."""
    router = APIRouter(include_in_schema=False)

    @router.get("/monitor")
    async def monitor(request: Request) -> Response:
        parameters = Parameters.of_query(request)
        resource = service.gallery(request, parameters.text("gallery"))
        span = parameters.choice("range", tuple(RANGES)) or DEFAULT_RANGE
        parameters.finish()
        document = await find_statistics(service, request, resource, span)
        return render_page(
            request, "monitor.html.j2", service=service, statistics=document, ranges=RANGE_NAMES, stages=STAGE_NAMES,
            names=DECISIONS, latest=LATEST, unknown=Share(**document["unknown"]), below=Share(**document["scores"]["below"]),
            decision_plot=_decision_plot(document), score_plot=_score_plot(document["scores"]), score_rows=_score_rows(document["scores"]),
            gallery=resource.name,
        )  # fmt: skip

    return router


def _decision_plot(document: Mapping[str, Any]) -> LinePlot:
    lines = {name: rates(document, name) for name in DECISIONS}
    return LinePlot.from_points("decisions an hour", lines, "hours from now")


def _score_plot(scores: Mapping[str, Any]) -> LinePlot:
    """Shares of scores by bin, of labels and of references; empty bins at both ends are left out."""
    lines = {}
    for name, key in (("labels of the range", "labels"), ("references", "references")):
        total = sum(scores[key])
        if total:
            lines[name] = [((low + high) / 2, count / total) for low, high, count in _bins(scores, key)]
    return LinePlot.from_points("share of the scores", lines, "score")


def _bins(scores: Mapping[str, Any], key: str) -> list[tuple[float, float, int]]:
    """(low, high, number) of the bins of a histogram, within the range of both."""
    rows = list(zip(scores["edges"], scores["edges"][1:], scores["labels"], scores["references"], strict=False))
    full = [number for number, row in enumerate(rows) if row[2] or row[3]]
    if not full:
        return []
    first, last = max(0, full[0] - 1), min(len(rows), full[-1] + 2)
    column = 2 if key == "labels" else 3
    return [(row[0], row[1], row[column]) for row in rows[first:last]]


def _score_rows(scores: Mapping[str, Any]) -> list[tuple[float, float, int, int]]:
    """(low, high, labels, references) of each bin."""
    pairs = zip(_bins(scores, "labels"), _bins(scores, "references"), strict=True)
    return [(low, high, labels, references) for (low, high, labels), (_, _, references) in pairs]
