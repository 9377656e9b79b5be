"""Endpoint ``explain``: which parts of an image make it like a reference."""

from __future__ import annotations

import asyncio
import base64
import io
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.errors import DataError, UnreadableImage
from unalike.explanation.explainer import Explainer, Explanation
from unalike.explanation.pictures import AGAINST, FOR, overlay_map
from unalike.serve.batching import EmbedFinish
from unalike.serve.documents import add_scoped, image_body
from unalike.serve.problems import Problem
from unalike.serve.request_context import answered_in_time
from unalike.serve.resources import GalleryResource
from unalike.serve.routes.decisions import decision_upload
from unalike.serve.service import Service, display_name, json_response
from unalike.serve.store.references import hash_of_reference
from unalike.serve.uploads import Parameters, Upload

MAX_ID = 2**63 - 1
PREPARATION_S = 10  # after so long it may be ready


class PairModel(BaseModel):
    query: str
    query_label: str
    reference: str
    reference_label: str
    why: dict[str, Any]
    pictures: dict[str, str] | None = Field(
        default=None,
        description="With `pictures`: the maps over what the network sees, as JPEG in base64; query_for, query_against, "
        "reference_for, reference_against.",
    )


class ExplainModel(BaseModel):
    gallery: str
    pairs: list[PairModel]


def explanation_router(service: Service) -> APIRouter:
    """The endpoint."""
    router = APIRouter()

    async def explain(request: Request, name: str | None) -> Response:
        """Explain why an image is like a reference: the nearest one, one by id (``reference_id``), or another image.

        In place of the image, ``decision`` names a decision whose image is explained.
        """
        resource = service.gallery(request, name)
        service.work.refuse_overload()
        form = await service.read_form(request, ("image", "reference"))
        parameters = Parameters(form.values)
        reference_id = parameters.integer("reference_id", -1, 0, MAX_ID)
        decision_id, with_pictures = parameters.text("decision", most=64), parameters.boolean("pictures")
        parameters.finish()
        if decision_id is not None:
            form.images.append(await decision_upload(service, request, decision_id))
        queries = [upload for upload in form.images if upload.field == "image"]
        others = [upload for upload in form.images if upload.field == "reference"]
        if len(queries) != 1 or len(others) > 1:
            raise Problem(422, "no-images", f"{len(queries)} images and {len(others)} references",
                          expected="one image, and at most one reference")  # fmt: skip
        if others:
            service.check_size(others[0])
            content: Any = others[0].content
            reference, label = display_name(others[0].name), ""
        else:
            if reference_id < 0:
                reference_id = await _nearest(service, request, resource, queries[0])
            content, reference, label = await asyncio.to_thread(_picture, service, resource, reference_id)
        explainer = await _explainer(service, request, resource)
        pairs = await service.work_on(
            request, [lambda: _explain_pair(service, explainer, queries[0], content, reference, label, with_pictures)]
        )
        return json_response({"gallery": resource.name, "pairs": pairs})

    add_scoped(
        router, "POST", "galleries", "/explain", explain, answer=ExplainModel, summary="Explain why an image is like a reference.",
        extra=image_body({"image": "The image."}, {
            "reference_id": {"type": "integer", "minimum": 0, "description": "Id of a reference; unset, the nearest one."},
            "decision": {"type": "string", "description": "Id of a decision whose image is explained, in place of an image."},
            "pictures": {"type": "boolean", "default": False, "description": "Answer the maps as pictures too."},
        }, required=()),
    )  # fmt: skip
    return router


def _explain_pair(
    service: Service, explainer: Explainer, query: Upload, other: Any, reference: str, label: str, with_pictures: bool
) -> dict[str, Any]:
    try:
        service.check_size(query)
        explanation = explainer.explain(query.content, other)
    except UnreadableImage as error:
        raise service.named_error(error, query) from error
    pair = {"query": display_name(query.name), "query_label": "", "reference": reference, "reference_label": label,
            "why": explanation.to_dict()}  # fmt: skip
    return pair | ({"pictures": draw_maps(explanation)} if with_pictures else {})


def draw_maps(explanation: Explanation) -> dict[str, str]:
    """The four maps over the network's views of both images, as JPEG in base64; all on one scale."""
    sides = {
        "query": (explanation.query_HWC, explanation.query),
        "reference": (explanation.reference_HWC, explanation.reference),
    }
    largest = max(
        float(values.max(initial=0)) for _, part in sides.values() for values in (part.for_hw, part.against_hw)
    )
    pictures = {}
    for side, (image_HWC, evidence) in sides.items():
        for name, values_hw, color in (("for", evidence.for_hw, FOR), ("against", evidence.against_hw, AGAINST)):
            stream = io.BytesIO()
            overlay_map(image_HWC, values_hw, color, largest).save(stream, "JPEG", quality=85)
            pictures[f"{side}_{name}"] = base64.b64encode(stream.getvalue()).decode("ascii")
    return pictures


async def _explainer(service: Service, request: Request, resource: GalleryResource) -> Explainer:
    """The explainer of a gallery. Raises Problem (503) where it is not ready within the request's time, Overloaded."""
    try:
        with service.work.reserve():
            async with answered_in_time(request):
                return await service.explainers.get(resource)
    except TimeoutError as error:
        raise Problem(503, "being-prepared", "the network is still being prepared for explanations",
                      remedy="send it again later", headers={"Retry-After": str(PREPARATION_S)}) from error  # fmt: skip


async def _nearest(service: Service, request: Request, resource: GalleryResource, query: Upload) -> int:
    """Id of the reference nearest to an image. Raises UnreadableImage, DataError."""
    (vector,) = await service.embed(request, [query], resource.network, resource.view, EmbedFinish(), [query])
    if isinstance(vector, UnreadableImage):
        raise vector

    def search() -> int:
        with resource.gallery.view() as view:
            return int(view.search(vector[None], 1).ids_QK[0, 0])

    return await asyncio.to_thread(search)


def _picture(service: Service, resource: GalleryResource, id: int) -> tuple[Any, str, str]:
    """The picture of a reference, its name and class. Raises Problem, NoSuchImage, DataError."""
    entry = resource.gallery.entry(id)
    if entry is None:
        raise Problem(404, "no-reference", f"no reference {id}", expected="an id from GET /v1/references")
    sha = hash_of_reference(entry.name)
    if sha is None and not entry.name:
        raise DataError(
            f"reference {id} has no picture", remedy="enroll it through the service, or send another reference"
        )
    return (service.store.images.get(sha) if sha else entry.name), entry.name, entry.label
