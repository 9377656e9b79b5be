"""The page Monitor as the server renders it: charts with text alternatives, tables, names as text."""

from __future__ import annotations

from pathlib import Path

from tests.support.reviewing import YELLOW, identify, set_threshold
from tests.support.serving import run, running
from unalike.serve.store import DecisionRecord

MARKUP = "<img src=x onerror=alert(1)>\"'&"


def test_charts_have_text_and_tables(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            set_threshold(it)
            await identify(it, *YELLOW, (220, 30, 30))
            it.service.store.decisions.add([DecisionRecord("inspect", MARKUP, "photo\u202egnp.exe")])
            text = (await it.client.get("/monitor?range=hour")).text
            assert 'role="img" aria-label="Decisions an hour: 1 labels, 0 ambiguous, 3 unknown in the range' in text
            assert (
                text.count("<table>") >= 4
                and "<polyline" in text
                and text.count("Not measured: ") == 3
                and text.count("No alarm: ") == 0
            )
            assert "75.0 %" in text and "n = 4" in text and "Since the start of the service;" in text
            assert "<img src=x" not in text and "\u202e" not in text and "&lt;img src=x" in text
            assert "aria-current=true>Last hour" in text
            assert (await it.client.get("/monitor?range=year")).status_code == 422
            assert (await it.client.get("/monitor?gallery=none")).status_code == 404

    run(scenario())


def test_without_decisions_there_is_nothing_to_draw_but_zeros(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, workers=3) as it:
            text = (await it.client.get("/monitor")).text
            assert "Nothing to draw yet." in text and "none yet" in text
            assert "Since the start of the one process of 3 that answered this page" in text

    run(scenario())
