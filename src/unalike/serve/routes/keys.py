"""Endpoints ``keys``: list, create and revoke API keys. A secret is in the answer that creates it, and nowhere else."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.serve.changes import Change, carry_out, request_digest
from unalike.serve.documents import json_body, problems
from unalike.serve.problems import Problem
from unalike.serve.request_context import context_of
from unalike.serve.security import OPERATE, ROLES, require_all_galleries
from unalike.serve.service import Service, json_response
from unalike.serve.store.keys import MAX_NAME
from unalike.serve.uploads import Parameters, parse_json, read_body

MAX_BODY = 1 << 12
KeyId = Annotated[str, Path(description="Id of the key.", max_length=8)]


class KeyModel(BaseModel):
    id: str
    name: str
    role: str = Field(json_schema_extra={"enum": list(ROLES)})
    gallery: str | None = Field(description="The one gallery that it is for; null: all.")
    created: str
    last_used: str | None
    revoked: str | None


class NewKeyModel(KeyModel):
    secret: str | None = Field(
        description="What clients send; null where the request was repeated: it is kept nowhere."
    )


class KeysModel(BaseModel):
    keys: list[KeyModel]


def key_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["keys"])
    _add_list(service, router)
    _add_creation(service, router)
    _add_revocation(service, router)
    return router


def _add_list(service: Service, router: APIRouter) -> None:
    @router.get("/v1/keys", response_class=Response, summary="API keys, the oldest first, without their secrets.",
                responses={**problems(), 200: {"model": KeysModel}}, operation_id="get_keys")  # fmt: skip
    async def keys(request: Request) -> Response:
        require_all_galleries(context_of(request))
        records = await asyncio.to_thread(service.store.keys.list)
        return json_response({"keys": [record.to_dict() for record in records]})


def _add_creation(service: Service, router: APIRouter) -> None:
    store = service.store

    @router.post(
        "/v1/keys", response_class=Response, summary="Create an API key.", status_code=201, operation_id="post_keys",
        responses={**problems(409), 201: {"model": NewKeyModel}},
        openapi_extra=json_body({
            "name": {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "description": "Who uses it, such as till-3."},
            "role": {"type": "string", "enum": list(ROLES), "default": OPERATE},
            "gallery": {"type": ["string", "null"], "description": "The one gallery that it is for."},
        }, ["name"]),
    )  # fmt: skip
    async def add(request: Request) -> Response:
        context = context_of(request)
        require_all_galleries(context)
        values = parse_json(await read_body(request, MAX_BODY))
        parameters = Parameters(values)
        name, role = parameters.text("name", "", most=MAX_NAME) or "", parameters.choice("role", ROLES) or OPERATE
        gallery = parameters.text("gallery")
        parameters.finish()
        if "://" in name:  # answers hide what looks like an address with a password
            raise Problem(422, "invalid-value", f"the name {name[:64]!r}", expected="a name such as till-3")
        if gallery is not None:
            service.resources.gallery(gallery)

        def create(change: Change) -> tuple[int, Any]:
            with store.transaction() as connection:
                record, secret = store.keys.add(
                    name,
                    role,
                    gallery,
                    actor=context.actor,
                    request_id=context.id,
                    needs_admin=True,
                    connection=connection,
                )
                plain = record.to_dict()
                if change.claim is not None:  # the store holds no secret
                    body = json.dumps({**plain, "secret": None})
                    store.idempotency.complete(change.claim, 201, body, connection=connection)
            service.access.refresh()
            return 201, {**plain, "secret": secret}

        return await _carry_out(service, request, values, create)


def _add_revocation(service: Service, router: APIRouter) -> None:
    store = service.store

    @router.delete("/v1/keys/{id}", response_class=Response, summary="Revoke an API key for ever.", operation_id="delete_keys",
                   responses={**problems(409), 200: {"model": KeyModel}})  # fmt: skip
    async def revoke(request: Request, id: KeyId) -> Response:
        context = context_of(request)
        require_all_galleries(context)
        records = {record.id: record for record in await asyncio.to_thread(store.keys.list)}
        if id not in records:
            raise Problem(404, "no-key", f"no key {id[:64]!r}", expected="an id from GET /v1/keys")

        def end(change: Change) -> tuple[int, Any]:
            with store.transaction() as connection:
                record = store.keys.revoke(
                    id, actor=context.actor, request_id=context.id, keeps_admin=True, connection=connection
                )
                plain = record.to_dict()
                if change.claim is not None:
                    store.idempotency.complete(change.claim, 200, json.dumps(plain), connection=connection)
            service.access.refresh()
            return 200, plain

        return await _carry_out(service, request, {"id": id}, end)


async def _carry_out(service: Service, request: Request, values: dict[str, Any], function: Any) -> Response:
    async def perform(change: Change) -> tuple[int, Any]:
        result: tuple[int, Any] = await asyncio.to_thread(function, change)
        return result

    return await carry_out(service, request, request_digest(request, values), perform)
