"""The page Settings, for administrators: keys, retention, what is served, and the audit log."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.serve.pages.rendering import render_page
from unalike.serve.request_context import context_of
from unalike.serve.routes.settings import read_all
from unalike.serve.runtime_settings import MAX_DAYS
from unalike.serve.security import ROLES, require_all_galleries
from unalike.serve.service import Service
from unalike.serve.store.keys import MAX_NAME
from unalike.serve.store.records import OUTCOMES, AuditEntry, KeyRecord, Page
from unalike.serve.uploads import Parameters

PAGE_SIZE = 25
_FILTERS = ("actor", "action", "resource")


def settings_pages(service: Service) -> APIRouter:
    """The page and its parts."""
    router = APIRouter(include_in_schema=False)

    @router.get("/settings")
    async def settings(request: Request) -> Response:
        require_all_galleries(context_of(request))
        parameters = Parameters.of_query(request)
        parameters.text("gallery")  # the header's links carry it
        values: dict[str, Any] = {name: parameters.text(name) for name in _FILTERS}
        values["outcome"] = parameters.choice("outcome", OUTCOMES)
        after = parameters.text("after", most=64)
        parameters.finish()

        def find() -> tuple[dict[str, Any], list[KeyRecord], Page[AuditEntry]]:
            return (
                read_all(service),
                service.store.keys.list(),
                service.store.audit.find(**values, after=after, limit=PAGE_SIZE),
            )

        document, keys, log = await asyncio.to_thread(find)
        filters = {name: value for name, value in values.items() if value is not None}
        return render_page(
            request, "settings.html.j2", service=service, **_key_values(service, keys), settings=document["settings"],
            served=document["served"], version=document["version"], max_days=MAX_DAYS, entries=log.items, following=log.next,
            filters=filters, outcomes=OUTCOMES, is_first=after is None, needs_key=service.access.needs_key,
        )  # fmt: skip

    @router.get("/settings/keys")
    async def keys(request: Request) -> Response:
        require_all_galleries(context_of(request))
        records = await asyncio.to_thread(service.store.keys.list)
        return render_page(request, "fragments/key_table.html.j2", **_key_values(service, records))

    @router.get("/settings/retention")
    async def retention(request: Request) -> Response:
        require_all_galleries(context_of(request))
        document = await asyncio.to_thread(read_all, service)
        return render_page(request, "fragments/retention.html.j2", settings=document["settings"], max_days=MAX_DAYS)

    return router


def _key_values(service: Service, records: list[KeyRecord]) -> dict[str, Any]:
    """What the list of keys shows: valid ones first."""
    ordered = sorted(records, key=lambda record: (record.revoked is not None, record.created), reverse=False)
    chiefs = [one.id for one in records if one.revoked is None and one.role == ROLES[-1] and one.gallery is None]
    return {"keys": ordered, "roles": ROLES, "max_name": MAX_NAME, "all_galleries": list(service.resources.galleries),
            "last_chief": chiefs[0] if len(chiefs) == 1 else None}  # fmt: skip
