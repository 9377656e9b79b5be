"""Sessions over HTTP: cookie, CSRF token, roles, and their end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.serving import files, picture, run, running
from unalike.serve.security import CACHE_S, COOKIE, MAX_FAILURES


def with_key(it: SimpleNamespace, role: str = "operate", gallery: str | None = None) -> str:
    secret = it.service.store.keys.add(role, role, gallery)[1]
    it.service.access.refresh()
    return secret


async def sign_in(it: SimpleNamespace, secret: str, **headers: str) -> Any:
    return await it.client.post("/v1/session", json={"key": secret}, headers=headers)


def test_a_cookie_stands_for_the_key_and_changes_need_the_token_of_the_session(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            secret = with_key(it)
            assert (await it.client.get("/v1/session")).status_code == 401
            response = await sign_in(it, secret)
            cookie = response.headers["set-cookie"]
            assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"))
            assert "Secure" not in cookie and secret not in cookie
            csrf = response.json()["csrf"]
            expected = {"actor": "operate", "role": "operate", "gallery": None, "csrf": csrf}
            assert response.json() == expected == (await it.client.get("/v1/session")).json()
            enroll = {"files": files(picture((9, 9, 9))), "data": {"label": "black"}}
            for headers in ({}, {"x-csrf-token": ""}, {"x-csrf-token": "0" * 64}, {"x-csrf-token": "é"}):
                raw = {name: value.encode() for name, value in headers.items()}
                refused = await it.client.post("/v1/references", **enroll, headers=raw)
                assert refused.status_code == 403 and refused.json()["type"].endswith("csrf")
                # What asks is recorded as a decision: it needs the token too.
                assert (await it.client.post("/v1/identify", files=files(picture()), headers=raw)).status_code == 403
            done = await it.client.post("/v1/references", **enroll, headers={"x-csrf-token": csrf})
            assert done.status_code == 201
            assert it.service.store.audit.find().items[0].actor == "operate"
            # A key in a header needs no token, beside a cookie too.
            assert (
                await it.client.post("/v1/identify", files=files(picture()), headers={"x-api-key": secret})
            ).is_success

    run(scenario())


def test_another_site_cannot_use_the_cookie(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            csrf = (await sign_in(it, with_key(it))).json()["csrf"]
            headers = {"x-csrf-token": csrf, "origin": "http://evil.example"}
            assert (await it.client.post("/v1/identify", files=files(picture()), headers=headers)).status_code == 403
            assert (await sign_in(it, "x", origin="http://evil.example")).status_code == 403

    run(scenario())


def test_signing_out_and_revoking_end_a_session(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            secret = with_key(it)
            csrf = (await sign_in(it, secret)).json()["csrf"]
            token = it.client.cookies[COOKIE]
            assert (await it.client.delete("/v1/session")).status_code == 403
            response = await it.client.delete("/v1/session", headers={"x-csrf-token": csrf})
            assert response.json() == {"ended": True} and COOKIE not in it.client.cookies
            assert (await it.client.get("/v1/session", headers={"cookie": f"{COOKIE}={token}"})).status_code == 401
            await sign_in(it, secret)
            assert (await it.client.get("/v1/session")).status_code == 200
            with_key(it, "admin")  # one key stays valid
            it.service.store.keys.revoke("operate")
            await asyncio.sleep(CACHE_S + 0.05)
            assert (await it.client.get("/v1/session")).status_code == 401

    run(scenario())


def test_a_role_holds_for_the_session_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, names=("colors", "others")) as it:
            headers = {"x-csrf-token": (await sign_in(it, with_key(it, "view", "others"))).json()["csrf"]}
            assert (await it.client.post("/v1/classes/rename", json={}, headers=headers)).status_code == 403
            response = await it.client.post("/v1/identify", files=files(picture()), headers=headers)
            assert response.json()["gallery"] == "others"
            assert (await it.client.get("/v1/galleries/colors/classes")).status_code == 403

    run(scenario())


def test_the_cookie_is_for_https_alone_where_the_browser_sees_https(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            response = await sign_in(it, with_key(it), origin="https://127.0.0.1")
            assert "Secure" in response.headers["set-cookie"]

    run(scenario())


@pytest.mark.parametrize(("body", "status"), [({}, 422), ({"key": " "}, 422), ({"key": "unalike_no"}, 401), ({"key": 3}, 422),
                                              ({"key": "a", "b": 1}, 422)])  # fmt: skip
def test_what_is_no_key_gets_no_session(tmp_path: Path, body: dict[str, Any], status: int) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            with_key(it)
            response = await it.client.post("/v1/session", json=body)
            assert response.status_code == status and "set-cookie" not in response.headers

    run(scenario())


def test_keys_cannot_be_tried_by_signing_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            secret = with_key(it)
            codes = [(await sign_in(it, f"k{n}")).status_code for n in range(MAX_FAILURES + 2)]
            assert codes[:MAX_FAILURES] == [401] * MAX_FAILURES and codes[-1] == 429
            assert (await sign_in(it, secret)).status_code == 200  # another client behind the same proxy

    run(scenario())


def test_without_keys_on_loopback_nobody_signs_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            answer = (await it.client.get("/v1/session", headers={"cookie": f"{COOKIE}=old; x"})).json()
            assert answer == {"actor": "anonymous", "role": "admin", "gallery": None, "csrf": None}
            assert (await it.client.post("/v1/identify", files=files(picture()))).status_code == 200
            assert (await it.client.get("/static/api.js", headers={"host": "evil.example"})).status_code == 403

    run(scenario())
