"""Endpoints ``review`` and ``review/answers``: what is most worth a look, what was said about it, and how that is taken back.

Shape letters: N pictures, D width of an embedding.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.recognition.backends.protocol import GalleryView
from unalike.serve.changes import carry_out, request_digest
from unalike.serve.documents import add_scoped, json_body, problems, query_parameters
from unalike.serve.resources import GalleryResource
from unalike.serve.review_answers import AnswerRequest, give_answer, read_answer, take_back
from unalike.serve.review_queue import MOST_ENTRIES, ReviewEntry, ReviewList
from unalike.serve.routes.classes import MAX_LABEL
from unalike.serve.routes.references import MAX_ID, ReferenceModel, plain_reference
from unalike.serve.service import Service, json_response
from unalike.serve.store import DecisionRecord
from unalike.serve.store.records import MAX_PAGE, utc_now
from unalike.serve.store.reviews import ACTIONS, DOUBTFUL, REVIEW_KINDS
from unalike.serve.uploads import Parameters, parse_json, read_body

MAX_BODY = 1 << 16
DONE_TIME = timedelta(hours=24)  # answers of so long count as done
ReviewId = Annotated[str, Path(description="Id of the answer.")]


class ReviewDecision(BaseModel):
    id: str
    decision: str
    nearest: str | None
    second: str | None
    score: float | None
    threshold: float | None
    margin: float | None
    image: str | None = Field(description="Address of its picture; null where it is not kept.")
    file: str | None = Field(description="Name of its file; null where the client named none.")


class ReviewEntryModel(BaseModel):
    kind: str = Field(json_schema_extra={"enum": list(REVIEW_KINDS)})
    key: str
    decisions: list[ReviewDecision]
    references: list[ReferenceModel] = Field(
        description="wrong label: the reference and its nearest neighbor. duplicate: the two, the older first. doubtful: the nearest "
        "references of its two best classes, as far as they are listed in its answer and still enrolled."
    )
    suggestion: str | None = Field(description="The class that it may be of.")
    score: float | None


class ReviewProgress(BaseModel):
    looked: int = Field(description="Number of references that were looked at.")
    references: int
    embedded: int = Field(description="Number of pictures whose embedding is known.")
    images: int
    complete: bool = Field(description="Whether nothing is under way: ask again where it is false.")


class ReviewModel(BaseModel):
    gallery: str
    entries: list[ReviewEntryModel]
    counts: dict[str, int] = Field(description="Number of entries of each kind, of those of all pages.")
    open: int
    done: int = Field(description="Number of answers within the last 24 hours.")
    progress: ReviewProgress


class AnswerModel(BaseModel):
    id: str
    time: str
    kind: str
    resource: str
    action: str
    label: str | None
    actor: str
    items: list[str]
    can_undo: bool
    references: list[ReferenceModel] = Field(default=[], description="References that the answer made.")


class AnswerPage(BaseModel):
    gallery: str
    answers: list[AnswerModel]
    next: str | None


class Undone(BaseModel):
    gallery: str
    id: str
    references: list[ReferenceModel] = Field(description="References that came back.")


def review_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter()
    _add_list(service, router)
    _add_answers(service, router)
    return router


async def find_reviews(service: Service, resource: GalleryResource, kind: str | None, limit: int) -> dict[str, Any]:
    """What there is to look at, as JSON; the first ``limit`` entries, of one kind where it is named."""
    result: ReviewList = await service.review.find(resource)
    selection = [entry for entry in result.entries if kind in (None, entry.kind)][:limit]

    def plain() -> tuple[list[dict[str, Any]], int]:
        ids = [id for entry in selection for id in entry.decisions]
        records = service.store.decisions.get_many(ids)
        count = service.store.reviews.count_since(resource.name, utc_now() - DONE_TIME)
        with resource.gallery.view() as view:
            shown_entries = [with_neighbors(view, entry, records) for entry in selection]
        return [plain_entry(resource, entry, records) for entry in shown_entries], count

    entries, answers = await asyncio.to_thread(plain)
    counts = Counter(entry.kind for entry in result.entries)
    return {
        "gallery": resource.name, "entries": entries, "counts": {name: counts[name] for name in REVIEW_KINDS},
        "open": len(result.entries), "done": answers,
        "progress": {"looked": result.looked, "references": result.references, "embedded": result.embedded,
                     "images": result.images, "complete": result.is_complete},
    }  # fmt: skip


def with_neighbors(view: GalleryView, entry: ReviewEntry, records: dict[str, DecisionRecord]) -> ReviewEntry:
    """A doubtful decision with the references that it stands between: the nearest one, and the nearest of another class."""
    record = records.get(entry.decisions[0]) if entry.kind == DOUBTFUL else None
    if record is None:
        return entry
    nearest: dict[str, str] = {}
    for neighbor in record.result.get("neighbours", ()):
        nearest.setdefault(neighbor["label"], neighbor["name"])
    ids = [view.ids_of_name(name)[:1] for name in list(nearest.values())[:2] if name]
    references = [view.entry(id) for some in ids for id in some]
    return replace(entry, references=tuple(reference for reference in references if reference is not None))


def plain_entry(resource: GalleryResource, entry: ReviewEntry, records: dict[str, DecisionRecord]) -> dict[str, Any]:
    """An entry as JSON."""
    decisions = [
        {
            "id": record.id, "decision": record.decision, "nearest": record.nearest, "second": record.result.get("second"),
            "score": record.score, "threshold": record.threshold, "margin": record.margin,
            "image": f"/v1/decisions/{record.id}/image" if record.image else None, "file": record.file,
        }
        for record in (records[id] for id in entry.decisions if id in records)
    ]  # fmt: skip
    references = [plain_reference(resource, reference) for reference in entry.references]
    return {"kind": entry.kind, "key": entry.key, "decisions": decisions, "references": references,
            "suggestion": entry.suggestion, "score": entry.score}  # fmt: skip


def _add_list(service: Service, router: APIRouter) -> None:
    async def review(request: Request, name: str | None) -> Response:
        """List what is most worth a look. It is looked for in the background while somebody asks."""
        resource = service.gallery(request, name)
        parameters = Parameters.of_query(request)
        kind, limit = parameters.choice("kind", REVIEW_KINDS), parameters.integer("limit", 50, 1, MOST_ENTRIES)
        parameters.finish()
        return json_response(await find_reviews(service, resource, kind, limit))

    add_scoped(router, "GET", "galleries", "/review", review, answer=ReviewModel, summary="List what is most worth a look.",
               extra=query_parameters(
                   kind={"type": "string", "enum": list(REVIEW_KINDS)},
                   limit={"type": "integer", "minimum": 1, "maximum": MOST_ENTRIES, "default": 50},
               ))  # fmt: skip


def _add_answers(service: Service, router: APIRouter) -> None:
    async def answers(request: Request, name: str | None) -> Response:
        """List answers, the newest first."""
        resource = service.gallery(request, name)
        parameters = Parameters.of_query(request)
        after, limit = parameters.text("after", most=64), parameters.integer("limit", 100, 1, MAX_PAGE)
        parameters.finish()
        page = await asyncio.to_thread(service.store.reviews.find, resource.name, after, limit)
        entries = [review.to_dict() for review in page.items]
        return json_response({"gallery": resource.name, "answers": entries, "next": page.next})

    async def answer(request: Request, name: str | None) -> Response:
        """Answer one entry: confirm, name the class, remove, call unusable or dismiss. Nobody is form about it again."""
        resource = service.gallery(request, name)
        values = parse_json(await read_body(request, MAX_BODY))
        form: AnswerRequest = read_answer(values)
        digest = request_digest(request, values)
        return await carry_out(
            service, request, digest, lambda change: give_answer(service, request, resource, form, change)
        )

    async def undo(request: Request, name: str | None, id: str) -> Response:
        """Take an answer back, within 24 hours."""
        resource = service.gallery(request, name)
        digest = request_digest(request, {"id": id})
        return await carry_out(service, request, digest, lambda change: take_back(service, resource, id, change))

    id_list = {"type": "array", "items": {"type": "string"}, "maxItems": 64}
    number_list = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": MAX_ID}, "maxItems": 2}
    body = json_body({
        "kind": {"type": "string", "enum": list(REVIEW_KINDS)}, "action": {"type": "string", "enum": list(ACTIONS)},
        "decisions": {**id_list, "description": "Ids of decisions of the entry, or of some of them."},
        "references": {**number_list, "description": "Ids of the references of the entry; of a wrong label the first alone."},
        "label": {"type": "string", "maxLength": MAX_LABEL, "description": "The class, with the action `labeled`."},
        "remove": {"type": "integer", "description": "The reference that is removed, with the action `removed`."},
    }, ["kind", "action"])  # fmt: skip
    add_scoped(router, "GET", "galleries", "/review/answers", answers, answer=AnswerPage, summary="List what was said in reviews.",
               extra=query_parameters(after={"type": "string"}, limit={"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 100}))  # fmt: skip
    add_scoped(router, "POST", "galleries", "/review/answers", answer, answer=AnswerModel, status=201, statuses=[409],
               summary="Answer an entry of a review.", extra=body)  # fmt: skip
    _add_undo(router, undo)


def _add_undo(router: APIRouter, undo: Any) -> None:
    async def default(request: Request, id: ReviewId) -> Response:
        response: Response = await undo(request, None, id)
        return response

    async def named(
        request: Request, name: Annotated[str, Path(description="Name of the gallery.")], id: ReviewId
    ) -> Response:
        response: Response = await undo(request, name, id)
        return response

    for prefix, endpoint in (("", default), ("/galleries/{name}", named)):
        router.add_api_route(
            f"/v1{prefix}/review/answers/{{id}}", endpoint, methods=["DELETE"], summary="Take an answer back.",
            tags=["review"], responses={**problems(409), 200: {"model": Undone}}, response_class=Response,
            operation_id=f"delete_review_answer{'_of_galleries' if prefix else ''}",
        )  # fmt: skip
