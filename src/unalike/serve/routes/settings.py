"""Endpoint ``settings``: what can be changed while the service runs, and what is served, with its files and states."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike import __version__
from unalike.sanitize import redact
from unalike.serve.changes import Change, carry_out, request_digest
from unalike.serve.documents import json_body, problems
from unalike.serve.request_context import context_of
from unalike.serve.resources import GalleryResource, Resources
from unalike.serve.runtime_settings import CHANGEABLE, MAX_DAYS, describe_settings, read_changes
from unalike.serve.security import require_all_galleries
from unalike.serve.service import Service, json_response
from unalike.serve.uploads import parse_json, read_body

MAX_BODY = 1 << 12


class SettingModel(BaseModel):
    value: float
    default: float = Field(description="Value of the start option.")
    is_changed: bool


class ServedModel(BaseModel):
    kind: str = Field(description="model, gallery, inspector or assets.")
    name: str
    file: str
    bytes: int | None
    modified: str | None
    version: str = Field(description="Key of the network, revision of the gallery, or nothing.")
    state: str


class SettingsModel(BaseModel):
    version: str = Field(description="Version of unalike.")
    settings: dict[str, SettingModel]
    served: list[ServedModel]


def settings_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["settings"])
    store = service.store

    @router.get("/v1/settings", response_class=Response, summary="Settings that can be changed, and what is served.",
                responses={**problems(), 200: {"model": SettingsModel}}, operation_id="get_settings")  # fmt: skip
    async def settings(request: Request) -> Response:
        require_all_galleries(context_of(request))
        return json_response(await asyncio.to_thread(read_all, service))

    number = {"type": ["number", "null"], "minimum": 0, "maximum": MAX_DAYS}

    @router.put(
        "/v1/settings", response_class=Response, operation_id="put_settings",
        summary="Change settings; they hold from then on, after a restart too. null: the start option holds again.",
        responses={**problems(), 200: {"model": SettingsModel}},
        openapi_extra=json_body({name: {**number, "description": text} for name, text in CHANGEABLE.items()}),
    )  # fmt: skip
    async def change_settings(request: Request) -> Response:
        context = context_of(request)
        require_all_galleries(context)
        values = parse_json(await read_body(request, MAX_BODY))
        changes = read_changes(values)

        def write(change: Change) -> tuple[int, Any]:
            served = describe_served(service.resources)
            with store.transaction() as connection:
                store.service_settings.change(
                    changes, actor=context.actor, request_id=context.id, connection=connection
                )
                values_after = store.service_settings.read(connection)
                document = {
                    "version": __version__,
                    "settings": describe_settings(service.settings, values_after),
                    "served": served,
                }
                if change.claim is not None:
                    store.idempotency.complete(change.claim, 200, json.dumps(document), connection=connection)
            return 200, document

        async def perform(change: Change) -> tuple[int, Any]:
            return await asyncio.to_thread(write, change)

        return await carry_out(service, request, request_digest(request, values), perform)

    return router


def read_all(service: Service) -> dict[str, Any]:
    """Settings and what is served, as JSON."""
    changes = service.store.service_settings.read()
    return {"version": __version__, "settings": describe_settings(service.settings, changes),
            "served": describe_served(service.resources)}  # fmt: skip


def describe_served(resources: Resources) -> list[dict[str, Any]]:
    """Models, galleries, inspectors and sets of assets with their files, versions and states."""
    rows = [
        _row("model", network.model.source.name, network.key, network.model.network, _engine(network.description))
        for network in resources.networks.values()
    ]
    rows += [_gallery_row(entry) for entry in resources.galleries.values()]
    for kind, title, entries in (
        ("inspector", "inspector", resources.inspectors),
        ("assets", "set of assets", resources.assets),
    ):
        for name, resource in entries.items():
            watch = resources.watches.get(f"{title} {name}")
            has_failed = watch is not None and watch.has_failed
            state = "its changed file cannot be loaded: the former one is in service" if has_failed else "in service"
            rows.append(_row(kind, name, resource.address, "", state))
    return rows


def _gallery_row(resource: GalleryResource) -> dict[str, Any]:
    with resource.gallery.view() as view:
        (images, classes), revision, stale, calibration = view.size, view.revision, view.stale, view.calibration
    if calibration is None:
        state = "not calibrated"
    elif stale:
        state = f"calibrated before its last change: {stale}"
    else:
        state = f"{'provisional threshold' if calibration.provisional else 'calibrated, threshold'} {calibration.threshold:.3f}"
    text = f"{images} references of {classes} classes; {state}"
    return _row("gallery", resource.name, resource.address, f"revision {revision}", text)


def _row(kind: str, name: str, address: str, version: str, state: str) -> dict[str, Any]:
    size, moment = None, None
    try:
        path = Path(address)
        if "://" not in address and path.exists():
            status = path.stat()
            size = status.st_size if path.is_file() else None
            moment = datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except OSError:  # the file is gone; what was loaded is in service
        pass
    return {
        "kind": kind,
        "name": name,
        "file": redact(address),
        "bytes": size,
        "modified": moment,
        "version": version,
        "state": state,
    }


def _engine(description: dict[str, Any]) -> str:
    words = [str(description[name]) for name in ("runtime", "precision", "device") if description.get(name)]
    return f"in service: {', '.join(words)}"
