"""``compare`` over HTTP: the answers of the comparer for each pair, its options, ignored regions and pictures."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from tests.support.inspection_service import inspecting, png
from tests.support.serving import run, running


def drawing(*, altered: bool = False) -> bytes:
    image = Image.new("RGB", (160, 120), "white")
    pen = ImageDraw.Draw(image)
    for x in range(10, 150, 20):
        pen.rectangle((x, 20 + x // 4, x + 8, 30 + x // 4), fill="black")
    pen.ellipse((60, 70, 100, 110), outline="black", width=4)
    if altered:
        pen.rectangle((110, 90, 135, 112), fill="black")
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_pairs_are_compared_and_recorded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            parts = [("reference", ("golden.png", drawing(), "image/png")), ("image", ("a.png", drawing(), "image/png")),
                     ("image", ("b.png", drawing(altered=True), "image/png")), ("image", ("c.png", b"x", "image/png"))]  # fmt: skip
            answer = (await it.client.post("/v1/compare", files=parts, data={"align": "none"})).json()
            assert (answer["same"], answer["different"], answer["refused"]) == (1, 1, 1)
            same, different, refused = answer["pairs"]
            assert same["same"] and (same["reference"], same["image"]) == ("golden.png", "a.png")
            left, top, right, bottom = different["regions"][0]["box"]
            assert left <= 115 and right >= 130 and top <= 95 and bottom >= 108
            assert "error" in refused and "id" not in refused
            record = (await it.client.get(f"/v1/decisions/{different['id']}")).json()
            assert (record["kind"], record["decision"]) == ("compare", "different")

    run(scenario())


def test_a_request_without_both_images_or_with_one_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            image = ("image", ("a.png", drawing(), "image/png"))
            reference = ("reference", ("a.png", drawing(), "image/png"))
            for parts in ([image], [reference], [reference, reference, image]):
                assert (await it.client.post("/v1/compare", files=parts)).status_code == 422
            response = await it.client.post("/v1/compare", files=[reference, ("image", ("a.png", b"x", "image/png"))])
            assert response.status_code == 422 and response.json()["type"].endswith("unreadable-image")
            assert response.json()["found"].startswith("a.png")
            assert (
                await it.client.post("/v1/compare", files=[reference, image], data={"tolerance": "99"})
            ).status_code == 422

    run(scenario())


PAIR = [("reference", ("golden.png", drawing(), "image/png")), ("image", ("b.png", drawing(altered=True), "image/png"))]


def test_all_options_of_the_command_count_and_are_recorded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            data = {"align": "none", "min_area": "2000", "margin": "0", "min_compared": "0.5", "max_rotation": "1", "max_scale": "1.1",
                    "max_shift": "0.01", "flexible": "false", "ground": "black", "range": "0,4095"}  # fmt: skip
            (pair,) = (await it.client.post("/v1/compare", files=PAIR, data=data)).json()["pairs"]
            assert pair["answer"] == "same" and pair["reference_size"] == [120, 160]
            options = (await it.client.get(f"/v1/decisions/{pair['id']}")).json()["result"]["options"]
            assert options == {"level": "pixels", "network": None, "align": "none", "lighting": "local", "preset": "auto", "tolerance": None, "contrast": None, "min_area": 2000, "margin": 0,
                               "min_compared": 0.5, "max_rotation": 1.0, "max_scale": 1.1, "max_shift": 0.01, "flexible": False,
                               "mirror": False, "any_pose": False, "ground": "black", "range": "0,4095", "ignore_boxes": None}  # fmt: skip
            for name, value in (
                ("ground", "blue-ish"),
                ("range", "x"),
                ("max_scale", "0.5"),
                ("margin", "-2"),
                ("level", "features"),
            ):
                response = await it.client.post("/v1/compare", files=PAIR, data={name: value})
                assert response.status_code == 422, (name, response.text)

    run(scenario())


def test_regions_are_ignored_by_boxes_and_by_a_kept_set_of_another_size(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:

            async def answer(**data: str) -> str:
                response = await it.client.post("/v1/compare", files=PAIR, data={"align": "none", **data})
                assert response.status_code == 200, response.text
                return str(response.json()["pairs"][0]["answer"])

            assert await answer() == "different"
            assert await answer(ignore_boxes="[[105, 85, 140, 116]]") == "same"
            body = {"name": "clock", "frame": [240, 320], "boxes": [[210, 170, 280, 232]]}
            assert (await it.client.post("/v1/region-sets", json=body)).status_code == 200
            assert await answer(regions="clock") == "same"
            for data, status in (
                ({"regions": "clocks"}, 404),
                ({"ignore_boxes": "[[0, 0, 1000, 9]]"}, 422),
                ({"ignore_boxes": "x"}, 422),
            ):
                response = await it.client.post("/v1/compare", files=PAIR, data=data)
                assert response.status_code == status, response.text

    run(scenario())


def test_pictures_are_drawn_and_those_of_a_decision_again_without_a_record(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            data = {"align": "none", "pictures": "true", "ignore_boxes": "[[0, 0, 9, 9]]"}
            (pair,) = (await it.client.post("/v1/compare", files=PAIR, data=data)).json()["pairs"]
            pictures = {
                name: Image.open(io.BytesIO(base64.b64decode(content))) for name, content in pair["pictures"].items()
            }
            assert set(pictures) == {"image", "reference", "frame", "heat"}
            assert all(picture.size == (160, 120) for picture in pictures.values())
            assert (
                pictures["image"].getpixel((120, 100)) < (90,) * 3
                and pictures["reference"].getpixel((120, 100)) > (200,) * 3
            )
            count = len((await it.client.get("/v1/decisions")).json()["decisions"])
            again = await it.client.post("/v1/compare", json={"decision": pair["id"], "pictures": True})
            (entry,) = again.json()["pairs"]
            assert (
                entry["pictures"] == pair["pictures"]
                and entry["id"] == pair["id"]
                and entry["regions"] == pair["regions"]
            )
            assert entry["options"]["ignore_boxes"] == [[0, 0, 9, 9]]
            assert len((await it.client.get("/v1/decisions")).json()["decisions"]) == count
            assert (await it.client.post("/v1/compare", json={"decision": "none"})).status_code == 404
            assert (
                await it.client.post("/v1/compare", json={"decision": pair["id"], "align": "none"})
            ).status_code == 422
            other = await it.client.post("/v1/identify", files={"image": ("a.png", drawing(), "image/png")})
            body = {"decision": other.json()["answers"][0]["id"]}
            assert (await it.client.post("/v1/compare", json=body)).status_code == 404

    run(scenario())


def test_pictures_that_were_not_kept_cannot_be_drawn_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, keep_images=False) as it:
            (pair,) = (await it.client.post("/v1/compare", files=PAIR)).json()["pairs"]
            response = await it.client.post("/v1/compare", json={"decision": pair["id"]})
            assert response.status_code == 404 and "not kept" in response.json()["detail"]

    run(scenario())


def test_features_are_compared_by_the_network_of_an_inspector(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            pairs = {}
            for level in ("pixels", "features", "both"):
                data = {"align": "none", "level": level, "pictures": "true"}
                (pairs[level],) = (await it.client.post("/v1/compare", files=PAIR, data=data)).json()["pairs"]
                assert pairs[level]["level"] == level and pairs[level]["answer"] == "different"
            levels = {level: {region["level"] for region in pair["regions"]} for level, pair in pairs.items()}
            assert levels == {"pixels": {"pixels"}, "features": {"features"}, "both": {"pixels", "features"}}
            maps = {level: {"heat", "heat_features"} & set(pair["pictures"]) for level, pair in pairs.items()}
            assert maps == {"pixels": {"heat"}, "features": {"heat_features"}, "both": {"heat", "heat_features"}}
            assert pairs["both"]["options"]["network"] == "part" and pairs["pixels"]["options"]["network"] is None
            left, top, right, bottom = pairs["features"]["regions"][0]["box"]
            assert left < 135 and right > 110 and top < 112 and bottom > 90
            record = (await it.client.get(f"/v1/decisions/{pairs['features']['id']}")).json()
            assert record["model"] == pairs["features"]["features"]["network"] != ""
            body = {"decision": pairs["both"]["id"], "pictures": True}
            (again,) = (await it.client.post("/v1/compare", json=body)).json()["pairs"]
            assert again["pictures"] == pairs["both"]["pictures"] and again["regions"] == pairs["both"]["regions"]
            del it.service.resources.inspectors["part"]
            response = await it.client.post("/v1/compare", json=body)
            assert response.status_code == 422 and "no longer served" in response.json()["found"]

    run(scenario())


def test_features_without_a_network_are_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            response = await it.client.post("/v1/compare", files=PAIR, data={"level": "both"})
            assert response.status_code == 422 and response.json()["type"].endswith("no-network")
            assert "fit an inspector" in response.json()["remedy"]
        async with inspecting(tmp_path) as it:
            for data, found in (
                ({"level": "features", "network": "prt"}, "no inspector 'prt'"),
                ({"network": "part"}, "to compare pixels"),
                ({"level": "feature"}, "level: 'feature'"),
            ):
                response = await it.client.post("/v1/compare", files=PAIR, data=data)
                assert response.status_code == 422 and found in response.json()["found"], data

    run(scenario())


def test_a_pair_that_cannot_be_aligned_is_refused_in_words_of_the_page(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            noise = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
            parts = [PAIR[0], ("image", ("b.png", png(noise), "image/png"))]
            response = await it.client.post("/v1/compare", files=parts)
            assert response.status_code == 422 and "cannot be aligned" in response.json()["found"]
            assert response.json()["remedy"] == 'if they are aligned already, compare with "Alignment: none"'

    run(scenario())
