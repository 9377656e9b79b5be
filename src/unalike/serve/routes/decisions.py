"""Endpoints ``decisions`` and ``feedback``: what was decided, on which image, and whether it was right."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.data.class_names import normalize_class_name
from unalike.serve.changes import Change, carry_out, request_digest
from unalike.serve.documents import json_body, problems, query_parameters
from unalike.serve.problems import Problem
from unalike.serve.request_context import RequestContext, context_of
from unalike.serve.service import Service, json_response
from unalike.serve.store import DecisionFilter, DecisionRecord, Feedback, Store
from unalike.serve.store.images import SIDES, media_type_of
from unalike.serve.store.records import KINDS, MAX_PAGE, NO_FEEDBACK, VERDICTS, WITHDRAWN
from unalike.serve.uploads import Parameters, Upload, parse_json, read_body

MAX_BODY = 1 << 16
_TEXT_FIELDS = ("resource", "decision", "label", "nearest", "image", "request_id", "actor")
DecisionId = Annotated[str, Path(description="Id of the decision.")]


class FeedbackModel(BaseModel):
    id: str
    verdict: str = Field(json_schema_extra={"enum": [*VERDICTS, WITHDRAWN]})
    label: str | None
    note: str
    actor: str
    time: str


class DecisionModel(BaseModel):
    id: str
    time: str
    kind: str
    resource: str
    decision: str
    label: str | None
    nearest: str | None
    score: float | None
    threshold: float | None
    margin: float | None
    calibrated: bool | None
    stale: bool | None
    model: str
    image: str | None = Field(description="Content hash of the image; null where it is not kept.")
    file: str | None = Field(
        description="Name of the file that the client sent, without a folder; null where it named none."
    )
    request_id: str
    actor: str
    result: dict[str, Any]
    feedback: list[FeedbackModel]


class DecisionPage(BaseModel):
    decisions: list[DecisionModel]
    next: str | None = Field(description="Value of `after` for the next page; null on the last one.")


def read_time(parameters: Parameters, name: str) -> datetime | None:
    """A time in ISO 8601; UTC where it names no zone. Raises Problem (422)."""
    text = parameters.text(name, most=64)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Problem(
            422, "invalid-value", f"{name}: {text[:64]!r}", expected="a time such as 2026-11-29T12:00:00Z"
        ) from error


def read_filter(parameters: Parameters, context: RequestContext) -> DecisionFilter:
    """The filter that the parameters of an address ask for; a key for one gallery sees that gallery's alone."""
    texts: dict[str, Any] = {name: parameters.text(name) for name in _TEXT_FIELDS}
    texts |= {name: _class_name(texts[name]) for name in ("label", "nearest")}
    if context.gallery is not None:
        texts |= {"resource": context.gallery, "kind": "identify"}
        parameters.choice("kind", KINDS)
    else:
        texts["kind"] = parameters.choice("kind", KINDS)
    return DecisionFilter(
        **texts, since=read_time(parameters, "since"), until=read_time(parameters, "until"),
        min_score=parameters.number("min_score", None, -1e9, 1e9), max_score=parameters.number("max_score", None, -1e9, 1e9),
        verdict=parameters.choice("verdict", (*VERDICTS, NO_FEEDBACK)),
    )  # fmt: skip


def _class_name(text: str | None) -> str | None:
    return None if text is None else normalize_class_name(text)


def image_response(content: bytes, media_type: str = "") -> Response:
    """An image, which no page may take for anything else."""
    headers = {"Content-Disposition": "inline", "Cache-Control": "private, max-age=3600"}
    return Response(
        content, headers=headers, media_type=media_type or media_type_of(content) or "application/octet-stream"
    )


def decision_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["decisions"])
    store = service.store
    text, number = {"type": "string"}, {"type": "number"}

    @router.get(
        "/v1/decisions", response_class=Response, summary="List decisions, the newest first.",
        responses={**problems(), 200: {"model": DecisionPage}},
        openapi_extra=query_parameters(
            kind={"type": "string", "enum": list(KINDS)}, since={**text, "format": "date-time"},
            until={**text, "format": "date-time"}, min_score=number, max_score=number,
            verdict={"type": "string", "enum": [*VERDICTS, NO_FEEDBACK]}, after=text,
            limit={"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 100},
            **dict.fromkeys(_TEXT_FIELDS, text),
        ),
    )  # fmt: skip
    async def decisions(request: Request) -> Response:
        parameters = Parameters.of_query(request)
        selection = read_filter(parameters, context_of(request))
        after, limit = parameters.text("after", most=64), parameters.integer("limit", 100, 1, MAX_PAGE)
        parameters.finish()
        page = await asyncio.to_thread(store.decisions.find, selection, after, limit)
        return json_response({"decisions": [record.to_dict() for record in page.items], "next": page.next})

    @router.get("/v1/decisions/{id}", response_class=Response, summary="One decision with its feedback.",
                responses={**problems(), 200: {"model": DecisionModel}})  # fmt: skip
    async def decision(request: Request, id: DecisionId) -> Response:
        return json_response((await find_decision(store, context_of(request), id)).to_dict())

    @router.get("/v1/decisions/{id}/image", response_class=Response, responses=_image_answer(),
                summary="The image that was decided on, as it came; small as JPEG with `side`.",
                openapi_extra=query_parameters(side={"type": "integer", "minimum": 1, "maximum": SIDES[-1]}))  # fmt: skip
    async def image(request: Request, id: DecisionId) -> Response:
        record = await find_decision(store, context_of(request), id)
        return await stored_image(service, request, _image_of(record))

    _add_feedback(service, router)
    return router


async def find_decision(store: Store, context: RequestContext, decision_id: str) -> DecisionRecord:
    """A decision that the key of a request may see. Raises Problem (404)."""
    record = await asyncio.to_thread(store.decisions.get, decision_id)
    if record is None or (
        context.gallery is not None and (record.kind, record.resource) != ("identify", context.gallery)
    ):
        raise no_decision(decision_id)
    return record


def _image_of(record: DecisionRecord) -> str:
    """Content hash of the image of a decision. Raises Problem (404)."""
    if record.image is None:
        raise Problem(
            404, "no-image", "the image of this decision was not kept", remedy="start it without --no-keep-images"
        )
    return record.image


async def decision_upload(service: Service, request: Request, decision_id: str) -> Upload:
    """The image of a decision, as if the client had sent it again.

    Raises:
        Problem: 404, there is no such decision, or its image was not kept.
        NoSuchImage: it was removed since.
    """
    record = await find_decision(service.store, context_of(request), decision_id)
    content = await asyncio.to_thread(service.store.images.get, _image_of(record))
    return Upload(f"decision {record.id}", content)


def _add_feedback(service: Service, router: APIRouter) -> None:
    store = service.store

    @router.post(
        "/v1/decisions/{id}/feedback", response_class=Response, summary="Say whether a decision was right.",
        responses={**problems(), 200: {"model": DecisionModel}},
        openapi_extra=json_body({
            "verdict": {"type": "string", "enum": [*VERDICTS, WITHDRAWN],
                        "description": "`withdrawn` takes back what was said before."},
            "label": {"type": ["string", "null"], "description": "The right class, with `wrong` and `new class`."},
            "note": {"type": "string"},
        }, ["verdict"]),
    )  # fmt: skip
    async def feedback(request: Request, id: DecisionId) -> Response:
        context = context_of(request)
        values = parse_json(await read_body(request, MAX_BODY))
        parameters = Parameters(values)
        verdict, label = parameters.choice("verdict", (*VERDICTS, WITHDRAWN)), _class_name(parameters.text("label"))
        note = parameters.text("note", "", most=4000) or ""
        parameters.finish()
        if verdict is None:
            raise Problem(422, "invalid-value", "feedback without a verdict", expected=f"one of {', '.join(VERDICTS)}")
        await find_decision(store, context, id)
        remark = Feedback(verdict, label, note, context.actor)

        def give(change: Change) -> tuple[int, Any]:
            with store.transaction() as connection:
                record = store.decisions.give_feedback(id, remark, connection=connection)
                if record is None:
                    raise no_decision(id)
                plain = record.to_dict()
                if change.claim is not None:
                    body = json.dumps(plain, ensure_ascii=True)
                    store.idempotency.complete(change.claim, 200, body, connection=connection)
            return 200, plain

        async def perform(change: Change) -> tuple[int, Any]:
            return await asyncio.to_thread(give, change)

        return await carry_out(service, request, request_digest(request, values), perform)


async def stored_image(service: Service, request: Request, sha: str) -> Response:
    """An image of the store, or its thumbnail where the address names a ``side``."""
    parameters = Parameters.of_query(request)
    side = parameters.integer("side", 0, 1, SIDES[-1]) if "side" in request.query_params else 0
    parameters.finish()
    if side:
        most = service.settings.max_pixels
        content = await asyncio.to_thread(service.store.images.thumbnail, sha, side, max_pixels=most)
        return image_response(content, "image/jpeg")
    return image_response(await asyncio.to_thread(service.store.images.get, sha))


def no_decision(decision_id: str) -> Problem:
    """The problem of an id that no decision has."""
    return Problem(
        404,
        "no-decision",
        f"no decision {decision_id[:64]!r}",
        expected="an id from an answer or from GET /v1/decisions",
    )


def _image_answer() -> dict[int | str, dict[str, Any]]:
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/jpeg", "image/*")}
    return {**problems(), 200: {"description": "The image.", "content": content}}
