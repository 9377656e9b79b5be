"""Keys, roles, rates, and what a browser may be made to send."""

from __future__ import annotations

import asyncio
import hmac
from pathlib import Path
from typing import Any

import pytest

from tests.support.serving import files, picture, run, running
from unalike.serve.problems import Problem
from unalike.serve.security import (
    MAX_CLIENTS,
    MAX_FAILURES,
    RateLimiter,
    csrf_token,
    is_loopback,
    is_public,
    refuse_other_hosts,
    refuse_other_sites,
    role_for,
)

# Every write that is not known to be less needs admin.
ROLES = [
    ("GET", "/v1/decisions", "view"), ("GET", "/v1/audit", "admin"), ("GET", "/metrics", "view"), ("POST", "/v1/identify", "view"),
    ("POST", "/v1/galleries/a/identify", "view"), ("POST", "/v2/models/embedding/infer", "view"),
    ("POST", "/v1/decisions/1/feedback", "operate"), ("POST", "/v1/references", "operate"), ("DELETE", "/v1/classes", "operate"),
    ("POST", "/v1/galleries/a/classes/merge", "operate"), ("DELETE", "/v1/galleries/a/references/7", "operate"),
    ("POST", "/v1/calibration", "operate"), ("PUT", "/v1/references", "admin"), ("POST", "/v1/galleries/a/b/references", "admin"),
    ("GET", "/recognize", "view"), ("DELETE", "/v1/session", "view"), ("POST", "/v1/session", "admin"),
    ("GET", "/v1/keys", "admin"), ("GET", "/v1/settings", "admin"), ("GET", "/settings", "admin"), ("GET", "/settings/keys", "admin"),
    ("POST", "/v1/keys", "admin"), ("DELETE", "/v1/keys/1", "admin"), ("PUT", "/v1/settings", "admin"),
    ("GET", "/v1/review", "view"), ("POST", "/v1/review/answers", "operate"), ("DELETE", "/v1/galleries/a/review/answers/1", "operate"),
    ("PUT", "/v1/identify", "admin"), ("POST", "/v1/unknown", "admin"), ("DELETE", "/v1/decisions/identify", "admin"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "role"), ROLES)
def test_every_request_needs_a_role(method: str, path: str, role: str) -> None:
    assert role_for(method, path) == role


def test_what_a_browser_signs_in_with_needs_no_key() -> None:
    assert is_public("GET", "/sign-in") and is_public("GET", "/static/api.js") and is_public("POST", "/v1/session")
    for method, path in (("POST", "/sign-in"), ("DELETE", "/v1/session"), ("GET", "/v1/session"), ("GET", "/recognize"),
                         ("GET", "/"), ("POST", "/static/api.js"), ("GET", "/static"), ("GET", "/v1/static/x")):  # fmt: skip
        assert not is_public(method, path)


def test_keys_open_what_their_role_may_do_and_nothing_is_open_without(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            store, image = it.service.store, files(picture("red"))
            assert (await it.client.post("/v1/identify", files=image)).status_code == 200  # loopback, no key yet
            keys = {role: store.keys.add(role, role)[1] for role in ("view", "operate", "admin")}
            it.service.access.refresh()
            response = await it.client.post("/v1/identify", files=image)
            assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
            assert (await it.client.get("/healthz")).status_code == 200
            for role, expected in (("view", 403), ("operate", 200), ("admin", 200)):
                headers, body = {"x-api-key": keys[role]}, {"label": "red", "new": "red"}
                assert (await it.client.post("/v1/classes/rename", json=body, headers=headers)).status_code == expected
            for role, expected in (("view", 200), ("operate", 200), ("admin", 200)):
                for headers in ({"authorization": f"Bearer {keys[role]}"}, {"x-api-key": keys[role]}):
                    assert (await it.client.post("/v1/identify", files=image, headers=headers)).status_code == expected
            assert (await it.client.get("/v1/decisions", headers={"x-api-key": keys["view"]})).json()["decisions"]
            decision = (await it.client.get("/v1/decisions", headers={"x-api-key": keys["view"]})).json()["decisions"][
                0
            ]
            assert decision["actor"] == "admin"
            assert (await it.client.get("/v1/decisions", headers={"x-api-key": "unalike_wrong"})).status_code == 401

    run(scenario())


def test_a_key_for_one_gallery_reaches_no_other_and_no_decision_of_another(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, names=("colors", "others")) as it:
            for name in ("colors", "others"):
                await it.client.post(f"/v1/galleries/{name}/identify", files=files(picture("red")))
            headers = {"x-api-key": it.service.store.keys.add("till", "operate", "others")[1]}
            it.service.access.refresh()
            response = await it.client.post("/v1/identify", files=files(picture("red")), headers=headers)
            assert response.json()["gallery"] == "others"  # its own is the default one
            response = await it.client.post(
                "/v1/galleries/colors/identify", files=files(picture("red")), headers=headers
            )
            assert response.status_code == 403
            listing = (await it.client.get("/v1/decisions", headers=headers)).json()["decisions"]
            assert {entry["resource"] for entry in listing} == {"others"} and len(listing) == 2
            foreign = it.service.store.decisions.find().items[-1]
            assert foreign.resource == "colors"
            assert (await it.client.get(f"/v1/decisions/{foreign.id}", headers=headers)).status_code == 404
            names = [
                entry["gallery"]
                for entry in (await it.client.get("/v1/galleries", headers=headers)).json()["galleries"]
            ]
            assert names == ["others"]

    run(scenario())


def test_a_key_that_is_revoked_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            store = it.service.store
            record, secret = store.keys.add("a", "view")
            store.keys.add("b", "view")
            it.service.access.refresh()
            assert (await it.client.get("/v1/decisions", headers={"x-api-key": secret})).status_code == 200
            store.keys.revoke(record.id)
            it.service.access._cache.clear()  # as after a quarter of a second
            assert (await it.client.get("/v1/decisions", headers={"x-api-key": secret})).status_code == 401

    run(scenario())


def test_many_wrong_keys_of_one_address_are_refused_without_a_look(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            it.service.store.keys.add("a", "view")
            it.service.access.refresh()
            codes = [
                (await it.client.get("/v1/decisions", headers={"x-api-key": f"k{n}"})).status_code
                for n in range(MAX_FAILURES + 3)
            ]
            assert codes[:MAX_FAILURES] == [401] * MAX_FAILURES and codes[-1] == 429

    run(scenario())


def test_wrong_keys_do_not_keep_out_the_valid_key_of_the_same_address(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            keys = it.service.store.keys
            (_, valid), (revoked_key, revoked) = keys.add("a", "view"), keys.add("b", "view")
            keys.revoke(revoked_key.id)
            it.service.access.refresh()

            async def get(secret: str) -> int:
                return (await it.client.get("/v1/decisions", headers={"x-api-key": secret})).status_code

            assert [await get(f"k{n}") for n in range(MAX_FAILURES + 2)][-1] == 429
            assert [await get(secret) for secret in (valid, revoked, "k", valid)] == [200, 429, 429, 200]
            assert (await it.client.post("/v1/session", json={"key": valid})).status_code in (200, 201)

    run(scenario())


def test_a_client_beyond_its_rate_is_told_when_to_come_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, rate_limit=0.001) as it:
            assert (await it.client.get("/v1/galleries")).status_code == 200
            response = await it.client.get("/v1/galleries")
            assert response.status_code == 429 and int(response.headers["retry-after"]) > 100
            assert (await it.client.get("/healthz")).status_code == 200

    run(scenario())


def test_a_bucket_fills_with_time_and_the_oldest_clients_are_forgotten() -> None:
    now = [0.0]
    limiter = RateLimiter(2.0, 4.0, clock=lambda: now[0])
    assert [limiter.wait_s("a") for _ in range(4)] == [0.0] * 4
    assert limiter.wait_s("a") == pytest.approx(0.5) and limiter.wait_s("b") == 0.0
    now[0] = 0.5
    assert limiter.wait_s("a") == 0.0 and limiter.wait_s("a") > 0
    for number in range(MAX_CLIENTS + 5):
        limiter.wait_s(str(number))
    assert len(limiter._buckets) == MAX_CLIENTS


@pytest.mark.parametrize(
    ("headers", "is_refused"),
    [
        ({"host": "h:1"}, False), ({"host": "h:1", "origin": "http://h:1"}, False),
        ({"host": "h:1", "origin": "http://evil"}, True), ({"host": "h:1", "origin": "null"}, True),
        ({"host": "h:1", "origin": "http://["}, True), ({"host": "h:1", "origin": "http://h:2"}, True), ({"host": "h:1", "sec-fetch-site": "cross-site"}, True),
        ({"host": "h:1", "sec-fetch-site": "same-site"}, True), ({"host": "h:1", "sec-fetch-site": "same-origin"}, False),
    ],
)  # fmt: skip
def test_a_change_that_another_site_sends_is_refused(headers: dict[str, str], is_refused: bool) -> None:
    refuse_other_sites("GET", headers)
    if not is_refused:
        refuse_other_sites("POST", headers)
        return
    with pytest.raises(Problem) as caught:
        refuse_other_sites("POST", headers)
    assert caught.value.status == 403


def test_without_keys_only_loopback_names_lead_here() -> None:
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "a.localhost"):
        refuse_other_hosts({"host": host})
    for host in ("evil.example:8000", "192.168.0.2", "", "localhost.evil.example", "[", "[::1", "a]b"):
        with pytest.raises(Problem):
            refuse_other_hosts({"host": host})


def test_loopback_is_told_from_other_addresses() -> None:
    assert is_loopback("127.0.0.1") and is_loopback("localhost") and is_loopback("::1")
    assert not is_loopback("0.0.0.0") and not is_loopback("192.0.2.1") and not is_loopback("::")


def test_secrets_stand_in_no_log(tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    monkeypatch.setattr(logging.getLogger("unalike.serve"), "propagate", True)
    caplog.set_level(logging.DEBUG)

    async def scenario() -> str:
        async with running(tmp_path) as it:
            secret = it.service.store.keys.add("a", "admin")[1]
            it.service.access.refresh()
            await it.client.get("/v1/decisions?label=x", headers={"authorization": f"Bearer {secret}"})
            await asyncio.sleep(0)
            return secret

    secret = run(scenario())
    text = "\n".join(str(record.__dict__) for record in caplog.records if record.name == "unalike.serve")
    assert "/v1/decisions" in text and secret not in text and secret.rpartition("_")[2] not in text


def test_the_csrf_token_follows_from_the_session_and_not_the_other_way() -> None:
    assert csrf_token("t") == hmac.new(b"t", b"unalike csrf", "sha256").hexdigest() != csrf_token("u")
