"""Endpoints ``healthz``, ``readyz`` and ``metrics``, which are answered before all others are loaded.

FastAPI is needed for their document alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from unalike.serve.problems import Problem
from unalike.serve.service import Service, json_response

if TYPE_CHECKING:
    from fastapi import APIRouter


class Health:
    """The three endpoints.

    Args:
        service: what they look at.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    async def healthz(self, _: Request) -> Response:
        """The process runs."""
        return json_response({"status": "ok"})

    async def readyz(self, _: Request) -> Response:
        """All networks are loaded, and requests are taken."""
        if not self.service.is_ready:
            raise Problem(503, "not-ready", "the service is starting or stopping", headers={"Retry-After": "1"})
        return json_response({"status": "ready"})

    async def metrics(self, _: Request) -> Response:
        """Metrics for Prometheus."""
        resources, metrics = self.service.resources, self.service.metrics
        waiting = sum(network.batcher.waiting for network in resources.networks.values())
        images = {name: len(resource.gallery) for name, resource in resources.galleries.items()}
        return Response(metrics.render(waiting, images), media_type=metrics.content_type)


def health_router(service: Service) -> APIRouter:
    """The endpoints, with their document."""
    from fastapi import APIRouter

    from unalike.serve.answers import HealthModel
    from unalike.serve.documents import DirectRoute, problems

    router, health = APIRouter(tags=["health"], route_class=DirectRoute), Health(service)
    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    router.add_api_route("/healthz", health.healthz, response_class=Response, responses={200: {"model": HealthModel}},
                         summary="The process runs.")  # fmt: skip
    router.add_api_route("/readyz", health.readyz, response_class=Response, responses={**problems(), 200: {"model": HealthModel}},
                         summary="All networks are loaded, and requests are taken.")  # fmt: skip
    for path, endpoint in (
        ("/healthz", health.healthz),
        ("/readyz", health.readyz),
    ):  # balancers ask for the headers alone
        router.add_api_route(path, endpoint, methods=["HEAD"], response_class=Response, include_in_schema=False)
    router.add_api_route("/metrics", health.metrics, response_class=Response, responses={200: text},
                         summary="Metrics for Prometheus.")  # fmt: skip
    return router
