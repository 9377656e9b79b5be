"""The page of an inspector's settings as the server renders it."""

from __future__ import annotations

from pathlib import Path

from tests.support.inspection_service import inspect, inspecting, part_picture
from tests.support.serving import run


def test_a_threshold_that_is_tried_flags_what_is_above_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            scratched, good = await inspect(it, part_picture(100, is_scratched=True), part_picture(300))
            page = await it.client.get("/inspect/settings")
            assert page.status_code == 200 and "of 24 good images" in page.text and "64 x 64 pixels" in page.text
            assert f"/v1/decisions/{good['id']}/image" in page.text, "the latest picture to draw on"
            between = (scratched["score"] + good["score"]) / 2
            part = (await it.client.get("/inspect/distribution", params={"threshold": between})).text
            assert "1 of the latest 2 pictures" in part and scratched["id"] in part and good["id"] not in part
            part = (await it.client.get("/inspect/distribution", params={"threshold": good["score"] / 2})).text
            assert "2 of the latest 2" in part and part.index(good["id"]) < part.index(scratched["id"])
            for value in ("x", "-1", "nan"):
                assert (await it.client.get("/inspect/distribution", params={"threshold": value})).status_code == 422

    run(scenario())


def test_what_is_in_use_is_said(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            assert "of the fit." in (await it.client.get("/inspect/distribution")).text
            await it.client.post("/v1/inspectors/part/threshold", json={"threshold": 7.5})
            text = (await it.client.get("/inspect/distribution")).text
            assert "In use: 7.5, which was chosen here." in text and "That of the fit is" in text
            await it.client.post("/v1/inspectors/part/ignored-regions", json={"boxes": [[1, 2, 30, 40]]})
            assert "[1, 2, 30, 40]" in (await it.client.get("/inspect/settings")).text
            it.service.store.settings.set("inspector", "part", {"threshold": 7.5, "fitted": 1}, "ann")
            await it.service.inspectors.refresh()
            assert "earlier fit does not count" in (await it.client.get("/inspect/distribution")).text

    run(scenario())


def test_who_may_only_look_gets_no_buttons(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            secret = it.service.store.keys.add("eye", "view")[1]
            it.service.access.refresh()
            headers = {"Authorization": f"Bearer {secret}"}
            text = (await it.client.get("/inspect/settings", headers=headers)).text
            assert "data-act" not in text and 'id="threshold-range"' in text

    run(scenario())
