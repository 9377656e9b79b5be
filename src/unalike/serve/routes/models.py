"""Endpoints ``models``, ``galleries`` and ``calibration``: what is served, and when an image is unknown."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.recognition.backends.protocol import GalleryBackend
from unalike.recognition.decision import RULES
from unalike.serve.changes import Change, apply, carry_out, request_digest
from unalike.serve.documents import add_scoped, json_body, problems
from unalike.serve.request_context import context_of
from unalike.serve.resources import GalleryResource, Network, recognizer_of
from unalike.serve.service import Service, json_response
from unalike.serve.uploads import Parameters, parse_json, read_body

MAX_BODY = 1 << 16


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

            details = {"rate": rate, "rule": rule}
            return await asyncio.to_thread(
                apply, service, resource, change, "calibration.set", details, function, answer
            )

        return await carry_out(service, request, request_digest(request, values), perform)

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
