"""Probes and metrics."""

from __future__ import annotations

from pathlib import Path

from tests.support.serving import files, picture, run, running


def test_the_service_is_ready_until_it_stops(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            assert (await it.client.get("/readyz")).json() == {"status": "ready"}
            it.service.is_ready = False
            assert (await it.client.get("/readyz")).status_code == 503
            assert (await it.client.head("/readyz")).status_code == 503
            assert (await it.client.get("/healthz")).status_code == 200
            response = await it.client.head("/healthz")
            assert response.status_code == 200 and (await it.client.get("/openapi.json")).status_code == 200

    run(scenario())


def test_metrics_count_what_was_done(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            await it.client.post("/v1/identify", files=files(picture("red")))
            await it.client.post("/v1/identify", files=files(b"x"))
            text = (await it.client.get("/metrics")).text
            assert 'unalike_decisions_total{decision="label",resource="colors"} 1.0' in text
            assert 'unalike_requests_total{method="POST",route="/v1/identify",status="422"} 1.0' in text
            assert 'unalike_gallery_images{gallery="colors"} 3.0' in text

    run(scenario())
