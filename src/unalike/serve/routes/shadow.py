"""Endpoint ``shadow``: a candidate answers a sampled share of a gallery's traffic too; where it differs from the model in service."""

from __future__ import annotations

import asyncio
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.metrics.intervals import wilson_interval
from unalike.serve.changes import Change, apply_in_store, carry_out, request_digest
from unalike.serve.documents import add_scoped, json_body, query_parameters
from unalike.serve.learning.shadow import describe_answer
from unalike.serve.problems import Problem
from unalike.serve.resources import GalleryResource
from unalike.serve.service import Service, json_response
from unalike.serve.store import Store
from unalike.serve.store.records import MAX_PAGE
from unalike.serve.store.shadows import SHADOW_STATES, ShadowDifference, ShadowRecord, ShadowSummary
from unalike.serve.uploads import Parameters, parse_json, read_body

MAX_BODY = 1 << 12
LEAST_SHARE, DIFFERENCES = 1e-6, 24


class ShareModel(BaseModel):
    count: int
    n: int
    share: float | None = Field(description="null without a case.")
    low: float | None = Field(description="Lower end of the 95 % interval (Wilson).")
    high: float | None


class OwnAnswerModel(BaseModel):
    decision: str = Field(description="label, ambiguous or unknown.")
    label: str | None
    nearest: str | None
    score: float | None


class CandidateAnswerModel(OwnAnswerModel):
    threshold: float | None


class DifferenceModel(BaseModel):
    id: str = Field(description="Id of the decision.")
    time: str
    image: str | None = Field(description="Address of the picture; null where it is not kept.")
    in_service: OwnAnswerModel
    candidate: CandidateAnswerModel
    verdict: str | None = Field(description="What people said of the decision; null where nobody did.")
    right_label: str | None


class CorrectedModel(BaseModel):
    n: int = Field(description="Sampled decisions whose class people gave or confirmed.")
    in_service: dict[str, int] = Field(description="right and wrong.")
    candidate: dict[str, int] = Field(description="right and wrong.")


class ShadowModel(BaseModel):
    id: str
    time: str
    candidate: str = Field(description="Id of the candidate.")
    name: str
    share: float
    actor: str
    state: str = Field(description=", ".join(SHADOW_STATES))
    message: str
    references: int | None = Field(description="References that the candidate embedded; null before it did.")
    left_out: int = Field(description="References without a picture.")
    ended: str | None
    sampled: int = Field(description="Decisions that the candidate answered too.")
    dropped: int = Field(
        description="Sampled decisions without an answer: it was not ready, the service was busy, or the image could not be computed."
    )
    agreement: ShareModel = Field(description="The same class, both ambiguous, or both unknown.")
    corrected: CorrectedModel
    differences: list[DifferenceModel] = Field(description="The newest first.")
    next: str | None


class ShadowAnswerModel(BaseModel):
    gallery: str
    shadow: ShadowModel | None = Field(description="The one that was begun last; null before there is one.")


def describe_shadow(
    store: Store, record: ShadowRecord, after: str | None = None, limit: int = DIFFERENCES
) -> dict[str, Any]:
    """A shadow with what became of it, as JSON; in a thread. Raises DataError for a wrong page."""
    summary, page = store.shadows.results(record.id, after, limit)
    model = store.learning.model(record.model)
    values = _plain_shadow(record, "" if model is None else model.name, summary)
    return values | {"differences": [_plain_difference(store, item) for item in page.items], "next": page.next}


def _plain_shadow(record: ShadowRecord, name: str, summary: ShadowSummary) -> dict[str, Any]:
    """A shadow without the decisions about which the two models differ, as JSON."""
    values, interval = record.to_dict(), wilson_interval(summary.same, summary.sampled)
    names = ("id", "time", "share", "actor", "state", "message", "left_out", "ended", "dropped")
    bounds = {"share": interval.value, "low": interval.low, "high": interval.high}
    return {name: values[name] for name in names} | {
        "candidate": record.model, "name": name, "references": record.reference_count, "sampled": summary.sampled,
        "agreement": {"count": summary.same, "n": summary.sampled, **(bounds if summary.sampled else dict.fromkeys(bounds))},
        "corrected": {
            "n": summary.corrected,
            "in_service": {"right": summary.right, "wrong": summary.corrected - summary.right},
            "candidate": {"right": summary.candidate_right, "wrong": summary.corrected - summary.candidate_right},
        },
        "differences": [], "next": None,
    }  # fmt: skip


def _plain_difference(store: Store, item: ShadowDifference) -> dict[str, Any]:
    id = item.answer.decision_id
    has_image = item.image is not None and store.images.exists(item.image)
    return {
        "id": id, "time": item.answer.to_dict()["time"], "image": f"/v1/decisions/{id}/image" if has_image else None,
        "in_service": {"decision": item.decision, "label": item.label, "nearest": item.nearest, "score": item.score},
        "candidate": describe_answer(item.answer), "verdict": item.verdict, "right_label": item.right_label,
    }  # fmt: skip


def shadow_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["learning"])
    store = service.store

    async def read(request: Request, name: str | None) -> Response:
        """The shadow of a gallery that runs, or the last one, with the decisions about which the two models differ."""
        resource = service.gallery(request, name)
        parameters = Parameters.of_query(request)
        after, limit = parameters.text("after", most=64), parameters.integer("limit", DIFFERENCES, 1, MAX_PAGE)
        parameters.finish()
        return json_response(await asyncio.to_thread(_document, store, resource.name, after, limit))

    async def begin(request: Request, name: str | None) -> Response:
        """Let a candidate answer a share of a gallery's decisions too; answers of the service neither change nor wait for it."""
        resource = service.gallery(request, name)
        values = parse_json(await read_body(request, MAX_BODY))
        parameters = Parameters(values)
        model_id, share = parameters.text("candidate", most=64), parameters.number("share", None, 0.0, 1.0)
        parameters.finish()
        if model_id is None or share is None or share < LEAST_SHARE:
            raise Problem(422, "invalid-value", "no candidate or no share", expected="the id of a candidate, and a share of more than 0, at most 1")  # fmt: skip

        async def perform(change: Change) -> tuple[int, Any]:
            return await asyncio.to_thread(_begin, service, resource, change, model_id, share)

        return await carry_out(service, request, request_digest(request, values), perform)

    async def end(request: Request, name: str | None) -> Response:
        """End the shadow of a gallery; what it recorded stays."""
        resource = service.gallery(request, name)

        async def perform(change: Change) -> tuple[int, Any]:
            return await asyncio.to_thread(_end, service, resource, change)

        return await carry_out(service, request, request_digest(request, {}), perform)

    page = query_parameters(
        after={"type": "string", "description": "next of the page before."},
        limit={"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DIFFERENCES},
    )
    body = json_body(
        {
            "candidate": {"type": "string", "description": "Id from GET /v1/candidates."},
            "share": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "description": "Of the decisions."},
        },
        ("candidate", "share"),
    )
    add_scoped(router, "GET", "galleries", "/shadow", read, answer=ShadowAnswerModel, extra=page,
               summary="The shadow of a gallery, with the decisions about which the two models differ.")  # fmt: skip
    add_scoped(router, "POST", "galleries", "/shadow", begin, answer=ShadowAnswerModel, status=201, statuses=[409],
               summary="Let a candidate answer a share of a gallery's decisions too.", extra=body)  # fmt: skip
    add_scoped(router, "DELETE", "galleries", "/shadow", end, answer=ShadowAnswerModel, statuses=[409],
               summary="End the shadow of a gallery.")  # fmt: skip
    return router


def _document(store: Store, gallery: str, after: str | None = None, limit: int = DIFFERENCES) -> dict[str, Any]:
    record = store.shadows.latest(gallery)
    shadow = None if record is None else describe_shadow(store, record, after, limit)
    return {"gallery": gallery, "shadow": shadow}


def _begin(service: Service, resource: GalleryResource, change: Change, model_id: str, share: float) -> tuple[int, Any]:
    """Begin a shadow, in a thread. Raises Problem (404, 409)."""
    store = service.store
    model = store.learning.model(model_id)
    network = resource.gallery.model_identity.network
    if model is None or model.gallery != resource.name:
        raise Problem(404, "no-candidate", f"no candidate {model_id[:64]!r}", expected="an id from GET /v1/candidates")
    if model.network == network:
        raise Problem(
            409, "in-service", f"the model {model.name!r} is in service already", expected="another candidate"
        )
    record = ShadowRecord(resource.name, model.id, share, network, change.context.actor)

    def write(connection: sa.Connection) -> tuple[int, Any]:
        if not store.shadows.begin(record, connection=connection):
            raise Problem(409, "shadow-runs", f"a shadow of the gallery {resource.name} runs already", remedy="end it first")  # fmt: skip
        return 201, {
            "gallery": resource.name,
            "shadow": _plain_shadow(record, model.name, ShadowSummary(0, 0, 0, 0, 0)),
        }

    details = {"model": model.id, "name": model.name, "share": share, "shadow": record.id}
    return apply_in_store(service, change, "shadow.begin", resource.name, details, write)


def _end(service: Service, resource: GalleryResource, change: Change) -> tuple[int, Any]:
    """End a shadow, in a thread. Raises Problem (409)."""
    store = service.store
    active = store.shadows.active(resource.name)
    if not active:
        raise Problem(409, "no-shadow", f"no shadow of the gallery {resource.name} runs", expected="one that was begun")
    (record,) = active
    model, summary = store.learning.model(record.model), store.shadows.summary(record.id)

    def write(connection: sa.Connection) -> tuple[int, Any]:
        is_ended = store.shadows.end(record.id, connection=connection)
        final = store.shadows.get(record.id, connection=connection)
        if not is_ended or final is None:  # somebody else did
            raise Problem(409, "no-shadow", f"the shadow of the gallery {resource.name} has ended already", expected="one that runs")  # fmt: skip
        return 200, {
            "gallery": resource.name,
            "shadow": _plain_shadow(final, "" if model is None else model.name, summary),
        }

    details = {"model": record.model, "shadow": record.id, "sampled": summary.sampled}
    return apply_in_store(service, change, "shadow.end", resource.name, details, write)
