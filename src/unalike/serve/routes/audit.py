"""Endpoint ``audit``: who changed what, and when."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from unalike.serve.documents import problems, query_parameters
from unalike.serve.request_context import context_of
from unalike.serve.routes.decisions import read_time
from unalike.serve.service import Service, json_response
from unalike.serve.store.records import MAX_PAGE, OUTCOMES
from unalike.serve.uploads import Parameters


class AuditModel(BaseModel):
    id: str
    time: str
    finished: str | None
    actor: str
    action: str
    resource: str
    details: dict[str, Any]
    request_id: str
    outcome: str
    error: str


class AuditPage(BaseModel):
    entries: list[AuditModel]
    next: str | None


def audit_router(service: Service) -> APIRouter:
    """The endpoint."""
    router = APIRouter(tags=["audit"])
    text = {"type": "string"}
    moment = {**text, "format": "date-time"}

    @router.get(
        "/v1/audit", response_class=Response, summary="Changes of classes, references and calibrations, the newest first.",
        responses={**problems(), 200: {"model": AuditPage}},
        openapi_extra=query_parameters(
            actor=text, action=text, resource=text, outcome={**text, "enum": list(OUTCOMES)}, since=moment, until=moment,
            after=text, limit={"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 100},
        ),
    )  # fmt: skip
    async def audit(request: Request) -> Response:
        parameters = Parameters.of_query(request)
        values: dict[str, Any] = {name: parameters.text(name) for name in ("actor", "action", "resource")}
        values["outcome"] = parameters.choice("outcome", OUTCOMES)
        values |= {name: read_time(parameters, name) for name in ("since", "until")}
        after, limit = parameters.text("after", most=64), parameters.integer("limit", 100, 1, MAX_PAGE)
        parameters.finish()
        if (only := context_of(request).gallery) is not None:
            values["resource"] = only
        page = await asyncio.to_thread(lambda: service.store.audit.find(**values, after=after, limit=limit))
        return json_response({"entries": [entry.to_dict() for entry in page.items], "next": page.next})

    return router
