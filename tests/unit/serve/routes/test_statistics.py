"""Statistics over HTTP: of the gallery that is asked about, and nothing of others for a key that may not see them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.reviewing import YELLOW, identify, set_threshold
from tests.support.serving import run, running


def test_statistics_are_those_of_the_gallery(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, names=("colors", "others")) as it:
            set_threshold(it)
            await identify(it, *YELLOW, (220, 30, 30))
            document = (await it.client.get("/v1/statistics?range=hour")).json()
            assert (
                document["totals"] == {"label": 1, "ambiguous": 0, "unknown": 3} and document["unknown"]["total"] == 4
            )
            assert document["latency"]["stages"]["decode"]["count"] == 4 and document["requests"] == {"200": 1}
            other = (await it.client.get("/v1/galleries/others/statistics")).json()
            assert other["range"] == "day" and sum(other["totals"].values()) == 0
            assert {entry["resource"] for entry in other["others"]} == {"colors"}
            key = {"x-api-key": it.service.store.keys.add("till", "view", "others")[1]}
            it.service.access.refresh()
            own = (await it.client.get("/v1/statistics", headers=key)).json()
            assert own["gallery"] == "others" and own["others"] == []
            assert (await it.client.get("/v1/galleries/colors/statistics", headers=key)).status_code == 403
            for query in ("?range=year", "?other=1"):
                assert (await it.client.get(f"/v1/statistics{query}", headers=key)).status_code == 422

    run(scenario())


def test_scores_of_references_are_measured_in_the_background(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            assert (await it.client.get("/v1/statistics")).json()["scores"]["is_measured"] is False
            while not (await it.client.get("/v1/statistics")).json()["scores"]["is_measured"]:
                await asyncio.sleep(0.01)

    run(scenario())
