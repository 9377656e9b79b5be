"""The grid of classes as the server renders it: parts by number, searched, with the first picture of each; hostile names as text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.serving import files, picture, run, running
from unalike.serve.pages.classes import MAX_OFFSET, PAGE_SIZE

MARKUP = "<img src=x onerror=alert(1)>\"'&"


def names_in(text: str) -> list[str]:
    return re.findall(r'<span class="cell-name">(.*?)</span>', text)


def test_parts_of_the_grid_follow_one_another(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            labels = [f"class {number:03}" for number in range(PAGE_SIZE + 5)]
            with it.service.resources.gallery().gallery.change() as gallery:
                gallery.enrol(np.random.default_rng(0).normal(size=(len(labels), 3)), labels)
            expected = sorted([*labels, "red", "green", "blue"])
            text = (await it.client.get("/classes")).text
            assert (
                names_in(text) == expected[:PAGE_SIZE] and f'data-total="{len(expected)}"' in text and "<html" in text
            )
            assert f"{len(expected)} of {len(expected)} classes, {len(expected)} references" in text
            text = (await it.client.get("/classes/cells", params={"offset": PAGE_SIZE})).text
            assert (
                names_in(text) == expected[PAGE_SIZE:] and f'data-offset="{PAGE_SIZE}"' in text and "<html" not in text
            )
            assert f'aria-posinset="{PAGE_SIZE + 1}"' in text
            text = (await it.client.get("/classes/cells", params={"offset": 10_000})).text
            assert names_in(text) == [] and f'data-total="{len(expected)}"' in text
            text = (await it.client.get("/classes", params={"search": " CLASS 00"})).text
            assert names_in(text) == labels[:10] and 'value="CLASS 00"' in text
            assert "No class has such a name" in (await it.client.get("/classes?search=none")).text

    run(scenario())


def test_a_cell_has_the_picture_of_the_first_reference(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            response = await it.client.post(
                "/v1/references", files=files(picture((9, 9, 9)), picture((8, 8, 8))), data={"label": MARKUP}
            )
            ids = [entry["id"] for entry in response.json()["references"]]
            with it.service.resources.gallery().gallery.change() as gallery:
                gallery.enrol(np.ones((1, 3)), ["bare"], ["a vector alone"])
            text = (await it.client.get("/classes/cells")).text
            assert (
                f"/v1/galleries/colors/references/{ids[0]}/image?side=128" in text
                and f"references/{ids[1]}/" not in text
            )
            assert "2 references" in text and "1 reference<" in text and text.count("no picture") == 1
            assert "<img src=x" not in text and "label=%3Cimg+src%3Dx" in text

    run(scenario())


@pytest.mark.parametrize(
    "query", ["offset=-1", f"offset={MAX_OFFSET + 1}", "offset=x", "limit=3", "search=" + "x" * 501]
)
def test_wrong_parameters_are_refused(tmp_path: Path, query: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            assert (await it.client.get(f"/classes/cells?{query}")).status_code == 422

    run(scenario())


def test_the_page_offers_what_the_role_may_do(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            keys = {role: {"x-api-key": it.service.store.keys.add(role, role)[1]} for role in ("view", "operate")}
            it.service.access.refresh()
            assert 'id="new-class"' in (await it.client.get("/classes", headers=keys["operate"])).text
            text = (await it.client.get("/classes", headers=keys["view"])).text
            assert 'id="new-class"' not in text and names_in(text) == ["blue", "green", "red"]
            assert (await it.client.get("/classes")).status_code == 401
        async with running(tmp_path / "empty", filled=False) as it:
            text = (await it.client.get("/classes")).text
            assert names_in(text) == [] and '<p id="no-classes" class="none" hidden>' in text

    run(scenario())


def test_the_page_says_when_a_picture_is_unknown_and_what_stands_behind_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            assert "No threshold is set" in (await it.client.get("/classes")).text
            for color in range(3):
                await it.client.post(
                    "/v1/references", files=files(picture((9 * color, 9, 9)), picture((8 * color, 8, 8))),
                    data={"label": f"class {color}"},
                )  # fmt: skip
            assert (await it.client.post("/v1/calibration", json={})).status_code == 200
            text = (await it.client.get("/classes/calibration")).text
            assert "a picture is called unknown" in text and "provisional" in text and "Set it anew" in text
            await it.client.post("/v1/references", files=files(picture((1, 2, 3))), data={"label": "class 1"})
            text = (await it.client.get("/classes")).text
            assert "set before the gallery changed" in text and "<html" in text

    run(scenario())
