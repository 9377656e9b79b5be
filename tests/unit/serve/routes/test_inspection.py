"""``inspect`` over HTTP, with a stand-in inspector: what is answered, recorded and refused."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from tests.support.inspection_service import inspect, inspecting, part_picture
from tests.support.serving import files, picture, run, running
from unalike.data.decode import decode
from unalike.inspection.result import DEFECTIVE, GOOD, Inspection
from unalike.serve.resources import InspectorResource

LIMIT = 100.0


class Inspector:
    """Takes bright images for defective ones."""

    threshold = None
    tiling = SimpleNamespace(decoding=None)
    network = SimpleNamespace(engine=SimpleNamespace(describe=lambda: {"runtime": "standin"}))

    def inspect(self, image: bytes) -> Inspection:
        pixels_HWC = decode(image)
        score = float(pixels_HWC.mean())
        decision = DEFECTIVE if score > LIMIT else GOOD
        return Inspection(score, LIMIT, decision, (), np.full((2, 2), score, np.float32), pixels_HWC.shape[:2])


def test_images_are_inspected_recorded_and_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_pixels=1000) as it:
            inspectors: dict[str, Any] = it.service.resources.inspectors
            assert (await it.client.post("/v1/inspect", files=files(picture("red")))).status_code == 404
            inspectors["part"] = InspectorResource("part", "part.inspector", Inspector())  # type: ignore[arg-type]
            images = files(picture((200, 200, 200)), b"x", picture((9, 9, 9)), picture("red", side=50))
            answer = (await it.client.post("/v1/inspect", files=images)).json()
            assert [entry["decision"] for entry in answer["answers"]] == [DEFECTIVE, GOOD]
            assert [entry["index"] for entry in answer["answers"]] == [0, 2] and answer["answers"][0]["path"] == "0.png"
            assert (answer["images"], answer["defective"], answer["inspector"]) == (2, 1, "part")
            assert [entry["path"] for entry in answer["unreadable"]] == ["1.png", "3.png"]
            assert "--max-pixels" in answer["unreadable"][1]["reason"]
            record = (await it.client.get(f"/v1/decisions/{answer['answers'][0]['id']}")).json()
            assert (record["kind"], record["resource"], record["decision"]) == ("inspect", "part", DEFECTIVE)
            assert it.service.work.occupied == 0

    run(scenario())


def test_with_overlay_the_answer_holds_a_picture(tmp_path: Path, monkeypatch: Any) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            from unalike.data.decoding import Decoding

            inspector = Inspector()
            inspector.tiling = SimpleNamespace(decoding=Decoding())
            resource = InspectorResource("part", "part.inspector", inspector)  # type: ignore[arg-type]
            it.service.resources.inspectors["part"] = resource
            response = await it.client.post("/v1/inspectors/part/inspect?overlay=true", files=files(picture("red")))
            assert response.json()["answers"][0]["overlay"].startswith("data:image/png;base64,")
            assert (await it.client.post("/v1/inspect", files=files(picture("red")))).json()["answers"][0][
                "overlay"
            ] is None

    run(scenario())


def test_the_map_of_a_decision_is_a_layer_on_the_scale_of_its_threshold(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            defective, good = await inspect(it, part_picture(100, is_scratched=True), part_picture(300))
            await it.client.post("/v1/inspectors/part/threshold", json={"threshold": 1e6})
            layers = []
            for answer in (defective, good):
                response = await it.client.get(f"/v1/decisions/{answer['id']}/anomaly-map")
                assert response.headers["content-type"] == "image/png"
                layers.append(np.array(Image.open(io.BytesIO(response.content))))
            left, top, right, bottom = defective["spots"][0]["box"]
            assert layers[0].shape == (64, 64, 4) and layers[0][top:bottom, left:right, 3].max() > 100
            assert layers[1][..., 3].max() < layers[0][..., 3].max()
            count = len((await it.client.get("/v1/decisions")).json()["decisions"])
            assert count == 2, "looking at a map is no decision"
            other = await it.client.post("/v1/identify", files=files(picture("red")))
            for address in (other.json()["answers"][0]["id"], "none"):
                assert (await it.client.get(f"/v1/decisions/{address}/anomaly-map")).status_code == 404

    run(scenario())
