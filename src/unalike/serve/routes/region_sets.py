"""Endpoint ``region-sets``: regions that are ignored when images are compared, kept under names."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.data.class_names import hidden_sign, is_visible
from unalike.serve.changes import Change, apply_in_store, carry_out, request_digest
from unalike.serve.documents import json_body, problems, query_parameters
from unalike.serve.problems import Problem
from unalike.serve.region_sets import KIND, find_set
from unalike.serve.request_context import context_of
from unalike.serve.routes.inspectors import BOXES_SCHEMA
from unalike.serve.security import require_gallery
from unalike.serve.service import Service, json_response
from unalike.serve.uploads import Parameters, parse_json, read_body, read_boxes

MAX_BODY = 1 << 16
MAX_NAME, MAX_SIDE, MAX_SETS = 100, 10**6, 1000


class RegionSet(BaseModel):
    name: str
    frame: list[int] = Field(description="Height and width of the picture that the boxes belong to.")
    boxes: list[list[int]]


class RegionSets(BaseModel):
    sets: list[RegionSet]


class FormerSet(BaseModel):
    frame: list[int]
    boxes: list[list[int]]


class RegionSetChange(BaseModel):
    name: str
    frame: list[int] | None
    boxes: list[list[int]]
    former: FormerSet | None = Field(description="What the set was before; null where there was none.")


def region_set_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["region-sets"])
    _add_list(service, router)
    _add_keeping(service, router)
    _add_removal(service, router)
    return router


async def _change_set(
    service: Service, request: Request, name: str, action: str, content: dict[str, Any] | None
) -> Response:
    """Set the content of a set of regions, or remove it where that is None."""

    async def perform(change: Change) -> tuple[int, Any]:
        if content is None:
            await asyncio.to_thread(find_set, service.store, name)

        def function(connection: Any) -> tuple[int, Any]:
            former = service.store.settings.set(KIND, name, content, change.context.actor, connection=connection)
            return 200, {"name": name, "frame": None, "boxes": [], **(content or {}), "former": former}

        details = {"boxes": None if content is None else content["boxes"]}
        return await asyncio.to_thread(apply_in_store, service, change, action, name, details, function)

    return await carry_out(service, request, request_digest(request, {"name": name, "content": content}), perform)


def _add_list(service: Service, router: APIRouter) -> None:
    @router.get("/v1/region-sets", response_class=Response, summary="List the sets of regions by name.",
                responses={**problems(), 200: {"model": RegionSets}})  # fmt: skip
    async def sets(request: Request) -> Response:
        require_gallery(context_of(request), "endpoint", "region-sets")
        Parameters.of_query(request).finish()
        contents = await asyncio.to_thread(service.store.settings.all, KIND)
        return json_response({"sets": [{"name": name, **content} for name, content in contents.items()]})


def _add_keeping(service: Service, router: APIRouter) -> None:
    @router.post("/v1/region-sets", response_class=Response, summary="Keep a set of regions under a name, or replace it.",
                 responses={**problems(409), 200: {"model": RegionSetChange}},
                 openapi_extra=json_body({
                     "name": {"type": "string", "minLength": 1, "maxLength": MAX_NAME}, "boxes": BOXES_SCHEMA,
                     "frame": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "integer", "minimum": 1},
                               "description": "Height and width of the picture that the boxes belong to."},
                 }, ["name", "boxes", "frame"]))  # fmt: skip
    async def keep(request: Request) -> Response:
        require_gallery(context_of(request), "endpoint", "region-sets")
        values = parse_json(await read_body(request, MAX_BODY))
        boxes, frame = read_boxes(values.pop("boxes", None), "boxes"), _read_frame(values.pop("frame", None))
        parameters = Parameters(values)
        name = _read_name(parameters)
        parameters.finish()
        if not boxes or any(right > frame[1] or bottom > frame[0] for _, _, right, bottom in boxes):
            raise Problem(422, "invalid-value", "boxes that do not lie in the frame" if boxes else "no boxes",
                          expected=f"boxes within {frame[1]} x {frame[0]} pixels")  # fmt: skip
        contents = await asyncio.to_thread(service.store.settings.all, KIND)
        if name not in contents and len(contents) >= MAX_SETS:
            raise Problem(
                409,
                "too-many-sets",
                f"{len(contents)} sets of regions",
                expected=f"at most {MAX_SETS}",
                remedy="remove some",
            )
        content = {"frame": list(frame), "boxes": [list(box) for box in boxes]}
        return await _change_set(service, request, name, "region-sets.keep", content)


def _add_removal(service: Service, router: APIRouter) -> None:
    @router.delete("/v1/region-sets", response_class=Response, summary="Remove a set of regions.",
                   responses={**problems(409), 200: {"model": RegionSetChange}},
                   openapi_extra=query_parameters(name={"type": "string", "minLength": 1, "maxLength": MAX_NAME}))  # fmt: skip
    async def remove(request: Request) -> Response:
        require_gallery(context_of(request), "endpoint", "region-sets")
        parameters = Parameters.of_query(request)
        name = _read_name(parameters)
        parameters.finish()
        return await _change_set(service, request, name, "region-sets.remove", None)


def _read_name(parameters: Parameters) -> str:
    name = (parameters.text("name", "", most=MAX_NAME) or "").strip()
    if not is_visible(name) or hidden_sign(name) is not None:
        raise Problem(422, "invalid-value", f"the name {name!a}" if name else "no name",
                      expected=f"1 to {MAX_NAME} characters that can be seen")  # fmt: skip
    return name


def _read_frame(value: Any) -> tuple[int, int]:
    is_size = (
        isinstance(value, list)
        and len(value) == 2
        and all(type(side) is int and 0 < side <= MAX_SIDE for side in value)
    )
    if not is_size:
        raise Problem(422, "invalid-value", "no frame", expected="frame: [height, width] of the picture, in pixels")
    return value[0], value[1]
