"""What is served, and calibration."""

from __future__ import annotations

from pathlib import Path

from tests.support.serving import run, running


def test_models_and_galleries_are_listed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, names=("colors", "others")) as it:
            models = (await it.client.get("/v1/models")).json()
            assert [model["galleries"] for model in models["models"]] == [["colors", "others"]]
            assert models["models"][0]["input_size"] == [8, 8] and models["models"][0]["engine"]["runtime"] == "standin"
            galleries = (await it.client.get("/v1/galleries")).json()["galleries"]
            assert [(entry["gallery"], entry["images"], entry["classes"]) for entry in galleries] == [
                ("colors", 3, 3),
                ("others", 3, 3),
            ]

    run(scenario())
