"""Endpoints ``healthz``, ``readyz`` and ``metrics``."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.serve.answers import HealthModel
from unalike.serve.documents import problems
from unalike.serve.problems import Problem
from unalike.serve.service import Service, json_response


def health_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["health"])

    @router.get(
        "/healthz", response_class=Response, responses={200: {"model": HealthModel}}, summary="The process runs."
    )
    async def healthz() -> Response:
        return json_response({"status": "ok"})

    @router.get("/readyz", response_class=Response, responses={**problems(), 200: {"model": HealthModel}},
                summary="All networks are loaded, and requests are taken.")  # fmt: skip
    async def readyz() -> Response:
        if not service.is_ready:
            raise Problem(503, "not-ready", "the service is starting or stopping", headers={"Retry-After": "1"})
        return json_response({"status": "ready"})

    for path, endpoint in (("/healthz", healthz), ("/readyz", readyz)):  # balancers ask for the headers alone
        router.add_api_route(path, endpoint, methods=["HEAD"], response_class=Response, include_in_schema=False)

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
                summary="Metrics for Prometheus.")  # fmt: skip
    async def metrics(request: Request) -> Response:
        resources = service.resources
        waiting = sum(network.batcher.waiting for network in resources.networks.values())
        images = {name: len(resource.gallery) for name, resource in resources.galleries.items()}
        content = service.metrics.render(waiting, images)
        return Response(content, media_type=service.metrics.content_type)

    return router
