"""Endpoints ``models``, ``galleries`` and ``calibration``: what is served, and when an image is unknown."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.recognition.backends.protocol import GalleryBackend
from unalike.recognition.decision import RULES, GalleryCalibration
from unalike.serve.changes import Change, apply, carry_out, request_digest
from unalike.serve.documents import add_scoped, json_body, problems
from unalike.serve.problems import Problem
from unalike.serve.request_context import context_of
from unalike.serve.resources import GalleryResource, Network, recognizer_of
from unalike.serve.service import Service, json_response
from unalike.serve.store.records import AuditEntry
from unalike.serve.uploads import Parameters, parse_json, read_body

MAX_BODY = 1 << 16
SET, UNDO = "calibration.set", "calibration.undo"


class NetworkModel(BaseModel):
    name: str
    dim: int
    input_size: list[int] = Field(description="Height and width, in pixels.")
    batch: int = Field(description="Most images of a call.")
    trunk: str
    network: str = Field(description="Key of the network, the same in every format.")
    engine: dict[str, Any]
    galleries: list[str]


class ModelsModel(BaseModel):
    models: list[NetworkModel]
    inspectors: list[dict[str, Any]]
    assets: list[dict[str, Any]]


class GalleryModel(BaseModel):
    gallery: str
    images: int
    classes: int
    dim: int
    calibration: dict[str, Any] | None
    stale: str = Field(description="Why the calibration no longer holds; empty where it does.")


class GalleriesModel(BaseModel):
    galleries: list[GalleryModel]


def describe_network(network: Network, galleries: list[str]) -> dict[str, Any]:
    """A network as JSON."""
    model = network.model
    return {
        "name": model.source.name, "dim": network.engine.dim, "input_size": list(network.engine.input_size),
        "batch": network.batcher.preferred, "trunk": model.trunk, "network": model.network, "engine": network.description,
        "galleries": galleries,
    }  # fmt: skip


def describe_gallery(resource: GalleryResource) -> dict[str, Any]:
    """A gallery as JSON."""
    with resource.gallery.view() as view:
        images, classes = view.size
        calibration = view.calibration
        return {
            "gallery": resource.name, "images": images, "classes": classes, "dim": view.dim,
            "calibration": None if calibration is None else calibration.to_dict(), "stale": view.stale,
        }  # fmt: skip


def model_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter()
    _add_lists(service, router)
    _add_calibration(service, router)
    return router


def _add_lists(service: Service, router: APIRouter) -> None:
    resources = service.resources

    @router.get("/v1/models", response_class=Response, summary="Networks, inspectors and assets that are served.",
                responses={**problems(), 200: {"model": ModelsModel}}, tags=["models"])  # fmt: skip
    async def models(request: Request) -> Response:
        only = context_of(request).gallery
        networks = []
        for network in resources.networks.values():
            names = [
                name for name, entry in resources.galleries.items() if entry.network is network and only in (None, name)
            ]
            if names or only is None:
                networks.append(describe_network(network, names))
        inspectors = [] if only else [
            {**entry.describe(), "inspector": name} for name, entry in resources.inspectors.items()
        ]  # fmt: skip
        assets = [] if only else [
            {"name": name, "assets": list(entry.verifier.approved.names)} for name, entry in resources.assets.items()
        ]  # fmt: skip
        return json_response({"models": networks, "inspectors": inspectors, "assets": assets})

    @router.get("/v1/galleries", response_class=Response, summary="Galleries with their sizes.", tags=["galleries"],
                responses={**problems(), 200: {"model": GalleriesModel}})  # fmt: skip
    async def galleries(request: Request) -> Response:
        only = context_of(request).gallery
        entries = [entry for name, entry in resources.galleries.items() if only in (None, name)]
        described = await asyncio.to_thread(lambda: [describe_gallery(entry) for entry in entries])
        return json_response({"galleries": described})


def _add_calibration(service: Service, router: APIRouter) -> None:
    async def calibration(request: Request, name: str | None) -> Response:
        """Size and calibration of a gallery: threshold, margin, and what they cost."""
        resource = service.gallery(request, name)
        return json_response(await asyncio.to_thread(describe_gallery, resource))

    async def calibrate(request: Request, name: str | None) -> Response:
        """Set the threshold of "unknown" from the gallery itself: at a promised rate where it can carry one, else provisionally."""
        resource = service.gallery(request, name)
        values = parse_json(await read_body(request, MAX_BODY) or b"{}")
        parameters = Parameters(values)
        rate = parameters.number("rate", None, 1e-6, 0.999)
        max_refused = parameters.number("max_refused", 0.05, 1e-6, 0.999) or 0.05
        rule = parameters.choice("rule", RULES) or "nearest"
        parameters.finish()

        async def perform(change: Change) -> tuple[int, Any]:
            def function(gallery: GalleryBackend) -> None:
                recognizer_of(resource.network, gallery).set_threshold(rate, max_refused, rule=rule)

            def answer(_: None) -> tuple[int, Any]:
                return 200, describe_gallery(resource)

            # What an undo puts back.
            details = {"rate": rate, "rule": rule, "former": _plain_calibration(resource.gallery)}
            return await asyncio.to_thread(apply, service, resource, change, SET, details, function, answer)

        return await carry_out(service, request, request_digest(request, values), perform)

    async def undo(request: Request, name: str | None) -> Response:
        """Put back the calibration before the last one that was set; once, and not after another model came into service."""
        resource = service.gallery(request, name)
        await read_body(request, MAX_BODY)

        async def perform(change: Change) -> tuple[int, Any]:
            entry = await asyncio.to_thread(_last_set, service, resource)
            former = entry.details["former"]

            def function(gallery: GalleryBackend) -> None:
                gallery.calibration = None if former is None else GalleryCalibration.from_dict(former)

            def answer(_: None) -> tuple[int, Any]:
                return 200, describe_gallery(resource)

            details = {"entry": entry.id}
            return await asyncio.to_thread(apply, service, resource, change, UNDO, details, function, answer)

        return await carry_out(service, request, request_digest(request, {}), perform)

    add_scoped(
        router, "POST", "galleries", "/calibration/undo", undo, answer=GalleryModel, statuses=[409],
        summary="Put back the calibration before the last one that was set.",
    )  # fmt: skip
    share = {"type": ["number", "null"], "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    add_scoped(
        router,
        "GET",
        "galleries",
        "/calibration",
        calibration,
        answer=GalleryModel,
        summary="Calibration of a gallery.",
    )
    add_scoped(
        router, "POST", "galleries", "/calibration", calibrate, answer=GalleryModel, statuses=[409],
        summary='Set the threshold of "unknown".',
        extra=json_body({
            "rate": {**share, "description": "Share of unknown images that may be taken for known ones; null: the lowest that "
                                            "refuses few known images."},
            "max_refused": {**share, "description": "Share of known images that may be called unknown.", "default": 0.05},
            "rule": {"type": "string", "enum": list(RULES), "default": "nearest"},
        }),
    )  # fmt: skip


def _plain_calibration(gallery: GalleryBackend) -> dict[str, Any] | None:
    """The calibration of a gallery as plain data; None where there is none."""
    calibration = gallery.calibration
    return None if calibration is None else calibration.to_dict()


def _last_set(service: Service, resource: GalleryResource) -> AuditEntry:
    """The entry of the calibration that was set last, of which the former one is known; in a thread. Raises Problem (409)."""
    latest = [
        entry
        for action in (SET, UNDO, "model.promote", "model.rollback")
        for entry in service.store.audit.find(action=action, resource=resource.name, outcome="done", limit=1).items
    ]
    entry = max(latest, key=lambda one: one.id, default=None)
    if entry is None or entry.action != SET or "former" not in entry.details:
        raise Problem(409, "nothing-to-undo", f"no calibration of the gallery {resource.name} can be taken back",
                      expected="one that was set after the last undo and the last change of the model",
                      remedy="set the threshold anew: POST /v1/calibration")  # fmt: skip
    return entry
