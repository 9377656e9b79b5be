"""``verify`` over HTTP, with a stand-in verifier."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from tests.support.serving import files, picture, run, running
from unalike.data.decode import decode
from unalike.errors import DataError
from unalike.serve.resources import AssetsResource
from unalike.verification.asset import Asset
from unalike.verification.result import ABSENT, SAME, VerificationResult


class Verifier:
    """Knows one asset, which is red."""

    approved = SimpleNamespace(assets=["red"], names=["red"])
    thresholds = None

    def asset_number(self, name: str) -> int:
        if name != "red":
            raise DataError(f"no asset {name!r} in the set")
        return 0

    def verify(self, image: bytes, claimed: str | None) -> VerificationResult:
        is_red = decode(image)[0, 0, 0] > 128
        return VerificationResult(SAME if is_red else ABSENT, "red", 0.9 if is_red else 0.0, 0.5, 0.8)


def test_images_are_verified_and_recorded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            assert (await it.client.post("/v1/verify", files=files(picture("red")))).status_code == 404
            sets: dict[str, Any] = it.service.resources.assets
            sets["brand"] = AssetsResource("brand", "brand.set", Verifier())  # type: ignore[arg-type]
            answer = (await it.client.post("/v1/verify", files=files(picture("red"), b"x", picture("blue")))).json()
            assert answer["answers"] == {SAME: 1, ABSENT: 1} and answer["reference"] == "brand"
            assert [(verdict["index"], verdict["answer"]) for verdict in answer["verdicts"]] == [(0, SAME), (2, ABSENT)]
            assert answer["unreadable"][0]["index"] == 1
            records = [(await it.client.get(f"/v1/decisions/{verdict['id']}")).json() for verdict in answer["verdicts"]]
            assert [(record["decision"], record["label"], record["nearest"]) for record in records] == [
                (SAME, "red", "red"), (ABSENT, None, "red"),
            ]  # fmt: skip
            response = await it.client.post("/v1/verify?asset=blue", files=files(picture("red")))
            assert response.status_code == 422 and "no asset" in response.json()["found"]

    run(scenario())


def test_the_picture_of_an_asset_is_its_layer(tmp_path: Path) -> None:
    layer_HW4 = np.zeros((20, 30, 4), np.uint8)
    layer_HW4[5:15, 5:25] = (220, 30, 30, 255)
    verifier = Verifier()
    name = "<b>red</b>\u202e"
    verifier.approved = SimpleNamespace(assets=[Asset(name, layer_HW4)], names=[name])
    verifier.asset_number = lambda wanted: 0  # type: ignore[method-assign]

    async def scenario() -> None:
        async with running(tmp_path) as it:
            it.service.resources.assets["brand"] = AssetsResource("brand", "brand.set", verifier)  # type: ignore[arg-type]
            for path in ("/v1/asset-picture", "/v1/assets/brand/asset-picture"):
                response = await it.client.get(path, params={"asset": name})
                assert response.headers["content-type"] == "image/png" and "nosniff" in str(response.headers)
                assert np.array_equal(np.array(Image.open(io.BytesIO(response.content))), layer_HW4)
                for params in ({"asset": "blue"}, {}):
                    assert (await it.client.get(path, params=params)).status_code == 404
                assert (await it.client.get(path, params={"asset": name, "x": "1"})).status_code == 422

    run(scenario())
