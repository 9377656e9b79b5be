"""Separation of a class over HTTP: figures, limits, time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.serving import files, picture, run, running
from unalike.recognition.separation import MOST_MEASURED, measure_separation
from unalike.serve.routes import separation


def test_a_class_is_measured(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            await it.client.post(
                "/v1/references", files=files(picture("red", shift=9), picture("red", shift=-9)), data={"label": "red"}
            )
            answer = (await it.client.get("/v1/classes/separation", params={"label": "red"})).json()
            with it.service.resources.gallery().gallery.view() as view:
                result = measure_separation(view, "red")
            assert (answer["gallery"], answer["label"], answer["references"], answer["measured"]) == (
                "colors",
                "red",
                3,
                3,
            )
            assert answer["margin"] == pytest.approx(result.margin) and answer["own"] > 0.9 > answer["other"]
            assert answer["closer_to_others"] == 0 and {one["label"] for one in answer["look_alikes"]} <= {
                "green",
                "blue",
            }
            few = (await it.client.get("/v1/galleries/colors/classes/separation?label=red&sample=2")).json()
            assert few["measured"] == 2 and few["references"] == 3
            text = (await it.client.get("/classes/separation?label=red")).text
            assert "0 of 3 references are at least as near" in text and "Look-alikes" in text
            assert "one reference alone" in (await it.client.get("/classes/separation?label=blue")).text

    run(scenario())


def test_what_cannot_be_measured_is_a_problem(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            response = await it.client.get("/v1/classes/separation?label=rede")
            assert response.status_code == 404 and "red" in response.json()["remedy"]
            for query in (
                "",
                "label=",
                "label=red&sample=0",
                f"label=red&sample={MOST_MEASURED + 1}",
                "label=red&k=1",
            ):
                assert (await it.client.get(f"/v1/classes/separation?{query}")).status_code == 422, query

    run(scenario())


def test_a_measurement_ends_with_its_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its thread too, which others wait for."""
    stopped: list[bool] = []

    def endless(view: Any, label: str, measured: int, check: Any) -> Any:
        try:
            while True:
                check()
        except TimeoutError:
            stopped.append(True)
            raise

    monkeypatch.setattr(separation, "measure_separation", endless)

    async def scenario() -> None:
        async with running(tmp_path, deadline=0.3) as it:
            assert (await it.client.get("/v1/classes/separation?label=red")).status_code in (503, 504)
        assert stopped == [True]

    run(scenario())
