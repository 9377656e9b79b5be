"""Endpoints ``candidates``, ``promotions`` and ``rollback``: compare a candidate with the model in service, promote it, take it back."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.learning.verdict import PROMOTE as ALLOWED
from unalike.serve.documents import add_scoped, json_body, problems
from unalike.serve.learning.promotion import missing_originals
from unalike.serve.problems import Problem
from unalike.serve.request_context import context_of
from unalike.serve.resources import GalleryResource
from unalike.serve.routes.tasks import MAX_BODY, TaskModel
from unalike.serve.routes.trainings import begin_task
from unalike.serve.service import Service, json_response
from unalike.serve.store.learning import COMPARE, PROMOTE, ROLL_BACK, ComparisonRecord, ModelRecord
from unalike.serve.uploads import Parameters, parse_json, read_body

MAX_REASON, MAX_MISSING = 1000, 100
ModelId = Annotated[str, Path(description="Id of the model.")]


class ComparisonModel(BaseModel):
    id: str
    time: str
    model: str
    former: str
    result: dict[str, Any] = Field(
        description="R@1 before and after, the paired difference with its interval, verdict, changes."
    )


class CandidateModel(BaseModel):
    id: str
    time: str
    gallery: str
    name: str
    sha256: str
    network: str
    task: str | None
    facts: dict[str, Any]
    in_service: bool
    comparison: ComparisonModel | None = Field(
        description="With the model that is in service now; null before there is one."
    )


class CandidateList(BaseModel):
    gallery: str
    candidates: list[CandidateModel]
    can_roll_back: bool


class PromotionModel(BaseModel):
    id: str
    time: str
    kind: str
    gallery: str
    model: str | None
    actor: str
    details: dict[str, Any]


class PromotionList(BaseModel):
    gallery: str
    promotions: list[PromotionModel]


def plain_candidate(record: ModelRecord, network: str, comparison: ComparisonRecord | None) -> dict[str, Any]:
    """A candidate as JSON, without paths."""
    values = record.to_dict()
    del values["file"]
    facts = {name: value for name, value in record.facts.items() if name != "data"}
    return values | {
        "facts": facts, "in_service": record.network == network, "comparison": None if comparison is None else comparison.to_dict(),
    }  # fmt: skip


def describe_candidates(service: Service, resource: GalleryResource) -> dict[str, Any]:
    """The models of a gallery, the newest first, with their comparisons; in a thread."""
    learning = service.store.learning
    network = resource.gallery.model_identity.network
    candidates = []
    for record in learning.models(resource.name):
        comparison = learning.comparison(record.id, network)
        plain = plain_candidate(record, network, comparison)
        if plain["comparison"] is not None:
            plain["comparison"]["result"] = {
                name: value for name, value in plain["comparison"]["result"].items() if name != "changes"
            }
        candidates.append(plain)
    return {
        "gallery": resource.name, "candidates": candidates, "can_roll_back": learning.standing_promotion(resource.name) is not None,
    }  # fmt: skip


def candidate_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["learning"])
    learning = service.store.learning

    async def candidates(request: Request, name: str | None) -> Response:
        """The models that were trained for a gallery, the newest first."""
        resource = service.gallery(request, name)
        return json_response(await asyncio.to_thread(describe_candidates, service, resource))

    async def promotions(request: Request, name: str | None) -> Response:
        """Changes of the model of a gallery, the newest first."""
        resource = service.gallery(request, name)
        records = await asyncio.to_thread(learning.promotions, resource.name)
        plain = [
            {key: value for key, value in record.to_dict().items() if key not in ("file", "former")}
            for record in records
        ]
        return json_response({"gallery": resource.name, "promotions": plain})

    async def roll_back(request: Request, name: str | None) -> Response:
        """Return to the model before the latest promotion; references that changed since stay as they are."""
        resource = service.gallery(request, name)
        values = parse_json(await read_body(request, MAX_BODY) or b"{}")
        parameters = Parameters(values)
        source = service.learning.folder(parameters.text("folder", most=64))
        parameters.finish()
        if await asyncio.to_thread(learning.standing_promotion, resource.name) is None:
            raise Problem(409, "nothing-promoted", f"no model of the gallery {resource.name} was promoted",
                          expected="a promotion that can be taken back")  # fmt: skip
        return await begin_task(service, request, values, ROLL_BACK, resource, {"source": source})

    add_scoped(
        router,
        "GET",
        "galleries",
        "/candidates",
        candidates,
        answer=CandidateList,
        summary="Models that were trained for a gallery.",
    )
    add_scoped(
        router,
        "GET",
        "galleries",
        "/promotions",
        promotions,
        answer=PromotionList,
        summary="Changes of the model of a gallery.",
    )
    add_scoped(router, "POST", "galleries", "/rollback", roll_back, answer=TaskModel, status=202, statuses=[409],
               summary="Return to the former model.", extra=json_body({"folder": {"type": ["string", "null"]}}))  # fmt: skip
    _add_single(service, router)
    return router


def _add_single(service: Service, router: APIRouter) -> None:
    """The endpoints of one candidate."""
    learning = service.store.learning

    @router.get("/v1/candidates/{id}", response_class=Response, summary="One candidate with its comparison and the images that change sides.",
                responses={**problems(), 200: {"model": CandidateModel}})  # fmt: skip
    async def candidate(request: Request, id: ModelId) -> Response:
        record, resource = await find_candidate(service, request, id)
        network = resource.gallery.model_identity.network
        comparison = await asyncio.to_thread(learning.comparison, record.id, network)
        return json_response(plain_candidate(record, network, comparison))

    @router.post("/v1/candidates/{id}/comparison", response_class=Response, status_code=202, responses={**problems(409), 202: {"model": TaskModel}},
                 summary="Compare a candidate with the model in service on withheld images and corrected decisions.")  # fmt: skip
    async def compare(request: Request, id: ModelId) -> Response:
        await read_body(request, MAX_BODY)
        record, resource = await find_candidate(service, request, id)
        return await begin_task(service, request, {"id": id}, COMPARE, resource, {"model": record.id})

    @router.post(
        "/v1/candidates/{id}/promotion", response_class=Response, status_code=202, summary="Put a candidate into service.",
        responses={**problems(409), 202: {"model": TaskModel}},
        openapi_extra=json_body({
            "override": {"type": "boolean", "default": False, "description": "Whatever its comparison says; the audit log keeps it."},
            "reason": {"type": "string", "maxLength": MAX_REASON, "description": "Why, with an override."},
            "folder": {"type": ["string", "null"], "description": "Name of a folder of GET /v1/training-data with pictures of "
                       "references that the service has none of."},
        }),
    )  # fmt: skip
    async def promotion(request: Request, id: ModelId) -> Response:
        values = parse_json(await read_body(request, MAX_BODY) or b"{}")
        parameters = Parameters(values)
        override, reason = parameters.boolean("override"), parameters.text("reason", "", most=MAX_REASON) or ""
        source = service.learning.folder(parameters.text("folder", most=64))
        parameters.finish()
        record, resource = await find_candidate(service, request, id)
        await asyncio.to_thread(check_promotion, service, resource, record, override, reason, source)
        options = {"model": record.id, "override": override, "reason": reason, "source": source}
        return await begin_task(service, request, values, PROMOTE, resource, options)


async def find_candidate(service: Service, request: Request, model_id: str) -> tuple[ModelRecord, GalleryResource]:
    """A model that the key of a request may see, with its gallery. Raises Problem (403, 404)."""
    record = await asyncio.to_thread(service.store.learning.model, model_id)
    if (
        record is None
        or record.gallery not in service.resources.galleries
        or context_of(request).gallery not in (None, record.gallery)
    ):
        raise Problem(404, "no-candidate", f"no candidate {model_id[:64]!r}", expected="an id from GET /v1/candidates")
    return record, service.gallery(request, record.gallery)


def check_promotion(
    service: Service, resource: GalleryResource, record: ModelRecord, override: bool, reason: str, source: str | None
) -> None:
    """Refuse a promotion that its task would refuse, before it begins; in a thread. Raises Problem (409, 422), DataError."""
    network = resource.gallery.model_identity.network
    if record.network == network:
        raise Problem(
            409, "in-service", f"the model {record.name!r} is in service already", expected="another candidate"
        )
    if override and not reason.strip():
        raise Problem(422, "invalid-value", "an override without a reason", expected="why: it stays in the audit log")
    comparison = service.store.learning.comparison(record.id, network)
    if comparison is None and not override:
        raise Problem(409, "not-compared", "the candidate was not compared with the model in service",
                      remedy="compare it: POST /v1/candidates/{id}/comparison")  # fmt: skip
    if comparison is not None and comparison.result["verdict"]["decision"] != ALLOWED and not override:
        raise Problem(409, "not-better", f"not promoted: {comparison.result['verdict']['reason']}",
                      expected="a paired difference of R@1 of at least 0, whose 95 % interval begins at -1 point or above",
                      remedy="correct more decisions, or train again; an admin may override it with a reason")  # fmt: skip
    missing = missing_originals(service.learning.place(resource), source)
    if missing:
        names = ", ".join(missing[:MAX_MISSING]) + (", ..." if len(missing) > MAX_MISSING else "")
        raise Problem(409, "missing-pictures", f"{len(missing)} references have no picture: {names}",
                      expected="a picture of every reference", remedy="name a folder that holds them, or remove these references")  # fmt: skip
