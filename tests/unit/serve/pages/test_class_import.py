"""The page Import as the server renders it; what it does is tested in a browser."""

from __future__ import annotations

from pathlib import Path

from tests.support.serving import run, running


def test_the_page_names_the_gallery_and_the_files_that_it_takes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, names=("colors", "others")) as it:
            text = (await it.client.get("/classes/import?gallery=others")).text
            assert (
                'data-gallery="others"' in text
                and ".jpeg" in text
                and "webkitdirectory" in text
                and "references.csv" in text
            )
            assert (await it.client.get("/classes/import?gallery=none")).status_code == 404
            assert (await it.client.get("/classes/import?x=1")).status_code == 422

    run(scenario())


def test_who_may_only_look_is_told_and_gets_no_script(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            key = {"x-api-key": it.service.store.keys.add("guest", "view")[1]}
            it.service.access.refresh()
            text = (await it.client.get("/classes/import", headers=key)).text
            assert "role operate" in text and "class_import.js" not in text and 'type="file"' not in text
            text = (await it.client.get("/classes", headers=key)).text
            assert "/classes/import" not in text and "/v1/galleries/colors/export" in text

    run(scenario())
