"""Endpoint ``classes/separation``: how well a class is separated from the others, and its look-alikes."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.data.class_names import normalize_class_name
from unalike.recognition.separation import MEASURED, MOST_MEASURED, Separation, measure_separation
from unalike.serve.documents import add_scoped, query_parameters
from unalike.serve.problems import Problem
from unalike.serve.request_context import context_of
from unalike.serve.resources import GalleryResource
from unalike.serve.routes.classes import MAX_LABEL, no_class
from unalike.serve.service import Service, json_response
from unalike.serve.uploads import Parameters


class LookAlikeModel(BaseModel):
    label: str
    references: int = Field(
        description="Number of measured references whose nearest foreign reference is of this class."
    )
    score: float = Field(description="Highest cosine of those.")


class SeparationModel(BaseModel):
    gallery: str
    label: str
    references: int = Field(description="Number of references of the class.")
    measured: int = Field(description="Number of those that were measured, evenly spread.")
    own: float | None = Field(
        description="Mean cosine to the nearest other reference of the class; null where it has one alone."
    )
    other: float | None = Field(
        description="Mean cosine to the nearest reference of another class; null where there is none."
    )
    margin: float | None = Field(description="Mean of own - other.")
    closer_to_others: int | None = Field(
        description="Number of measured references that are at least as near to another class as to their own."
    )
    look_alikes: list[LookAlikeModel] = Field(
        description="Classes of the nearest foreign references, the most frequent first."
    )


def separation_router(service: Service) -> APIRouter:
    """The endpoint."""
    router = APIRouter()

    async def separation(request: Request, name: str | None) -> Response:
        """Compare each reference with the nearest other one of its class and with the nearest of another class."""
        resource = service.gallery(request, name)
        parameters = Parameters.of_query(request)
        label = normalize_class_name(parameters.text("label", "", most=MAX_LABEL) or "")
        sample = parameters.integer("sample", MEASURED, 1, MOST_MEASURED)
        parameters.finish()
        if not label.strip():
            raise Problem(422, "invalid-value", "no label", expected="label: the name of a class")
        result = await find_separation(service, request, resource, label, sample)
        return json_response({"gallery": resource.name, "label": label, **asdict(result)})

    add_scoped(router, "GET", "galleries", "/classes/separation", separation, answer=SeparationModel,
               summary="How well a class is separated from the others.",
               extra=query_parameters(
                   label={"type": "string", "minLength": 1, "maxLength": MAX_LABEL},
                   sample={"type": "integer", "minimum": 1, "maximum": MOST_MEASURED, "default": MEASURED,
                             "description": "Most references that are measured."},
               ))  # fmt: skip
    return router


async def find_separation(
    service: Service, request: Request, resource: GalleryResource, label: str, sample: int = MEASURED
) -> Separation:
    """Measure a class in the work pool; the measurement ends with the request.

    Raises:
        Problem: 404, there is no such class.
        Overloaded, HungUp, TimeoutError.
    """
    stop, deadline = threading.Event(), context_of(request).deadline

    def check() -> None:
        if stop.is_set() or time.monotonic() > deadline:
            raise TimeoutError

    def measure() -> Separation:
        with resource.gallery.view() as view:
            counts = view.counts()
            if label not in counts:
                raise no_class(label, list(counts))
            return measure_separation(view, label, sample, check)

    try:
        return (await service.work_on(request, [measure]))[0]
    finally:
        stop.set()
