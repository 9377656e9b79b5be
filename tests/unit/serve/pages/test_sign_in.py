"""The first address, and the page on which one signs in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.serving import run, running
from unalike.serve.pages.sign_in import HOME, own_path


@pytest.mark.parametrize("address", ["/classes?gallery=a&search=b%20c", "/recognize#answer-1", "/"])
def test_paths_of_this_service_may_be_next(address: str) -> None:
    assert own_path(address) == address


@pytest.mark.parametrize("address", ["", "//evil.example", "/\\evil.example", "\\\\evil.example", "http://evil.example/", "javascript:alert(1)",
                                     "evil", "/\t/evil.example", "/\n", "///evil.example", "http:/evil", "/a\\..\\b", "//[bad"])  # fmt: skip
def test_no_other_site_may(address: str) -> None:
    assert own_path(address) == HOME


def test_the_first_address_is_a_page_and_nobody_signs_in_where_no_key_is_needed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            assert (await it.client.get("/")).headers["location"] == HOME
            assert (await it.client.get("/sign-in?next=/recognize%3Fa")).headers["location"] == "/recognize?a"
            it.service.store.keys.add("a", "view")
            it.service.access.refresh()
            page = await it.client.get("/sign-in?next=//evil.example")
            assert page.status_code == 200 and f'data-target="{HOME}"' in page.text and "evil" not in page.text

    run(scenario())


def test_the_first_page_of_a_service_for_inspection_is_inspect(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, names=()) as it:
            assert (await it.client.get("/")).headers["location"] == HOME
            it.service.resources.inspectors["part"] = object()
            assert (await it.client.get("/")).headers["location"] == "/inspect"
            del it.service.resources.inspectors["part"]

    run(scenario())
