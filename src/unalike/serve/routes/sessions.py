"""Endpoint ``session``: sign in with a key, who is signed in, sign out."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.serve.documents import json_body, problems
from unalike.serve.problems import Problem
from unalike.serve.request_context import context_of
from unalike.serve.security import COOKIE, SESSION_PATH, csrf_token
from unalike.serve.service import Service, json_response
from unalike.serve.store.sessions import SESSION_TIME
from unalike.serve.uploads import Parameters, parse_json, read_body

MAX_BODY = 1 << 12


class SessionModel(BaseModel):
    actor: str = Field(description="Name of the key; anonymous where no key is needed.")
    role: str = Field(json_schema_extra={"enum": ["view", "operate", "admin"]})
    gallery: str | None = Field(description="The one gallery that the key is for; null: all.")
    csrf: str | None = Field(description="What changes with the cookie send as X-CSRF-Token; null without a session.")


class SignedOut(BaseModel):
    ended: bool = Field(description="Whether there was a session.")


def session_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["session"])

    @router.post(SESSION_PATH, response_class=Response, summary="Sign in: a cookie stands for the key for twelve hours.",
                 responses={**problems(), 200: {"model": SessionModel}}, operation_id="post_session",
                 openapi_extra=json_body({"key": {"type": "string", "description": "The secret of a key."}}, ["key"]))  # fmt: skip
    async def sign_in(request: Request) -> Response:
        parameters = Parameters(parse_json(await read_body(request, MAX_BODY)))
        secret = (parameters.text("key", most=200) or "").strip()
        parameters.finish()
        if not secret:
            raise Problem(422, "invalid-value", "no key", expected="key: the secret of a key",
                          remedy="make one: unalike serve keys add NAME")  # fmt: skip
        context = context_of(request)
        record, token = await service.access.sign_in(secret, context.client)
        key = record.key
        response = json_response(
            {"actor": key.name, "role": key.role, "gallery": key.gallery, "csrf": csrf_token(token)}
        )
        response.set_cookie(
            COOKIE, token, max_age=int(SESSION_TIME.total_seconds()), path="/", secure=context.is_secure, httponly=True,
            samesite="strict",
        )  # fmt: skip
        return response

    @router.get(SESSION_PATH, response_class=Response, summary="Who asks, and what that may do.", operation_id="get_session",
                responses={**problems(), 200: {"model": SessionModel}})  # fmt: skip
    async def session(request: Request) -> Response:
        context = context_of(request)
        return json_response(
            {"actor": context.actor, "role": context.role, "gallery": context.gallery, "csrf": context.csrf or None}
        )

    @router.delete(SESSION_PATH, response_class=Response, summary="Sign out.", operation_id="delete_session",
                   responses={**problems(), 200: {"model": SignedOut}})  # fmt: skip
    async def sign_out(request: Request) -> Response:
        response = json_response({"ended": await service.access.sign_out(request.headers)})
        response.delete_cookie(COOKIE, path="/", secure=context_of(request).is_secure, httponly=True, samesite="strict")
        return response

    return router
