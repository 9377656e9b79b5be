"""The page Recognize: pictures are labeled, and people say whether the labels are right."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.serve.pages.answer_view import AnswerView, view_answers
from unalike.serve.pages.batch import new_batch, start_of_batch
from unalike.serve.pages.rendering import render_page
from unalike.serve.problems import Problem
from unalike.serve.request_context import context_of
from unalike.serve.resources import GalleryResource
from unalike.serve.routes.classes import MAX_LABEL, find_labels
from unalike.serve.routes.decisions import find_decision
from unalike.serve.service import Service
from unalike.serve.store import DecisionFilter
from unalike.serve.store.records import check_page
from unalike.serve.uploads import Parameters

PAGE_SIZE = 12
MAX_CHOICES = 20


def recognize_pages(service: Service) -> APIRouter:
    """The page and its parts."""
    router = APIRouter(include_in_schema=False)

    @router.get("/recognize")
    async def recognize(request: Request) -> Response:
        values = await _answers(service, request)
        return render_page(
            request, "recognize.html.j2", service=service, new_batch=values["batch"] or new_batch(), **values,
            keeps_images=service.settings.keep_images,
        )  # fmt: skip

    @router.get("/recognize/answers")
    async def answers(request: Request) -> Response:
        return render_page(request, "fragments/answers.html.j2", **await _answers(service, request))

    @router.get("/recognize/answer")
    async def answer(request: Request) -> Response:
        resource, parameters = _gallery(service, request)
        decision_id = parameters.text("id", "", most=64) or ""
        parameters.finish()
        views = await _answer(service, request, resource, decision_id)
        return render_page(request, "fragments/answer.html.j2", gallery=resource.name, answer=views[0])

    @router.get("/recognize/choices")
    async def choices(request: Request) -> Response:
        resource, parameters = _gallery(service, request)
        search = (parameters.text("search", "", most=MAX_LABEL) or "").strip()
        parameters.finish()
        labels = find_labels(await asyncio.to_thread(resource.gallery.counts), search)
        # What begins with the text, or is the text, comes first.
        labels.sort(
            key=lambda label: (
                label.casefold() != search.casefold(),
                not label.casefold().startswith(search.casefold()),
            )
        )
        return render_page(
            request, "fragments/choices.html.j2", gallery=resource.name, labels=labels[:MAX_CHOICES], total=len(labels),
            new_label=None if search in labels else search,
        )  # fmt: skip

    return router


def _gallery(service: Service, request: Request) -> tuple[GalleryResource, Parameters]:
    """The gallery that an address names, and its other parameters."""
    parameters = Parameters(dict(request.query_params))
    return service.gallery(request, parameters.text("gallery")), parameters


async def _answer(service: Service, request: Request, resource: GalleryResource, decision_id: str) -> list[AnswerView]:
    """One answer of a gallery. Raises Problem (404)."""
    record = await find_decision(service.store, context_of(request), decision_id)
    if (record.kind, record.resource) != ("identify", resource.name):
        raise Problem(404, "no-decision", f"no decision of the gallery {resource.name} has this id")
    return await asyncio.to_thread(view_answers, [record], resource)


async def _answers(service: Service, request: Request) -> dict[str, Any]:
    """What the list of answers shows: those of the batch or the decision in the address, else the latest of the gallery."""
    resource, parameters = _gallery(service, request)
    batch, decision = parameters.text("batch", most=128), parameters.text("decision", most=64)
    after = parameters.text("after", most=64)
    parameters.finish()
    check_page(after, PAGE_SIZE)

    def find() -> tuple[list[AnswerView], str | None]:
        selection = DecisionFilter(
            kind="identify", resource=resource.name, request_id=batch, since=start_of_batch(batch) if batch else None
        )
        page = service.store.decisions.find(selection, after, PAGE_SIZE)
        return view_answers(page.items, resource), page.next

    if decision is not None:
        views, following = await _answer(service, request, resource, decision), None
    else:
        views, following = await asyncio.to_thread(find)
    return {"gallery": resource.name, "answers": views, "following": following, "batch": batch, "decision": decision,
            "is_first": after is None}  # fmt: skip
