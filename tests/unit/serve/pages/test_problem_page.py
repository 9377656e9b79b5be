"""An error is a page for a browser that asks for one, and a problem document for everything else."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.serving import run, running
from unalike.serve.pages.problem_page import words_of
from unalike.serve.problems import MEDIA_TYPE

PAGE = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_a_browser_gets_a_page_and_a_program_a_document(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            response = await it.client.get("/no<b>", headers=PAGE)
            assert response.status_code == 404 and response.headers["content-type"].startswith("text/html")
            assert "there is no /no&lt;b&gt;" in response.text and "<b>" not in response.text
            assert "<h1>This page does not exist</h1>" in response.text
            assert "What you can do</dt><dd>look at the address, or go to the first page</dd>" in response.text
            assert "openapi" not in response.text  # that is for programs
            assert "script-src 'self'" in response.headers["content-security-policy"]
            assert response.headers["x-request-id"] in response.text
            for path, headers in (
                ("/nothing", {}),
                ("/v1/nothing", PAGE),
                ("/nothing", {**PAGE, "hx-request": "true"}),
            ):
                response = await it.client.get(path, headers=headers)
                assert response.status_code == 404 and response.headers["content-type"] == MEDIA_TYPE
            assert (await it.client.post("/nothing", headers=PAGE)).headers["content-type"] == MEDIA_TYPE
            response = await it.client.get("/recognize?gallery=color", headers=PAGE)
            assert response.status_code == 404 and "colors" in response.text  # close spellings
            response = await it.client.get("/recognize?galery=colors", headers=PAGE)
            assert response.status_code == 422 and "gallery" in response.text

    run(scenario())


def test_who_has_no_session_is_sent_to_sign_in_and_comes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            secret = it.service.store.keys.add("a", "view")[1]
            it.service.access.refresh()
            response = await it.client.get("/recognize?gallery=colors&batch=a%26b", headers=PAGE)
            parts = urlsplit(response.headers["location"])
            assert response.status_code == 303 and parts.path == "/sign-in"
            assert parse_qs(parts.query)["next"] == ["/recognize?gallery=colors&batch=a%26b"]
            assert (await it.client.get("/recognize")).status_code == 401
            page = await it.client.get(response.headers["location"], headers=PAGE)
            assert page.status_code == 200 and 'data-target="/recognize?gallery=colors&amp;batch=a%26b"' in page.text
            await it.client.post("/v1/session", json={"key": secret})
            page = await it.client.get("/recognize", headers=PAGE)
            csrf = (await it.client.get("/v1/session")).json()["csrf"]
            assert page.status_code == 200 and f'name="csrf-token" content="{csrf}"' in page.text
            assert "Sign out" in page.text and 'data-act="wrong"' not in page.text and 'id="choose"' not in page.text

    run(scenario())


@pytest.mark.parametrize(
    ("status", "heading"),
    [
        (403, "You may not see this"),
        (404, "This page does not exist"),
        (405, "This address cannot be shown"),
        (422, "This address cannot be shown"),
        (429, "Too many requests"),
        (500, "Something went wrong in the service"),
        (503, "The service is busy"),
        (507, "Something went wrong in the service"),
    ],
)
def test_every_status_has_plain_words(status: int, heading: str) -> None:
    assert words_of(status)[0] == heading and words_of(status)[1]
