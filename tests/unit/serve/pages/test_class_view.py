"""The page of one class as the server renders it: pages of references, kept pictures, what a deletion loses, what a role may do."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tests.support.serving import files, picture, run, running
from unalike.serve.pages.class_view import PAGE_SIZE

MARKUP = "<img src=x onerror=alert(1)>\"'&"


def ids_in(text: str) -> list[int]:
    return [int(number) for number in re.findall(r'data-id="(\d+)"', text)]


def test_references_are_shown_page_by_page(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            with it.service.resources.gallery().gallery.change() as gallery:
                ids = gallery.enrol(
                    np.random.default_rng(0).normal(size=(PAGE_SIZE + 3, 3)), [MARKUP] * (PAGE_SIZE + 3)
                )
            text = (await it.client.get("/classes/view", params={"label": MARKUP})).text
            assert (
                ids_in(text) == ids[:PAGE_SIZE] and f"after={ids[PAGE_SIZE - 1]}" in text and "First page" not in text
            )
            assert "<img src=x" not in text and f"{PAGE_SIZE + 3} references in the gallery colors" in text
            text = (
                await it.client.get("/classes/references", params={"label": MARKUP, "after": ids[PAGE_SIZE - 1]})
            ).text
            assert (
                ids_in(text) == ids[PAGE_SIZE:]
                and "Next page" not in text
                and "First page" in text
                and "<html" not in text
            )
            text = (await it.client.get("/classes/view", params={"label": MARKUP, "after": ids[-1]})).text
            assert "no references behind these" in text

    run(scenario())


def test_a_class_that_does_not_exist_is_made_only_where_that_was_asked_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            response = await it.client.get("/classes/view", params={"label": "none", "new": "true"})
            assert response.status_code == 200 and "its first picture makes it" in response.text
            assert 'aria-label="Pictures to add" hidden' not in response.text
            response = await it.client.get("/classes/view", params={"label": "none"})
            assert response.status_code == 200 and "it was renamed, merged or deleted" in response.text
            assert 'href="/classes?gallery=' in response.text and "See all classes" in response.text
            assert 'aria-label="Pictures to add" hidden' in response.text
            for query in ("", "label=", "label=%20", "label=red&after=x", "label=red&other=1"):
                assert (await it.client.get(f"/classes/view?{query}")).status_code == 422, query
            assert (await it.client.get("/classes/view?label=red&gallery=none")).status_code == 404

    run(scenario())


def test_what_a_deletion_loses_is_said(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            await it.client.post(
                "/v1/references", files=files(picture((9, 9, 9)), picture((8, 8, 8))),
                data={"label": "gray", "attributes": '{"site": "<b>"}'},
            )  # fmt: skip

            async def deletion(label: str) -> str:
                return str((await it.client.get("/classes/deletion", params={"label": label})).text)

            assert "2 references of gray will be removed" in await deletion(
                "gray"
            ) and "undo brings them back" in await deletion("gray")
            assert "this cannot be undone" in await deletion("red")
            await it.client.post("/v1/classes/merge", json={"labels": ["gray", "red"], "into": "mixed"})
            assert "bring these 1 back" in await deletion("mixed") and "3 references" in await deletion("mixed")
            text = (await it.client.get("/classes/references?label=mixed")).text
            assert text.count('data-sha=""') == 1 and len(re.findall(r'data-sha="[0-9a-f]{64}"', text)) == 2
            assert text.count('data-attributes="{}"') == 1  # what undo gives back
            assert text.count('data-attributes="{&#34;site&#34;: &#34;&lt;b&gt;&#34;}"') == 2
            assert "0 references" in await deletion("gone")

    run(scenario())


def test_the_page_offers_what_the_role_may_do(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            keys = {role: {"x-api-key": it.service.store.keys.add(role, role)[1]} for role in ("view", "operate")}
            it.service.access.refresh()
            text = (await it.client.get("/classes/view?label=red", headers=keys["operate"])).text
            assert (
                all(f'data-act="{name}"' in text for name in ("rename", "merge", "delete", "move", "remove"))
                and 'id="files"' in text
            )
            text = (await it.client.get("/classes/view?label=red", headers=keys["view"])).text
            assert (
                'data-act="rename"' not in text
                and 'id="files"' not in text
                and "listbox" not in text
                and ids_in(text) == [0]
            )
            assert (
                "There is no class of this name"
                in (await it.client.get("/classes/view?label=none", headers=keys["view"])).text
            )

    run(scenario())
