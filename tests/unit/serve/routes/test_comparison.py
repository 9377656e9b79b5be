"""``compare`` over HTTP: the answers of the comparer for each pair."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw

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
            assert (
                await it.client.post("/v1/compare", files=[reference, image], data={"tolerance": "99"})
            ).status_code == 422

    run(scenario())
