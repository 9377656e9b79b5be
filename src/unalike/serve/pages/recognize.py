"""The page Recognize: pictures are labeled, and people say whether the labels are right."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.serve.pages.answer_list import AnswerList
from unalike.serve.pages.answer_view import FIRST_STATES, STATES, count_states, sort_doubtful_first, view_answers
from unalike.serve.pages.batch import new_batch
from unalike.serve.pages.rendering import render_page
from unalike.serve.resources import GalleryResource
from unalike.serve.routes.classes import MAX_LABEL, find_labels
from unalike.serve.service import Service
from unalike.serve.uploads import Parameters

MAX_CHOICES = 20
DOUBTFUL_FIRST = "doubtful"


def recognize_pages(service: Service) -> APIRouter:
    """The page and its parts."""
    router = APIRouter(include_in_schema=False)

    @router.get("/recognize")
    async def recognize(request: Request) -> Response:
        values = await _answers(service, request)
        return render_page(
            request, "recognize.html.j2", service=service, new_batch=values["batch"] or new_batch(), **values,
            first_states=FIRST_STATES,
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
        view = await _answers_of(resource).one(service, request, decision_id)
        return render_page(request, "fragments/answer.html.j2", gallery=resource.name, answer=view)

    @router.get("/recognize/choices")
    async def choices(request: Request) -> Response:
        resource, parameters = _gallery(service, request)
        search = (parameters.text("search", "", most=MAX_LABEL) or "").strip()
        first = parameters.text("first", most=MAX_LABEL)
        parameters.finish()
        labels = find_labels(await asyncio.to_thread(resource.gallery.counts), search)
        # What is the text, or begins with it, comes first; among those the likely one.
        labels.sort(
            key=lambda label: (
                label.casefold() != search.casefold(),
                not label.casefold().startswith(search.casefold()),
                label != first,
            )
        )
        return render_page(
            request, "fragments/choices.html.j2", gallery=resource.name, labels=labels[:MAX_CHOICES], total=len(labels),
            new_label=None if search in labels else search,
        )  # fmt: skip

    return router


def _gallery(service: Service, request: Request) -> tuple[GalleryResource, Parameters]:
    """The gallery that an address names, and its other parameters."""
    parameters = Parameters.of_query(request)
    return service.gallery(request, parameters.text("gallery")), parameters


def _answers_of(resource: GalleryResource) -> AnswerList:
    return AnswerList("identify", resource.name, "gallery", lambda records: view_answers(records, resource))


async def _answers(service: Service, request: Request) -> dict[str, Any]:
    resource, parameters = _gallery(service, request)
    order = parameters.choice("order", (DOUBTFUL_FIRST,))
    values = await _answers_of(resource).page(service, request, parameters)
    if order == DOUBTFUL_FIRST:
        values["answers"] = sort_doubtful_first(values["answers"])
    return {
        "gallery": resource.name, "order": order, "states": list(STATES), "counts": count_states(values["answers"]),
        **values, **await asyncio.to_thread(_gallery_state, resource),
    }  # fmt: skip


def _gallery_state(resource: GalleryResource) -> dict[str, Any]:
    """Whether there is anything to compare with, and what stands behind the answers."""
    with resource.gallery.view() as view:
        return {"is_empty": not view.size[0], "calibration": view.calibration, "stale": view.stale}
