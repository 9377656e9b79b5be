"""Endpoints ``images``, ``good-images`` and ``fits``: send good images or count those of answers, and have an inspector fitted to them."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.errors import UnreadableImage, closest
from unalike.inference.model_files import PRETRAINED, is_pretrained
from unalike.metrics.false_alarm import images_needed
from unalike.serve.answers import UnreadableModel
from unalike.serve.changes import Change
from unalike.serve.documents import add_scoped, image_body, json_body, problems, query_parameters
from unalike.serve.good_images import collect_good_images
from unalike.serve.inspector_fits import KIND
from unalike.serve.problems import Problem
from unalike.serve.request_context import context_of
from unalike.serve.routes.decisions import read_time
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
_TIME = {"type": "string", "format": "date-time"}


class KeptImage(BaseModel):
    index: int
    path: str
    sha256: str = Field(description="Content hash by which the image is named.")


class KeptImages(BaseModel):
    images: list[KeptImage]
    unreadable: list[UnreadableModel]


class GoodImagesModel(BaseModel):
    inspector: str
    images: int = Field(
        description="Number of pictures that people called good, and that are kept; each content counts once."
    )
    not_kept: int = Field(description="Number of good decisions whose picture is not kept.")


def fits_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["fits"])
    _add_images(service, router)
    _add_good_images(service, router)
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


def _add_good_images(service: Service, router: APIRouter) -> None:
    async def good_images(request: Request, name: str | None) -> Response:
        """A decision ``good`` that was confirmed, or ``defective`` that was called wrong; of a picture the newest that was judged counts."""
        resource = service.inspector(request, name)
        parameters = Parameters.of_query(request)
        since, until = read_time(parameters, "since"), read_time(parameters, "until")
        parameters.finish()
        good = await asyncio.to_thread(collect_good_images, service.store, resource.name, since, until)
        return json_response({"inspector": resource.name, "images": len(good.images), "not_kept": good.not_kept})

    add_scoped(router, "GET", "inspectors", "/good-images", good_images, answer=GoodImagesModel,
               summary="Count the pictures that people called good, to which an inspector can be fitted.",
               extra=query_parameters(since=_TIME, until=_TIME))  # fmt: skip


def _add_fits(service: Service, router: APIRouter) -> None:
    store = service.store
    decisions = {
        "type": "object", "required": ["inspector"], "additionalProperties": False,
        "properties": {"inspector": {"type": "string"}, "since": _TIME, "until": _TIME},
        "description": "Also the kept pictures of this inspector's decisions that people called good (GET /v1/good-images counts them).",
    }  # fmt: skip
    image = {
        "type": "object", "required": ["sha256"], "additionalProperties": False,
        "properties": {"sha256": {"type": "string"}, "name": {"type": "string"}},
    }  # fmt: skip
    schema = json_body({
        "name": {"type": "string", "description": "Name of the inspector, which no other has."},
        "images": {"type": "array", "items": image, "maxItems": MAX_IMAGES,
                   "description": "Good images, as POST /v1/images answered them."},
        "decisions": decisions,
        "defects": {"type": "array", "items": image, "maxItems": MAX_DEFECTS, "description": "A few defective images, where there are any."},
        "rate": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "default": 0.01,
                 "description": "Share of good images that may be called defective."},
        "light": {"type": "string", "enum": list(LIGHTS), "default": "as-is"},
        "fit": {"type": "string", "enum": list(FITS), "default": "auto"},
        "network": {"type": "string", "description": "An inspector whose network is used, or pretrained[:NAME]; unset, that of the "
                                                     "first inspector, or else pretrained."},
        "ignore_boxes": BOXES_SCHEMA,
    }, ["name"])  # fmt: skip

    @router.post("/v1/fits", response_class=Response, summary="Fit an inspector to good images, beside the service's requests.",
                 status_code=202, responses={**problems(409), 202: {"model": TaskModel}}, openapi_extra=schema)  # fmt: skip
    async def fit(request: Request) -> Response:
        """The answer is a task, of which ``GET /v1/tasks/ID`` says how far it is. The inspector is served when it is done."""
        require_gallery(context_of(request), "endpoint", "fits")
        values = parse_json(await read_body(request, MAX_BODY))
        name, options = read_fit(service, dict(values))
        details = {"defects": len(options["defects"]), "rate": options["rate"], "decisions": options["decisions"]}

        def check() -> None:
            service.inspectors.require_free(name)
            _require_kept(service, options)
            not_kept = _add_good_decisions(service, options)
            details["images"] = len(options["images"])
            _require_enough(options, not_kept)

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
    decisions = _read_decisions(service, values.pop("decisions", None))
    parameters = Parameters(values)
    name = parameters.text("name", "", most=64) or ""
    rate = parameters.number("rate", 0.01, 1e-6, 0.999)
    light, fit = parameters.choice("light", LIGHTS) or LIGHTS[0], parameters.choice("fit", FITS) or FITS[0]
    network = parameters.text("network", most=200)
    parameters.finish()
    return name, {
        "images": images, "defects": defects, "rate": rate, "light": light, "fit": fit, "ignore_boxes": [list(box) for box in boxes],
        "network": _find_network(service, network), "target": str(service.inspectors.path(name).absolute()),
        "decisions": decisions,
    }  # fmt: skip


def _read_decisions(service: Service, value: Any) -> dict[str, str] | None:
    """The inspector whose good decisions are taken, and their time. Raises Problem."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Problem(
            422, "invalid-value", "decisions: no object", expected='{"inspector": ..., "since": ..., "until": ...}'
        )
    parameters = Parameters(value)
    name = parameters.text("inspector", "", most=200) or ""
    times = {part: read_time(parameters, part) for part in ("since", "until")}
    parameters.finish()
    if name not in service.resources.inspectors:
        raise Problem(422, "invalid-value", f"no inspector {name[:64]!r} whose decisions could be taken",
                      expected="the name of an inspector", remedy=closest(name, service.resources.inspectors))  # fmt: skip
    return {"inspector": name, **{part: time.isoformat() for part, time in times.items() if time is not None}}


def _add_good_decisions(service: Service, options: dict[str, Any]) -> int:
    """Add the pictures of decisions that people called good to the images of a fit, each content once, the newest first.

    Returns:
        Number of good decisions whose picture is not kept.
    """
    if options["decisions"] is None:
        return 0
    since, until = (
        None if (text := options["decisions"].get(part)) is None else datetime.fromisoformat(text) for part in ("since", "until")
    )  # fmt: skip
    good = collect_good_images(service.store, options["decisions"]["inspector"], since, until)
    own = {entry["sha256"] for entry in [*options["images"], *options["defects"]]}
    options["images"] = (options["images"] + [entry for entry in good.images if entry["sha256"] not in own])[
        :MAX_IMAGES
    ]
    return good.not_kept


def _require_enough(options: dict[str, Any], not_kept: int) -> None:
    """Refuse too few good images. Raises Problem (422)."""
    count, rate = len(options["images"]), options["rate"]
    least = max(2, images_needed(rate))
    if count >= least:
        return
    missing = least - count
    lost = f" ({not_kept} more were called good, and their picture is not kept)" if not_kept else ""
    raise Problem(422, "no-images", f"{count} good images{lost}: {missing} too few for {100 * rate:.3g} % false alarms",
                  expected=f"at least {least} images", remedy="send more good images, confirm more answers of an inspector, or allow a "
                  "larger share of false alarms")  # fmt: skip


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
