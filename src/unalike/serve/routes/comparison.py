"""Endpoint ``compare``: where images differ from a reference, pixel by pixel."""

from __future__ import annotations

import asyncio
import importlib
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from unalike.errors import DataError
from unalike.serve.documents import image_body, problems
from unalike.serve.problems import Problem
from unalike.serve.request_context import RequestContext, context_of
from unalike.serve.security import require_gallery
from unalike.serve.service import Service, display_name, json_response
from unalike.serve.store import DecisionRecord
from unalike.serve.uploads import Parameters, Upload
from unalike.spec.compare import Alignment, Lighting

if TYPE_CHECKING:
    from unalike.comparison.comparer import Comparer

RESOURCE = "compare"
_ALIGNMENTS, _LIGHTINGS = get_args(Alignment), get_args(Lighting)
_PARAMETERS: dict[str, Any] = {
    "align": {"type": "string", "enum": list(_ALIGNMENTS), "default": "auto"},
    "lighting": {"type": "string", "enum": list(_LIGHTINGS), "default": "local"},
    "tolerance": {"type": "integer", "minimum": 0, "maximum": 32, "default": 3},
    "contrast": {"type": "number", "minimum": 1, "maximum": 255, "default": 40},
    "min_area": {"type": "integer", "minimum": 1, "maximum": 10**9, "default": 12},
    "mirror": {"type": "boolean", "default": False},
    "any_pose": {"type": "boolean", "default": False},
}


class CompareModel(BaseModel):
    same: int
    different: int
    incomplete: int
    refused: int
    pairs: list[dict[str, Any]]


def comparison_router(service: Service) -> APIRouter:
    """The endpoint."""
    router = APIRouter(tags=["compare"])

    def compare_one(
        comparer: Comparer, context: RequestContext, reference: Upload, upload: Upload, alone: bool
    ) -> dict[str, Any]:
        """The entry of one pair, recorded; with an error where several are compared and this one cannot be."""
        names = {
            "name": display_name(upload.name),
            "reference": display_name(reference.name),
            "image": display_name(upload.name),
        }
        try:
            service.check_size(upload)
            service.check_size(reference)
            result = comparer.compare(reference.content, upload.content)
        except DataError as error:
            if alone:
                raise
            return {**names, "error": str(error)}
        plain = {**names, **result.to_dict()}
        score = max((region.score for region in result.regions), default=0.0)
        record = DecisionRecord(
            "compare", RESOURCE, result.answer, score=score, image=service.kept_sha(upload), request_id=context.id,
            actor=context.actor, result=plain,
        )  # fmt: skip
        service.decision_log.add([record])
        service.metrics.add_decision(RESOURCE, result.answer, None)
        return {"id": record.id, **plain}

    @router.post(
        "/v1/compare", response_class=Response, summary="Show where images differ from a reference, by pixels.",
        responses={**problems(), 200: {"model": CompareModel}},
        openapi_extra=image_body({"reference": "The reference.", "image": "One or several images."}, _PARAMETERS, raw=False),
    )  # fmt: skip
    async def compare(request: Request) -> Response:
        context = context_of(request)
        require_gallery(context, "endpoint", RESOURCE)
        service.work.refuse_overload()
        form = await service.read_form(request, ("reference", "image", "images"))
        # Loaded when it is first asked for, which takes a tenth of a second, in which others are answered.
        await asyncio.to_thread(importlib.import_module, "unalike.actions.compare")
        comparer = _comparer(Parameters(form.values))
        references = [upload for upload in form.images if upload.field == "reference"]
        images = [upload for upload in form.images if upload.field != "reference"]
        if len(references) != 1 or not images:
            raise Problem(422, "no-images", f"{len(references)} references and {len(images)} images",
                          expected="one reference and at least one image",
                          remedy="curl -F reference=@approved.png -F image=@photo.jpg ...")  # fmt: skip
        alone = len(images) == 1
        calls = [partial(compare_one, comparer, context, references[0], image, alone) for image in images]
        from unalike.actions.compare import summary

        return json_response(summary(await service.work_on(request, calls)))

    return router


def _comparer(parameters: Parameters) -> Comparer:
    """The comparer that the parameters of a request ask for. Raises Problem, MissingExtra."""
    settings: dict[str, Any] = {
        "align": parameters.choice("align", _ALIGNMENTS) or "auto",
        "lighting": parameters.choice("lighting", _LIGHTINGS) or "local",
        "tolerance": parameters.integer("tolerance", 3, 0, 32), "contrast": parameters.number("contrast", 40.0, 1, 255),
        "min_area": parameters.integer("min_area", 12, 1, 10**9), "mirror": parameters.boolean("mirror"),
        "any_pose": parameters.boolean("any_pose"),
    }  # fmt: skip
    parameters.finish()
    from unalike.comparison.comparer import Comparer

    return Comparer(**settings)
