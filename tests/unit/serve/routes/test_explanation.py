"""``explain`` over HTTP: by occlusion, since the stand-in network cannot be cut."""

from __future__ import annotations

from pathlib import Path

from tests.support.serving import files, picture, run, running


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
