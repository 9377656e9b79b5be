"""``explain`` over HTTP: by occlusion, since the stand-in network cannot be cut."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.serving import SIDE, files, picture, run, running
from unalike.explanation.evidence import Evidence
from unalike.explanation.explainer import Explanation
from unalike.serve.routes.explanation import draw_maps


def test_an_image_is_explained_beside_the_nearest_a_named_or_another_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            gold = picture((200, 180, 20))
            reference = (await it.client.post("/v1/references", files=files(gold), data={"label": "gold"})).json()[
                "references"
            ][0]
            nearest = (await it.client.post("/v1/explain", files=files(picture((190, 180, 30))))).json()["pairs"][0]
            assert (nearest["reference_label"], nearest["reference"], nearest["query"]) == (
                "gold",
                reference["name"],
                "0.png",
            )
            assert nearest["why"]["method"] == "covers" and len(nearest["why"]["query"]["for"]) > 1
            query = {"reference_id": str(reference["id"])}
            named = (await it.client.post("/v1/explain", files=files(picture("red")), data=query)).json()["pairs"][0]
            assert named["reference_label"] == "gold" and named["why"]["score"] < nearest["why"]["score"]
            both = [*files(picture("red")), *files(picture("red"), field="reference")]
            other = (await it.client.post("/v1/explain", files=both)).json()["pairs"][0]
            assert other["reference_label"] == "" and other["why"]["score"] > 0.999

    run(scenario())


def test_requests_that_name_no_picture_are_problems(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            response = await it.client.post("/v1/explain", files=files(picture("red")), data={"reference_id": "99"})
            assert response.status_code == 404
            assert (await it.client.post("/v1/explain", files=files(b"x"))).status_code == 422
            assert (
                await it.client.post("/v1/explain", files=files(picture("red"), picture("blue")))
            ).status_code == 422
            response = await it.client.post(
                "/v1/explain", files=files(picture("red"))
            )  # the file red.png does not exist
            assert response.status_code == 422

    run(scenario())


def test_the_image_of_a_decision_is_explained_with_pictures(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            gold = picture((200, 180, 20))
            await it.client.post("/v1/references", files=files(gold), data={"label": "gold"})
            decision = (await it.client.post("/v1/identify", files=files(gold))).json()["answers"][0]["id"]
            body = {"decision": decision, "pictures": True}
            pair = (await it.client.post("/v1/explain", json=body)).json()["pairs"][0]
            assert pair["reference_label"] == "gold" and pair["why"]["score"] > 0.999
            assert set(pair["pictures"]) == {"query_for", "query_against", "reference_for", "reference_against"}
            for content in pair["pictures"].values():
                assert Image.open(io.BytesIO(base64.b64decode(content))).size == (SIDE, SIDE)
            assert (
                "pictures" not in (await it.client.post("/v1/explain", json={"decision": decision})).json()["pairs"][0]
            )
            assert (await it.client.post("/v1/explain", json={"decision": "none"})).status_code == 404

    run(scenario())


def test_maps_are_drawn_on_one_scale() -> None:
    image_HWC = np.full((4, 4, 3), 100, np.uint8)
    strong, weak = np.full((2, 2), 0.8), np.full((2, 2), 0.1)
    pictures = draw_maps(
        Explanation(Evidence(0.5, strong, weak, True), Evidence(0.5, weak, weak * 0, True), image_HWC, image_HWC)
    )

    def redness(name: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures[name]))), np.float32).mean(axis=(0, 1))

    green, pale, none = redness("query_for"), redness("reference_for"), redness("reference_against")
    assert green[1] - green[0] > 80 and 30 > pale[1] - pale[0] > 5 and abs(none[0] - none[1]) < 3
