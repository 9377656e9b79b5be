"""Endpoints ``images`` and ``fits``: send good images, and have an inspector fitted to them."""

from __future__ import annotations

import asyncio
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.errors import UnreadableImage, closest
from unalike.inference.model_files import PRETRAINED, is_pretrained
from unalike.metrics.false_alarm import require_images as require_rate
from unalike.serve.answers import UnreadableModel
from unalike.serve.changes import Change
from unalike.serve.documents import image_body, json_body, problems
from unalike.serve.inspector_fits import KIND
from unalike.serve.problems import Problem
from unalike.serve.request_context import context_of
from unalike.serve.routes.inspectors import BOXES_SCHEMA
from unalike.serve.routes.recognition import require_images, separate
from unalike.serve.routes.tasks import TaskModel, add_task
from unalike.serve.security import require_gallery
from unalike.serve.service import Service, display_name, json_response
from unalike.serve.store import TaskRecord
from unalike.serve.store.images import check_sha
from unalike.serve.uploads import Parameters, Upload, parse_json, read_body, read_boxes

MAX_BODY = 4 << 20
MAX_IMAGES, MAX_DEFECTS = 5000, 500
LIGHTS, FITS = ("as-is", "even"), ("auto", "scale", "whole")


class KeptImage(BaseModel):
    index: int
    path: str
    sha256: str = Field(description="Content hash by which the image is named.")


class KeptImages(BaseModel):
    images: list[KeptImage]
    unreadable: list[UnreadableModel]


def fits_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["fits"])
    _add_images(service, router)
    _add_fits(service, router)
    return router


def _add_images(service: Service, router: APIRouter) -> None:
    def keep(upload: Upload) -> dict[str, Any] | UnreadableImage:
        try:
            service.check_size(upload)
        except UnreadableImage as error:
            return service.named_error(error, upload)
        return {"path": display_name(upload.name), "sha256": service.store.images.put(upload.content)}

    @router.post("/v1/images", response_class=Response, summary="Keep images, to name them by their content hashes later.",
                 responses={**problems(507), 200: {"model": KeptImages}},
                 openapi_extra=image_body({"image": "One or several images."}))  # fmt: skip
    async def images(request: Request) -> Response:
        require_gallery(context_of(request), "endpoint", "images")
        form = await service.read_form(request)
        Parameters(form.values).finish()
        uploads = require_images(form)
        results = await asyncio.gather(*(asyncio.to_thread(keep, upload) for upload in uploads))
        entries, unreadable = separate(uploads, results)
        return json_response({"images": entries, "unreadable": unreadable})


def _add_fits(service: Service, router: APIRouter) -> None:
    store = service.store
    image = {
        "type": "object", "required": ["sha256"], "additionalProperties": False,
        "properties": {"sha256": {"type": "string"}, "name": {"type": "string"}},
    }  # fmt: skip
    schema = json_body({
        "name": {"type": "string", "description": "Name of the inspector, which no other has."},
        "images": {"type": "array", "items": image, "minItems": 2, "maxItems": MAX_IMAGES,
                   "description": "Good images, as POST /v1/images answered them."},
        "defects": {"type": "array", "items": image, "maxItems": MAX_DEFECTS, "description": "A few defective images, where there are any."},
        "rate": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "default": 0.01,
                 "description": "Share of good images that may be called defective."},
        "light": {"type": "string", "enum": list(LIGHTS), "default": "as-is"},
        "fit": {"type": "string", "enum": list(FITS), "default": "auto"},
        "network": {"type": "string", "description": "An inspector whose network is used, or pretrained[:NAME]; unset, that of the "
                                                     "first inspector, or else pretrained."},
        "ignore_boxes": BOXES_SCHEMA,
    }, ["name", "images"])  # fmt: skip

    @router.post("/v1/fits", response_class=Response, summary="Fit an inspector to good images, beside the service's requests.",
                 status_code=202, responses={**problems(409), 202: {"model": TaskModel}}, openapi_extra=schema)  # fmt: skip
    async def fit(request: Request) -> Response:
        """The answer is a task, of which ``GET /v1/tasks/ID`` says how far it is. The inspector is served when it is done."""
        require_gallery(context_of(request), "endpoint", "fits")
        values = parse_json(await read_body(request, MAX_BODY))
        name, options = read_fit(service, dict(values))
        details = {"images": len(options["images"]), "defects": len(options["defects"]), "rate": options["rate"]}

        def check() -> None:
            service.inspectors.require_free(name)
            _require_kept(service, options)

        def add(change: Change, connection: sa.Connection) -> TaskRecord:
            if store.tasks.is_open(KIND, name, connection=connection):
                raise Problem(409, "name-taken", f"an inspector {name!r} is being fitted", expected="another name")
            actor, request_id = change.context.actor, change.context.id
            return store.tasks.add(KIND, name, options, actor=actor, request_id=request_id, connection=connection)

        return await add_task(service, request, values, "inspectors.fit", name, details, add, check)


def read_fit(service: Service, values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of an inspector, and the options of its fit, from the body of a request. Raises Problem, DataError."""
    images, defects = (_read_images(values.pop(part, []), part, most)
                       for part, most in (("images", MAX_IMAGES), ("defects", MAX_DEFECTS)))  # fmt: skip
    boxes = read_boxes(values.pop("ignore_boxes", []), "ignore_boxes")
    parameters = Parameters(values)
    name = parameters.text("name", "", most=64) or ""
    rate = parameters.number("rate", 0.01, 1e-6, 0.999)
    light, fit = parameters.choice("light", LIGHTS) or LIGHTS[0], parameters.choice("fit", FITS) or FITS[0]
    network = parameters.text("network", most=200)
    parameters.finish()
    if len(images) < 2:
        raise Problem(422, "no-images", f"{len(images)} images", expected="at least 2, better a hundred",
                      remedy="send them to POST /v1/images first")  # fmt: skip
    assert rate is not None
    require_rate(len(images), rate)
    return name, {
        "images": images, "defects": defects, "rate": rate, "light": light, "fit": fit, "ignore_boxes": [list(box) for box in boxes],
        "network": _find_network(service, network), "target": str(service.inspectors.path(name).absolute()),
    }  # fmt: skip


def _read_images(entries: Any, name: str, most: int) -> list[dict[str, str]]:
    is_list = isinstance(entries, list) and len(entries) <= most
    if not is_list or not all(isinstance(entry, dict) and isinstance(entry.get("sha256"), str) for entry in entries):
        raise Problem(422, "invalid-value", f"{name}: no list of images", expected=f'at most {most} entries {{"sha256": ..., "name": ...}}',
                      remedy="send them to POST /v1/images first")  # fmt: skip
    return [
        {"sha256": check_sha(entry["sha256"]), "name": display_name(str(entry.get("name", ""))) or entry["sha256"][:12]}
        for entry in entries
    ]


def _find_network(service: Service, name: str | None) -> str:
    """The file of an inspector whose network is used, or ``pretrained[:NAME]``. Raises Problem (422)."""
    inspectors = service.resources.inspectors
    if name is None:
        first = next(iter(inspectors.values()), None)
        return PRETRAINED if first is None else first.address
    if is_pretrained(name):
        return name
    if name not in inspectors:
        raise Problem(422, "invalid-value", f"no inspector {name[:64]!r} whose network could be used",
                      expected="pretrained, or the name of an inspector", remedy=closest(name, inspectors))  # fmt: skip
    return inspectors[name].address


def _require_kept(service: Service, options: dict[str, Any]) -> None:
    """Refuse images that the store does not have. Raises Problem (404)."""
    for entry in [*options["images"], *options["defects"]]:
        if not service.store.images.exists(entry["sha256"]):
            raise Problem(
                404, "no-image", f"the image {entry['name']!r} is not kept", remedy="send it to POST /v1/images"
            )
