"""The threshold of "unknown": set, kept and taken back over HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.serving import files, picture, run, running
from unalike.recognition.backends.address import edit_gallery
from unalike.recognition.gallery import Gallery


def test_a_calibration_is_set_kept_and_used(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            assert (await it.client.get("/v1/calibration")).json()["calibration"] is None
            images = [picture(color, shift=shift) for color in ("red", "green", "blue") for shift in (5, 10, 15)]
            for number, label in enumerate(("red", "green", "blue")):
                await it.client.post(
                    "/v1/references", files=files(*images[3 * number : 3 * number + 3]), data={"label": label}
                )
            response = await it.client.post("/v1/calibration", json={"rule": "nearest"})
            assert response.status_code == 200, response.text
            calibration = response.json()["calibration"]
            assert calibration["rule"] == "nearest" and response.json()["stale"] == ""
            stored = Gallery.load(it.service.resources.gallery().address).calibration
            assert stored is not None and stored.threshold == calibration["threshold"]
            answer = (await it.client.post("/v1/identify", files=files(picture("red", shift=7)))).json()["answers"][0]
            second = answer["score"] - answer["margin"]
            assert answer["second_weight"] == calibration["second_weight"] == 0.25
            assert answer["threshold"] == pytest.approx(calibration["threshold"] + 0.25 * second)

    run(scenario())


def test_a_calibration_is_taken_back_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            assert (await it.client.post("/v1/calibration/undo")).status_code == 409
            for color in ("red", "green", "blue"):
                images = [picture(color, shift=shift) for shift in (5, 10, 15)]
                await it.client.post("/v1/references", files=files(*images), data={"label": color})
            first = (await it.client.post("/v1/calibration", json={})).json()
            second = (await it.client.post("/v1/calibration", json={"rule": "prototype"})).json()
            assert first["calibration"] != second["calibration"]
            back = await it.client.post("/v1/calibration/undo")
            assert back.status_code == 200 and back.json()["calibration"] == first["calibration"]
            stored = Gallery.load(it.service.resources.gallery().address).calibration
            assert stored is not None and stored.rule == "nearest" and back.json()["stale"] == ""
            again = await it.client.post("/v1/calibration/undo")
            assert again.status_code == 409 and again.json()["type"].endswith("nothing-to-undo")
            entries = (await it.client.get("/v1/audit", params={"action": "calibration.undo"})).json()["entries"]
            assert [entry["outcome"] for entry in entries] == ["done"]

    run(scenario())


def test_the_first_calibration_is_taken_back_to_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            for color in ("red", "green", "blue"):
                await it.client.post("/v1/references", files=files(picture(color, shift=5)), data={"label": color})
            assert (await it.client.post("/v1/calibration", json={})).status_code == 200
            back = await it.client.post("/v1/calibration/undo")
            assert back.status_code == 200 and back.json()["calibration"] is None

    run(scenario())


def test_values_that_no_calibration_takes_are_problems(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            for body in ({"rate": 2}, {"rule": "x"}, {"rates": 0.1}):
                assert (await it.client.post("/v1/calibration", json=body)).status_code == 422
            assert (await it.client.get("/v1/calibration")).json()["calibration"] is None

    run(scenario())


async def enroll_colors(it: SimpleNamespace) -> None:
    for color in ("red", "green", "blue"):
        images = [picture(color, shift=shift) for shift in (5, 10, 15)]
        await it.client.post("/v1/references", files=files(*images), data={"label": color})


def test_a_threshold_that_others_set_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            await enroll_colors(it)
            await it.client.post("/v1/calibration", json={})
            with edit_gallery(it.service.resources.gallery().address) as gallery:
                assert gallery.calibration is not None
                gallery.calibration = replace(gallery.calibration, threshold=0.123)
            answer = await it.client.post("/v1/calibration/undo")
            assert answer.status_code == 409 and answer.json()["type"].endswith("nothing-to-undo")
            stored = Gallery.load(it.service.resources.gallery().address).calibration
            assert stored is not None and stored.threshold == 0.123

    run(scenario())


def test_of_several_undos_at_once_one_is_done(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            await enroll_colors(it)
            first = (await it.client.post("/v1/calibration", json={})).json()
            await it.client.post("/v1/calibration", json={"rule": "prototype"})
            answers = await asyncio.gather(*(it.client.post("/v1/calibration/undo") for _ in range(5)))
            assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
            assert (await it.client.get("/v1/calibration")).json()["calibration"] == first["calibration"]

    run(scenario())
