"""The page Compare as the server renders it: options, kept regions, a comparison by its decision; hostile names as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.serving import run, running
from tests.unit.serve.routes.test_comparison import drawing
from unalike.serve.pages.comparison import TEXTS
from unalike.serve.routes.comparison import OPTIONS

MARKUP = "<img src=x onerror=alert(1)>\"'&\u202e.png"


async def compare(it: Any, *, altered: bool = True, **data: str) -> str:
    parts = [
        ("reference", (MARKUP, drawing(), "image/png")),
        ("image", (MARKUP, drawing(altered=altered), "image/png")),
    ]
    response = await it.client.post("/v1/compare", files=parts, data={"align": "none", **data})
    return str(response.json()["pairs"][0]["id"])


def test_every_option_has_a_field(tmp_path: Path) -> None:
    assert set(TEXTS) == set(OPTIONS)

    async def scenario() -> None:
        async with running(tmp_path) as it:
            text = (await it.client.get("/compare")).text
            for name in OPTIONS:
                assert f'name="{name}"' in text and f'for="option-{name}"' in text
            assert 'value="auto" selected' in text and "aria-current=page>Compare" in text and "<article" not in text
            assert (await it.client.get("/compare?surprise=1")).status_code == 422

    run(scenario())


def test_a_comparison_is_shown_by_its_decision(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            different, same = await compare(it, ignore_boxes="[[0, 0, 5, 6]]"), await compare(it, altered=False)
            text = (await it.client.get("/compare", params={"decision": different})).text
            assert (
                '<h2 id="verdict-title">Different</h2>' in text
                and "<rect" in text
                and "covered of the reference" in text
            )
            assert "[[0, 0, 5, 6]]" in text and 'data-frame="120 160"' in text
            assert "<img src=x" not in text and "\u202e" not in text and f"decision={same}" in text, (
                "the latest are listed"
            )
            text = (await it.client.get("/compare/answer", params={"id": same})).text
            assert "Same" in text and "<rect" not in text and text.count("<article") == 1
            other = await it.client.post("/v1/identify", files={"image": ("a.png", drawing(), "image/png")})
            for address in (other.json()["answers"][0]["id"], "none"):
                assert (await it.client.get("/compare/answer", params={"id": address})).status_code == 404

    run(scenario())


def test_kept_regions_are_offered_as_text(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            name = MARKUP.replace("\u202e", "")
            await it.client.post("/v1/region-sets", json={"name": name, "frame": [9, 9], "boxes": [[0, 0, 1, 1]]})
            text = (await it.client.get("/compare/region-sets")).text
            assert "<img src=x" not in text and "&lt;img src=x" in text and "(1)" in text
            secret = it.service.store.keys.add("eye", "view")[1]
            it.service.access.refresh()
            text = (await it.client.get("/compare/region-sets", headers={"Authorization": f"Bearer {secret}"})).text
            assert "take-set" in text and "keep-set" not in text and "remove-set" not in text

    run(scenario())


def test_without_kept_pictures_the_page_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, keep_images=False) as it:
            text = (await it.client.get("/compare", params={"decision": await compare(it)})).text
            assert "The pictures were not kept." in text and 'data-has-images="no"' in text

    run(scenario())
