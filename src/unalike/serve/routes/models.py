"""Endpoints ``models`` and ``galleries``: what is served."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.serve.documents import problems
from unalike.serve.request_context import context_of
from unalike.serve.resources import GalleryResource, Network
from unalike.serve.service import Service, json_response


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
    router, resources = APIRouter(), service.resources

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

    return router
