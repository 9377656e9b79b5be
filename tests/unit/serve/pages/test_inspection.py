"""The page Inspect as the server renders it: by batch, by decision; hostile names as text; without an inspector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.inspection_service import inspecting, part_picture
from tests.support.serving import run, running
from unalike.serve.pages.batch import new_batch

MARKUP = "<img src=x onerror=alert(1)>\"'&\u202e.png"


async def inspect(it: Any, seed: int, *, is_scratched: bool = False, batch: str = "", name: str = "a.png") -> str:
    part = ("image", (name, part_picture(seed, is_scratched=is_scratched), "image/png"))
    response = await it.client.post("/v1/inspect", files=[part], headers={"x-request-id": batch} if batch else {})
    return str(response.json()["answers"][0]["id"])


def test_the_page_shows_the_answers_of_its_batch_or_the_latest(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            batch = new_batch()
            own = await inspect(it, 100, is_scratched=True, batch=batch)
            other = await inspect(it, 300)
            text = (await it.client.get("/inspect")).text
            assert own in text and other in text and text.index(other) < text.index(own)
            assert (
                "Defective" in text
                and "Normal" in text
                and "<rect" in text
                and f"/v1/decisions/{own}/anomaly-map" in text
            )
            text = (await it.client.get("/inspect", params={"inspector": "part", "batch": batch})).text
            assert own in text and other not in text and f'data-batch="{batch}"' in text
            text = (await it.client.get("/inspect", params={"decision": other})).text
            assert other in text and own not in text
            answer = await it.client.get("/inspect/answer", params={"inspector": "part", "id": own})
            assert answer.text.count("<article") == 1 and answer.text.count("</article>") == 1
            assert (await it.client.get("/inspect/answer?id=none")).status_code == 404
            assert (await it.client.get("/inspect?inspector=other")).status_code == 404
            assert (await it.client.get("/inspect?surprise=1")).status_code == 422

    run(scenario())


def test_names_of_files_are_text(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path, keep_images=False) as it:
            await inspect(it, 300, name=MARKUP)
            text = (await it.client.get("/inspect")).text
            assert "<img src=x" not in text and "&lt;img src=x" in text and "\u202e" not in text
            assert "The picture was not kept." in text and "keeps no pictures" in text

    run(scenario())


def test_without_an_inspector_the_page_says_how_to_get_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            page = await it.client.get("/inspect")
            assert page.status_code == 200 and 'href="/inspect/fit"' in page.text and "--inspector" in page.text

    run(scenario())


def test_a_key_for_one_gallery_gets_no_page_and_no_link(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            secret = it.service.store.keys.add("till", "operate", "colors")[1]
            it.service.access.refresh()
            headers = {"Authorization": f"Bearer {secret}", "accept": "text/html"}
            for path in ("/inspect", "/inspect/settings", "/inspect/fit", "/inspect/fits"):
                assert (await it.client.get(path, headers=headers)).status_code == 403, path
            assert 'href="/inspect' not in (await it.client.get("/recognize", headers=headers)).text

    run(scenario())
