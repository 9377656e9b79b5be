"""Endpoints ``inspectors``: what an inspector is, its threshold and its ignored regions; and those that were fitted here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.serve.changes import Change, apply_in_store, apply_to_files, carry_out, request_digest
from unalike.serve.documents import json_body, problems
from unalike.serve.inspector_settings import KIND, NO_SETTINGS, InspectorSettings, fitted_threshold
from unalike.serve.problems import Problem
from unalike.serve.request_context import context_of
from unalike.serve.resources import InspectorResource
from unalike.serve.security import require_gallery
from unalike.serve.service import Service, json_response
from unalike.serve.uploads import Parameters, parse_json, read_body, read_boxes

if TYPE_CHECKING:
    from unalike.inspection.inspector import Inspector

MAX_BODY = 1 << 16
MAX_THRESHOLD = 1e9
InspectorName = Annotated[str, Path(description="Name of the inspector.")]
BOXES_SCHEMA: dict[str, Any] = {
    "type": "array", "maxItems": 100,
    "items": {"type": "array", "minItems": 4, "maxItems": 4, "items": {"type": "integer", "minimum": 0}},
    "description": "(left, top, right, bottom) in pixels; right and bottom are the first pixels outside.",
}  # fmt: skip


class FormerModel(BaseModel):
    threshold: float | None
    fitted: float | None
    ignore_boxes: list[list[int]]


class InspectorModel(BaseModel):
    inspector: str
    is_own: bool = Field(description="Whether it was fitted by the service.")
    trunk: str
    images: int | None = Field(description="Number of good images that it was fitted to.")
    frame: list[int] | None = Field(
        description="Height and width of the first image of the fit, to which ignored regions belong."
    )
    alarm: dict[str, Any] | None = Field(description="The threshold that counts, with its rate of false alarms.")
    fitted: dict[str, Any] | None = Field(description="The threshold of the fit, likewise.")
    threshold: float | None = Field(description="The threshold that somebody chose; null: that of the fit counts.")
    stale: bool = Field(description="Whether it was chosen for another fit, so that it does not count.")
    ignore_boxes: list[list[int]]
    good_scores: list[float] = Field(
        description="Scores of the good images of the fit, ascending, each by a model without it."
    )


class InspectorChange(InspectorModel):
    former: FormerModel = Field(description="What was set before.")


class InspectorRemoval(BaseModel):
    inspector: str


def describe(service: Service, resource: InspectorResource) -> dict[str, Any]:
    """An inspector as JSON."""
    inspector, settings = resource.loaded, resource.settings
    alarm = resource.inspector.threshold
    return {
        "inspector": resource.name, "is_own": service.inspectors.is_own(resource.name), "trunk": inspector.network.trunk,
        "images": inspector.facts.get("images"), "frame": None if inspector.frame is None else list(inspector.frame),
        "alarm": None if alarm is None else alarm.to_dict(),
        "fitted": None if inspector.threshold is None else inspector.threshold.to_dict(), "threshold": settings.threshold,
        "stale": settings.is_stale(inspector), "ignore_boxes": [list(box) for box in settings.ignore_boxes],
        "good_scores": list(inspector.facts.get("good_scores", ())),
    }  # fmt: skip


def inspectors_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["inspectors"])

    @router.get("/v1/inspectors/{name}", response_class=Response, summary="One inspector, with what is set for it.",
                responses={**problems(), 200: {"model": InspectorModel}})  # fmt: skip
    async def inspector(request: Request, name: InspectorName) -> Response:
        return json_response(describe(service, service.inspector(request, name)))

    _add_settings(service, router)
    _add_removal(service, router)
    return router


def _add_settings(service: Service, router: APIRouter) -> None:
    async def set_value(
        request: Request, resource: InspectorResource, action: str, values: Mapping[str, Any],
        alter: Callable[[InspectorSettings], InspectorSettings],
    ) -> Response:  # fmt: skip
        """Change what is set for an inspector; the answer says what was set before."""
        settings = service.store.settings

        async def perform(change: Change) -> tuple[int, Any]:
            def function(connection: Any) -> tuple[int, Any]:
                content = settings.get(KIND, resource.name, connection=connection)
                former = InspectorSettings.from_dict(content)
                latter = alter(former)
                plain = None if latter == NO_SETTINGS else latter.to_dict()
                settings.set(KIND, resource.name, plain, change.context.actor, connection=connection)
                new = InspectorResource(resource.name, resource.address, resource.loaded, latter)
                return 200, {**describe(service, new), "former": former.to_dict()}

            result = await asyncio.to_thread(apply_in_store, service, change, action, resource.name, values, function)
            await service.inspectors.refresh()
            return result

        return await carry_out(service, request, request_digest(request, values), perform)

    number = {"type": ["number", "null"], "exclusiveMinimum": 0, "description": "null: the threshold of the fit."}

    @router.post("/v1/inspectors/{name}/threshold", response_class=Response, summary="Choose the threshold of an inspector.",
                 responses={**problems(409), 200: {"model": InspectorChange}},
                 openapi_extra=json_body({"threshold": number}, ["threshold"]))  # fmt: skip
    async def threshold(request: Request, name: InspectorName) -> Response:
        resource = service.inspector(request, name)
        values = parse_json(await read_body(request, MAX_BODY))
        if "threshold" not in values:
            raise Problem(422, "invalid-value", "no threshold", expected="threshold: a number above 0, or null")
        parameters = Parameters(values)
        value = parameters.number("threshold", None, 1e-9, MAX_THRESHOLD)
        parameters.finish()
        fitted = None if value is None else fitted_threshold(resource.loaded)
        return await set_value(
            request, resource, "inspectors.threshold", {"threshold": value},
            lambda former: InspectorSettings(value, fitted, former.ignore_boxes),
        )  # fmt: skip

    @router.post("/v1/inspectors/{name}/ignored-regions", response_class=Response,
                 summary="Set the regions in which an inspector ignores anomalies.",
                 responses={**problems(409), 200: {"model": InspectorChange}},
                 openapi_extra=json_body({"boxes": BOXES_SCHEMA}, ["boxes"]))  # fmt: skip
    async def ignored_regions(request: Request, name: InspectorName) -> Response:
        resource = service.inspector(request, name)
        values = parse_json(await read_body(request, MAX_BODY))
        boxes = read_boxes(values.pop("boxes", None), "boxes")
        Parameters(values).finish()
        if boxes:
            _check_boxes(resource.loaded, boxes)
        return await set_value(
            request, resource, "inspectors.ignored-regions", {"boxes": [list(box) for box in boxes]},
            lambda former: InspectorSettings(former.threshold, former.fitted, tuple(boxes)),
        )  # fmt: skip


def _check_boxes(inspector: Inspector, boxes: list[tuple[int, int, int, int]]) -> None:
    """Refuse boxes that do not lie in the frame. Raises DataError."""
    inspector.with_settings(None, boxes)


def _add_removal(service: Service, router: APIRouter) -> None:
    inspectors = service.inspectors

    async def perform_on_file(
        request: Request, name: str, action: str, function: Callable[[str], None], check: Callable[[], None]
    ) -> Response:
        require_gallery(context_of(request), "inspector", name)

        async def perform(change: Change) -> tuple[int, Any]:
            if change.claim is None or not change.claim.is_retry:
                check()

            def act() -> tuple[int, Any]:
                function(name)
                return 200, {"inspector": name}

            result = await asyncio.to_thread(apply_to_files, service, change, action, name, {}, act)
            await inspectors.refresh()
            return result

        return await carry_out(service, request, request_digest(request, {}), perform)

    @router.delete("/v1/inspectors/{name}", response_class=Response, summary="Remove an inspector that was fitted here.",
                   responses={**problems(409), 200: {"model": InspectorRemoval}})  # fmt: skip
    async def remove(request: Request, name: InspectorName) -> Response:
        def check() -> None:
            if not inspectors.is_own(service.resources.inspector(name).name):
                raise Problem(409, "not-own", f"the inspector {name!r} was not fitted by the service",
                              remedy="start the service without it")  # fmt: skip

        return await perform_on_file(request, name, "inspectors.remove", inspectors.remove, check)

    @router.post("/v1/inspectors/{name}/restore", response_class=Response, summary="Bring back an inspector that was removed.",
                 responses={**problems(409), 200: {"model": InspectorRemoval}})  # fmt: skip
    async def restore(request: Request, name: InspectorName) -> Response:
        return await perform_on_file(request, name, "inspectors.restore", inspectors.restore, lambda: None)
