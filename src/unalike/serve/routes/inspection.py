"""Endpoint ``inspect``: defects in images, by an inspector."""

from __future__ import annotations

import base64
import io
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from unalike.data.decode import open_image
from unalike.errors import UnreadableImage
from unalike.inspection.result import DEFECTIVE
from unalike.serve.answers import UnreadableModel
from unalike.serve.documents import add_scoped, image_body
from unalike.serve.request_context import RequestContext, context_of
from unalike.serve.resources import InspectorResource
from unalike.serve.routes.recognition import require_images, separate
from unalike.serve.service import Service, display_name, json_response
from unalike.serve.store import DecisionRecord
from unalike.serve.uploads import Parameters, Upload


class InspectionModel(BaseModel):
    index: int
    path: str
    id: str
    decision: str
    score: float
    threshold: float | None
    spots: list[dict[str, Any]]
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
        plain = {**result.to_dict(), "path": display_name(upload.name)}
        record = DecisionRecord(
            "inspect", resource.name, result.decision, score=result.score, threshold=plain["threshold"],
            model=resource.address, image=service.kept_sha(upload), request_id=context.id, actor=context.actor, result=plain,
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
    return router
