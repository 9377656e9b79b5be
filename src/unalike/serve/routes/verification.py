"""Endpoint ``verify``: whether images show an approved asset, unaltered."""

from __future__ import annotations

import asyncio
import io
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from PIL import Image
from pydantic import BaseModel
from starlette.responses import Response

from unalike.data.class_names import normalize_class_name
from unalike.errors import UnreadableImage, closest
from unalike.serve.answers import UnreadableModel
from unalike.serve.documents import add_scoped, image_body, query_parameters
from unalike.serve.problems import Problem
from unalike.serve.request_context import RequestContext, context_of
from unalike.serve.resources import AssetsResource
from unalike.serve.routes.decisions import image_response
from unalike.serve.routes.recognition import require_images, separate
from unalike.serve.service import Service, display_name, json_response
from unalike.serve.store import DecisionRecord
from unalike.serve.uploads import Parameters, Upload, file_name
from unalike.verification.asset import Asset
from unalike.verification.result import ANSWERS, DIFFERENT

MAX_NAME = 1000


class VerifyModel(BaseModel):
    reference: str
    assets: int
    calibration: dict[str, Any] | None
    answers: dict[str, int]
    verdicts: list[dict[str, Any]]
    unreadable: list[UnreadableModel]


def verification_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter()
    _add_verify(service, router)
    _add_picture(service, router)
    return router


def _add_verify(service: Service, router: APIRouter) -> None:
    async def verify(request: Request, name: str | None) -> Response:
        """Decide for each image whether it shows an approved asset unaltered: same, altered, different, not in the set."""
        resource = service.asset_set(request, name)
        service.work.refuse_overload()
        form = await service.read_form(request)
        parameters = Parameters(form.values)
        asset = parameters.text("asset")
        parameters.finish()
        if asset is not None:
            resource.verifier.asset_number(asset)
        uploads = require_images(form)
        context = context_of(request)
        results = await service.work_on(
            request, [partial(_verify_one, service, resource, context, asset, upload) for upload in uploads]
        )
        verdicts, unreadable = separate(uploads, results)
        counts = {answer: sum(verdict["answer"] == answer for verdict in verdicts) for answer in ANSWERS}
        thresholds = resource.verifier.thresholds
        return json_response({
            "reference": resource.name, "assets": len(resource.verifier.approved.assets),
            "calibration": None if thresholds is None else thresholds.to_dict(),
            "answers": {answer: count for answer, count in counts.items() if count}, "verdicts": verdicts,
            "unreadable": unreadable,
        })  # fmt: skip

    asset = {"type": "string", "description": "Name of the asset that each image should show; unset, any of them."}
    add_scoped(router, "POST", "assets", "/verify", verify, answer=VerifyModel,
               summary="Check that images show an approved asset, unaltered.",
               extra=image_body({"image": "One or several images."}, {"asset": asset}))  # fmt: skip


def _verify_one(
    service: Service, resource: AssetsResource, context: RequestContext, asset: str | None, upload: Upload
) -> Any:
    """The answer for one image, recorded; or why it cannot be read."""
    try:
        service.check_size(upload)
        result = resource.verifier.verify(upload.content, asset)
    except UnreadableImage as error:
        return service.named_error(error, upload)
    plain = {"path": display_name(upload.name), **result.to_dict()}
    shows_asset = result.answer in ANSWERS[: ANSWERS.index(DIFFERENT)]
    record = DecisionRecord(
        "verify", resource.name, result.answer, label=result.asset if shows_asset else None, nearest=result.asset,
        score=result.score, threshold=result.threshold, model=resource.address, image=service.kept_sha(upload),
        file=file_name(upload.name), request_id=context.id, actor=context.actor, result=plain,
    )  # fmt: skip
    service.decision_log.add([record])
    service.metrics.add_decision(resource.name, result.answer, result.score)
    return {"id": record.id, **plain}


def _add_picture(service: Service, router: APIRouter) -> None:
    async def picture(request: Request, name: str | None) -> Response:
        """An approved asset as the set holds it, without its background."""
        resource = service.asset_set(request, name)
        parameters = Parameters.of_query(request)
        wanted_name = parameters.text("asset", "", most=MAX_NAME) or ""
        parameters.finish()
        approved = resource.verifier.approved
        if normalize_class_name(wanted_name) not in [normalize_class_name(own) for own in approved.names]:
            raise Problem(404, "no-asset", f"no asset {wanted_name[:100]!r} in the set {resource.name}",
                          remedy=closest(wanted_name, approved.names))  # fmt: skip
        asset = approved.assets[resource.verifier.asset_number(wanted_name)]
        return image_response(await asyncio.to_thread(_draw, asset), "image/png")

    content = {"image/png": {"schema": {"type": "string", "format": "binary"}}}
    extra = query_parameters(asset={"type": "string", "minLength": 1, "description": "Name of the asset."})
    extra["responses"] = {"200": {"description": "The picture, with transparency.", "content": content}}
    add_scoped(
        router, "GET", "assets", "/asset-picture", picture, summary="The picture of an approved asset.", extra=extra
    )


def _draw(asset: Asset) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(asset.layer_HW4).save(stream, "PNG")
    return stream.getvalue()
