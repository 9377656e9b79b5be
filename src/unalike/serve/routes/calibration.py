"""Endpoint ``calibration``: when an image is unknown."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.recognition.backends.protocol import GalleryBackend
from unalike.recognition.decision import RULES, GalleryCalibration
from unalike.serve.changes import Change, apply, carry_out, request_digest
from unalike.serve.documents import add_scoped, json_body
from unalike.serve.problems import Problem
from unalike.serve.resources import GalleryResource, recognizer_of
from unalike.serve.routes.models import GalleryModel, describe_gallery
from unalike.serve.service import Service, json_response
from unalike.serve.store.records import AuditEntry
from unalike.serve.uploads import Parameters, parse_json, read_body
from unalike.storage.digests import text_sha256

MAX_BODY = 1 << 16
SET, UNDO = "calibration.set", "calibration.undo"
_SHARE = {"type": ["number", "null"], "exclusiveMinimum": 0, "exclusiveMaximum": 1}
_RATE = "Share of unknown images that may be taken for known ones; null: the lowest that refuses few known images."
_BODY = json_body({
    "rate": {**_SHARE, "description": _RATE},
    "max_refused": {**_SHARE, "description": "Share of known images that may be called unknown.", "default": 0.05},
    "rule": {"type": "string", "enum": list(RULES), "default": "nearest"},
})  # fmt: skip


class Calibration:
    """The endpoints.

    Args:
        service: what they share with the others.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    async def read(self, request: Request, name: str | None) -> Response:
        """Size and calibration of a gallery: threshold, margin, and what they cost."""
        resource = self.service.gallery(request, name)
        return json_response(await asyncio.to_thread(describe_gallery, resource))

    async def calibrate(self, request: Request, name: str | None) -> Response:
        """Set the threshold of "unknown" from the gallery itself: at a promised rate where it can carry one, else provisionally."""
        resource = self.service.gallery(request, name)
        values = parse_json(await read_body(request, MAX_BODY) or b"{}")
        parameters = Parameters(values)
        rate = parameters.number("rate", None, 1e-6, 0.999)
        max_refused = parameters.number("max_refused", 0.05, 1e-6, 0.999) or 0.05
        rule = parameters.choice("rule", RULES) or "nearest"
        parameters.finish()

        def function(gallery: GalleryBackend) -> dict[str, Any]:
            former = _plain(gallery.calibration)
            recognizer_of(resource.network, gallery).set_threshold(rate, max_refused, rule=rule)
            return {"former": former, "digest": _digest(gallery.calibration)}

        async def perform(change: Change) -> tuple[int, Any]:
            details = {"rate": rate, "rule": rule}
            return await asyncio.to_thread(
                apply, self.service, resource, change, SET, details, function, lambda _: (200, describe_gallery(resource)),
                describe=lambda details: details,
            )  # fmt: skip

        return await carry_out(self.service, request, request_digest(request, values), perform)

    async def undo(self, request: Request, name: str | None) -> Response:
        """Put back the calibration before the last one that was set here; once, and not where another one is in force since."""
        resource = self.service.gallery(request, name)
        await read_body(request, MAX_BODY)

        async def perform(change: Change) -> tuple[int, Any]:
            entry = await asyncio.to_thread(_last_set, self.service, resource)
            former = entry.details["former"]

            def function(gallery: GalleryBackend) -> None:
                if _digest(gallery.calibration) != entry.details["digest"]:
                    raise _nothing_to_undo(resource)
                gallery.calibration = None if former is None else GalleryCalibration.from_dict(former)

            return await asyncio.to_thread(
                apply, self.service, resource, change, UNDO, {"entry": entry.id}, function,
                lambda _: (200, describe_gallery(resource)),
            )  # fmt: skip

        return await carry_out(self.service, request, request_digest(request, {}), perform)


def calibration_router(service: Service) -> APIRouter:
    """The endpoints, with their document."""
    router, calibration = APIRouter(), Calibration(service)
    add_scoped(router, "POST", "galleries", "/calibration/undo", calibration.undo, answer=GalleryModel, statuses=[409],
               summary="Put back the calibration before the last one that was set.")  # fmt: skip
    add_scoped(router, "GET", "galleries", "/calibration", calibration.read, answer=GalleryModel,
               summary="Calibration of a gallery.")  # fmt: skip
    add_scoped(router, "POST", "galleries", "/calibration", calibration.calibrate, answer=GalleryModel, statuses=[409],
               summary='Set the threshold of "unknown".', extra=_BODY)  # fmt: skip
    return router


def _plain(calibration: GalleryCalibration | None) -> dict[str, Any] | None:
    """A calibration as plain data; None where there is none."""
    return None if calibration is None else calibration.to_dict()


def _digest(calibration: GalleryCalibration | None) -> str:
    """By which a calibration is known again."""
    return text_sha256(json.dumps(_plain(calibration), sort_keys=True))


def _nothing_to_undo(resource: GalleryResource) -> Problem:
    return Problem(409, "nothing-to-undo", f"no calibration of the gallery {resource.name} can be taken back",
                   expected="one that was set by the service, and is still in force: no other calibration, undo or model since",
                   remedy="set the threshold anew: POST /v1/calibration")  # fmt: skip


def _last_set(service: Service, resource: GalleryResource) -> AuditEntry:
    """The entry of the calibration that was set last, of which the former one is known; in a thread. Raises Problem (409)."""
    latest = [
        entry
        for action in (SET, UNDO, "model.promote", "model.rollback")
        for entry in service.store.audit.find(action=action, resource=resource.name, outcome="done", limit=1).items
    ]
    entry = max(latest, key=lambda one: one.id, default=None)
    if entry is None or entry.action != SET or not {"former", "digest"} <= entry.details.keys():
        raise _nothing_to_undo(resource)
    return entry
