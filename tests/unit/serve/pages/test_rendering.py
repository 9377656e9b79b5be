"""What every page has: a policy without inline scripts and styles, the session's token, the galleries, hidden characters shown."""

from __future__ import annotations

import html
import re
from pathlib import Path

from tests.support.serving import run, running
from unalike.serve.pages.rendering import NAVIGATION, PAGE_POLICY, environment

PAGES = [address for address, _ in NAVIGATION]


def test_pages_have_a_strict_policy_and_nothing_inline(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            for address in PAGES:
                response = await it.client.get(address)
                assert response.status_code == 200, address
                assert response.headers["content-security-policy"] == PAGE_POLICY
                assert (
                    response.headers["cache-control"] == "no-store"
                    and response.headers["x-content-type-options"] == "nosniff"
                )
                assert not re.search(
                    r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|hx-on|javascript:", response.text
                )
            assert (
                "default-src 'none'; frame-ancestors"
                in (await it.client.get("/v1/classes")).headers["content-security-policy"]
            )

    run(scenario())
    assert "unsafe" not in PAGE_POLICY and "*" not in PAGE_POLICY


def test_every_script_and_stylesheet_of_a_page_is_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            for address in PAGES:
                sources = re.findall(r'(?:src|href)="(/static/[^"]+)"', (await it.client.get(address)).text)
                assert len(sources) >= 5
                for source in sources:
                    assert (await it.client.get(source)).status_code == 200, source

    run(scenario())


def test_every_link_of_the_header_leads_to_a_page(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            for address in PAGES:
                header = (await it.client.get(address)).text.partition("</nav>")[0].rpartition("<nav")[2]
                links = re.findall(r'<a href="([^"]+)"', header)
                assert len(links) == len(PAGES)
                for link in links:
                    assert (await it.client.get(html.unescape(link))).status_code == 200, f"{link} on {address}"

    run(scenario())


def test_the_galleries_of_the_key_are_offered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, names=("colors", "others")) as it:
            text = (await it.client.get("/recognize?gallery=others")).text
            assert '<option value="others" selected>' in text and '<option value="colors">' in text
            assert "?gallery=others" in text
            secret = it.service.store.keys.add("till", "view", "others")[1]
            it.service.access.refresh()
            text = (await it.client.get("/recognize", headers={"x-api-key": secret})).text
            assert 'data-gallery="others"' in text and "colors" not in text

    run(scenario())


def test_hidden_characters_are_shown_as_text_and_kept_in_values() -> None:
    template = environment().from_string('<b title="{{ name }}" data-name="{{ name|e }}">{{ name }}</b>')
    html = template.render(name='a\u202e"<')
    assert html == '<b title="a\\u202e&#34;&lt;" data-name="a\u202e&#34;&lt;">a\\u202e&#34;&lt;</b>'
