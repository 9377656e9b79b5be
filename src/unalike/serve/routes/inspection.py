"""Endpoint ``inspect``: defects in images, by an inspector."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.data.decode import open_image
from unalike.errors import UnreadableImage
from unalike.inspection.result import DEFECTIVE
from unalike.serve.answers import UnreadableModel
from unalike.serve.documents import add_scoped, image_body, problems
from unalike.serve.problems import Problem
from unalike.serve.request_context import RequestContext, context_of
from unalike.serve.resources import InspectorResource
from unalike.serve.routes.decisions import DecisionId, decision_upload, find_decision, image_response
from unalike.serve.routes.recognition import require_images, separate
from unalike.serve.service import Service, display_name, json_response
from unalike.serve.store import DecisionRecord
from unalike.serve.uploads import Parameters, Upload, file_name


class InspectionModel(BaseModel):
    index: int
    path: str
    id: str
    decision: str
    score: float
    threshold: float | None
    spots: list[dict[str, Any]]
    size: list[int] = Field(description="Height and width of the image, in pixels.")
    overlay: str | None


class InspectModel(BaseModel):
    inspector: str
    engine: dict[str, Any]
    alarm: dict[str, Any] | None
    images: int
    defective: int
    measured: None
    answers: list[InspectionModel]
    unreadable: list[UnreadableModel]


def inspection_router(service: Service) -> APIRouter:
    """The endpoint."""
    router = APIRouter()

    def inspect_one(resource: InspectorResource, context: RequestContext, overlay: bool, upload: Upload) -> Any:
        """The answer for one image, recorded; or why it cannot be read."""
        try:
            service.check_size(upload)
            result = resource.inspector.inspect(upload.content)
        except UnreadableImage as error:
            return service.named_error(error, upload)
        plain = {**result.to_dict(), "path": display_name(upload.name), "size": list(result.size)}
        record = DecisionRecord(
            "inspect", resource.name, result.decision, score=result.score, threshold=plain["threshold"],
            model=resource.address, image=service.kept_sha(upload), file=file_name(upload.name), request_id=context.id,
            actor=context.actor, result=plain,
        )  # fmt: skip
        service.decision_log.add([record])
        service.metrics.add_decision(resource.name, result.decision, result.score)
        picture = None
        if overlay:
            image = result.overlay(open_image(upload.content, decoding=resource.inspector.tiling.decoding))
            stream = io.BytesIO()
            image.save(stream, "PNG")
            picture = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
        return {"id": record.id, **plain, "overlay": picture}

    async def inspect(request: Request, name: str | None) -> Response:
        """Find defects in images; with ``overlay`` each answer holds a picture of them, as a data address (PNG)."""
        resource = service.inspector(request, name)
        service.work.refuse_overload()
        form = await service.read_form(request)
        parameters = Parameters(form.values)
        overlay = parameters.boolean("overlay")
        parameters.finish()
        uploads = require_images(form)
        context = context_of(request)
        results = await service.work_on(
            request, [partial(inspect_one, resource, context, overlay, upload) for upload in uploads]
        )
        answers, unreadable = separate(uploads, results)
        inspector = resource.inspector
        return json_response({
            "inspector": resource.name, "engine": resource.engine_description,
            "alarm": None if inspector.threshold is None else inspector.threshold.to_dict(),
            "images": len(answers), "defective": sum(answer["decision"] == DEFECTIVE for answer in answers),
            "measured": None, "answers": answers, "unreadable": unreadable,
        })  # fmt: skip

    add_scoped(router, "POST", "inspectors", "/inspect", inspect, answer=InspectModel, summary="Find defects in images.",
               extra=image_body({"image": "One or several images."}, {"overlay": {"type": "boolean", "default": False}}))  # fmt: skip
    _add_map(service, router)
    return router


def _add_map(service: Service, router: APIRouter) -> None:
    def draw(record: DecisionRecord, content: bytes) -> bytes:
        """The anomaly map of the image of a decision, on the scale of the threshold that the decision had."""
        resource = service.resources.inspector(record.resource)
        result = resource.inspector.inspect(content)
        if record.threshold is not None:
            result = replace(result, threshold=record.threshold)
        stream = io.BytesIO()
        result.heat_layer().save(stream, "PNG")
        return stream.getvalue()

    @router.get(
        "/v1/decisions/{id}/anomaly-map", response_class=Response, tags=["decisions"],
        summary="Where the image of a decision of inspect is anomalous: a layer to lay over it.",
        responses={**problems(), 200: {"description": "PNG, transparent below half the threshold, red from 1.5 times on.",
                                       "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}},
    )  # fmt: skip
    async def anomaly_map(request: Request, id: DecisionId) -> Response:
        """Computed anew by the inspector as it is now."""
        Parameters.of_query(request).finish()
        record = await find_decision(service.store, context_of(request), id)
        if record.kind != "inspect":
            raise Problem(404, "no-map", f"a decision of {record.kind} has no anomaly map", expected="one of inspect")
        upload = await decision_upload(service, request, id)
        (content,) = await service.work_on(request, [partial(draw, record, upload.content)])
        return image_response(content, "image/png")
