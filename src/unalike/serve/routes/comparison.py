"""Endpoint ``compare``: where images differ from a reference, by pixels or by features of a network."""

from __future__ import annotations

import asyncio
import base64
import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from PIL import Image
from pydantic import BaseModel
from starlette.responses import Response

from unalike.data.decode import decode, upright_size
from unalike.errors import DataError, NotComparable, UnreadableImage
from unalike.serve.comparison_options import OPTIONS, choose_network, in_words, make_comparer, read_settings
from unalike.serve.documents import image_body, problems
from unalike.serve.problems import Problem
from unalike.serve.region_sets import Box, find_set, scale_boxes
from unalike.serve.request_context import RequestContext, context_of
from unalike.serve.routes.decisions import find_decision
from unalike.serve.security import require_gallery
from unalike.serve.service import Service, display_name, json_response
from unalike.serve.store import DecisionRecord
from unalike.serve.uploads import Form, Parameters, Upload, file_name, read_boxes

if TYPE_CHECKING:
    from unalike.comparison.result import ComparisonResult

RESOURCE = "compare"
JPEG_QUALITY = 88
_PARAMETERS: dict[str, Any] = {
    **OPTIONS,
    "ignore_boxes": {"type": "string", "description": "Boxes of the reference in which differences are ignored, as JSON: "
                                                      "[[left, top, right, bottom], ...]."},
    "regions": {"type": "string", "description": "Name of a set of regions that are ignored (/v1/region-sets)."},
    "pictures": {"type": "boolean", "default": False,
                 "description": "Answer pictures too, as JPEG in base64: image, reference (aligned), frame (the reference as it is), heat (of "
                                "pixels), heat_features."},
    "decision": {"type": "string", "description": "Id of a decision of compare, in place of images: its answer again, which is not "
                                                  "recorded; with pictures alone."},
}  # fmt: skip


class CompareModel(BaseModel):
    same: int
    different: int
    incomplete: int
    refused: int
    pairs: list[dict[str, Any]]


def comparison_router(service: Service) -> APIRouter:
    """The endpoint."""
    router = APIRouter(tags=["compare"])

    @router.post(
        "/v1/compare", response_class=Response, summary="Show where images differ from a reference, by pixels or features.",
        responses={**problems(), 200: {"model": CompareModel}},
        openapi_extra=image_body({"reference": "The reference.", "image": "One or several images."}, _PARAMETERS, raw=False,
                                 required=()),
    )  # fmt: skip
    async def compare(request: Request) -> Response:
        context = context_of(request)
        require_gallery(context, "endpoint", RESOURCE)
        service.work.refuse_overload()
        form = await service.read_form(request, ("reference", "image", "images"))
        # Loaded when it is first asked for, which takes a tenth of a second, in which others are answered.
        summary = (await asyncio.to_thread(importlib.import_module, "unalike.actions.compare")).summary
        boxes = read_boxes(form.values.pop("ignore_boxes", None), "ignore_boxes")
        parameters = Parameters(form.values)
        decision_id, with_pictures = parameters.text("decision", most=64), parameters.boolean("pictures")
        calls: list[Callable[[], dict[str, Any]]]
        if decision_id is not None:
            parameters.finish()
            record = await _find_comparison(service, context, decision_id)
            calls = [partial(_compare_again, service, record, with_pictures)]
        else:
            regions = parameters.text("regions")
            settings = read_settings(parameters)
            settings["network"] = choose_network(settings, service.resources.inspectors)
            reference, images = _pair(form)
            settings["ignore_boxes"] = await _ignored(service, reference, boxes, regions)
            make_comparer(
                settings, service.resources.inspectors
            )  # a setting that is out of range is said before anything is compared
            alone = len(images) == 1
            calls = [
                partial(_compare_one, service, settings, context, reference, image, alone, with_pictures)
                for image in images
            ]
        return json_response(summary(await service.work_on(request, calls)))

    return router


def _compare_one(
    service: Service, settings: Mapping[str, Any], context: RequestContext, reference: Upload, upload: Upload, alone: bool,
    with_pictures: bool,
) -> dict[str, Any]:  # fmt: skip
    """The entry of one pair, recorded; with an error where several are compared and this one cannot be."""
    names = {
        "name": display_name(upload.name),
        "reference": display_name(reference.name),
        "image": display_name(upload.name),
    }
    try:
        service.check_size(upload)
        service.check_size(reference)
        result = make_comparer(settings, service.resources.inspectors).compare(reference.content, upload.content)
    except DataError as error:
        named_error = _named(service, error, (reference, upload))
        if alone:
            raise named_error from error
        return {**names, "error": str(named_error)}
    size = list(upright_size(reference.content))
    plain = {**names, **_plain(result), "reference_size": size, "options": dict(settings)}
    score = max((region.score for region in result.regions), default=0.0)
    record = DecisionRecord(
        "compare", RESOURCE, result.answer, score=score, model=result.network, image=service.kept_sha(upload), file=file_name(upload.name),
        request_id=context.id, actor=context.actor, result={**plain, "reference_image": service.kept_sha(reference)},
    )  # fmt: skip
    service.decision_log.add([record])
    service.metrics.add_decision(RESOURCE, result.answer, None)
    return {"id": record.id, **plain, **({"pictures": draw_pictures(result)} if with_pictures else {})}


def _plain(result: ComparisonResult) -> dict[str, Any]:
    """A result as plain data; what it says to people names the options as the page does."""
    plain = result.to_dict()
    return plain | {
        "notes": [in_words(note) for note in plain["notes"]],
        "not_looked_for": in_words(plain["not_looked_for"]),
    }


def _compare_again(service: Service, record: DecisionRecord, with_pictures: bool) -> dict[str, Any]:
    """The entry of a decision, computed anew."""
    images = service.store.images
    sha, settings = record.result.get("reference_image"), record.result.get("options")
    if record.image is None or sha is None or settings is None:
        raise Problem(404, "no-image", "the images of this decision were not kept", remedy="send them again")
    result = make_comparer(settings, service.resources.inspectors).compare(images.get(sha), images.get(record.image))
    entry = {**record.result, **_plain(result), "id": record.id}
    return entry | ({"pictures": draw_pictures(result)} if with_pictures else {})


async def _find_comparison(service: Service, context: RequestContext, decision_id: str) -> DecisionRecord:
    """A decision of compare that the key of a request may see. Raises Problem (404)."""
    record = await find_decision(service.store, context, decision_id)
    if record.kind != "compare":
        raise Problem(404, "no-decision", f"a decision of {record.kind}", expected="one of compare")
    return record


def _named(service: Service, error: DataError, uploads: Sequence[Upload]) -> DataError:
    """An error with the client's name of the image that cannot be read, since the error knows bytes alone; in words of the page."""
    if isinstance(error, NotComparable):
        return NotComparable(in_words(error.found), expected=error.expected, remedy=in_words(error.remedy))
    for upload in uploads if isinstance(error, UnreadableImage) else ():
        try:
            service.check_size(upload)
            decode(upload.content)
        except UnreadableImage:
            return service.named_error(error, upload)  # type: ignore[arg-type]
    return error


def _pair(form: Form) -> tuple[Upload, list[Upload]]:
    """The reference and the images of a form. Raises Problem (422)."""
    references = [upload for upload in form.images if upload.field == "reference"]
    images = [upload for upload in form.images if upload.field != "reference"]
    if len(references) != 1 or not images:
        raise Problem(422, "no-images", f"{len(references)} references and {len(images)} images",
                      expected="one reference and at least one image",
                      remedy="curl -F reference=@approved.png -F image=@photo.jpg ...")  # fmt: skip
    return references[0], images


async def _ignored(
    service: Service, reference: Upload, boxes: Sequence[Box], name: str | None
) -> list[list[int]] | None:
    """Boxes of the reference that are ignored: those of the request, and those of a set, in the size of the reference."""
    regions = [list(box) for box in boxes]
    if name is not None:
        content = await asyncio.to_thread(find_set, service.store, name)
        size = await asyncio.to_thread(upright_size, reference.content)
        regions += [list(box) for box in scale_boxes(content, size)]
    return regions or None


def draw_pictures(result: ComparisonResult) -> dict[str, str]:
    """Pictures of a comparison as JPEG in base64, the first two of one size: image, aligned reference, the reference as it is, heat maps."""
    pictures = {
        "image": Image.fromarray(result.preview_HWC), "reference": result.reference(),
        "frame": Image.fromarray(result.reference_frame_HWC),
    }  # fmt: skip
    if result.heat_hw is not None:
        pictures["heat"] = result.heat_map("pixels")
    if result.features is not None:
        pictures["heat_features"] = result.heat_map("features")
    contents = {}
    for name, picture in pictures.items():
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=JPEG_QUALITY)
        contents[name] = base64.b64encode(stream.getvalue()).decode("ascii")
    return contents
