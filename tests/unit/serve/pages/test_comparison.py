"""The page Compare as the server renders it: options, kept regions, a comparison by its decision; hostile names as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.inspection_service import inspecting
from tests.support.serving import run, running
from tests.unit.serve.routes.test_comparison import drawing
from unalike.serve.comparison_options import OPTIONS, TEXTS
from unalike.serve.store import DecisionRecord

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
        async with inspecting(tmp_path) as it:
            text = (await it.client.get("/compare")).text
            for name in OPTIONS:
                assert f'name="{name}"' in text and f'for="option-{name}"' in text
            assert 'value="auto" selected' in text and "aria-current=page>Compare" in text and "<article" not in text
            assert '<option value="part">that of the inspector part</option>' in text and TEXTS["level"] in text
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


def test_without_an_inspector_features_are_not_offered_and_the_page_says_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            text = (await it.client.get("/compare")).text
            assert "option-level" not in text and "option-network" not in text
            assert "With an inspector, the features of its network can be compared too." in text

    run(scenario())


def test_features_have_their_own_heat_map(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            for level, buttons in (
                ("pixels", ["heat"]),
                ("features", ["heat_features"]),
                ("both", ["heat", "heat_features"]),
            ):
                identifier = await compare(it, level=level)
                text = (await it.client.get("/compare/answer", params={"id": identifier})).text
                for name in ("heat", "heat_features"):
                    assert (f'data-act="{name}"' in text) == (f'of-{name}"' in text) == (name in buttons), (level, name)
                assert ("of the inspector part" in text) == (level != "pixels")

    run(scenario())


def test_words_never_name_an_option_of_the_command_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            identifier = await compare(it)
            text = (await it.client.get("/compare/answer", params={"id": identifier})).text
            words = "&#34;Tolerated displacement of edges, in pixels&#34; at 0 looks for finer changes"
            assert words in text and "moved by 1 pixel or less" in text and "--" not in text
            former = DecisionRecord("compare", "compare", "different", result={
                **(await it.client.get(f"/v1/decisions/{identifier}")).json()["result"], "notes": ["--lighting none counts it"],
            })  # fmt: skip
            it.service.store.decisions.add([former])
            text = (await it.client.get("/compare/answer", params={"id": former.id})).text
            assert "&#34;Lighting that does not count: none&#34; counts it" in text and "--" not in text

    run(scenario())
