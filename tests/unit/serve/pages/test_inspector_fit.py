"""The page on which an inspector is fitted, as the server renders it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.inspection_service import inspecting
from tests.support.serving import run
from unalike.serve.inspector_fits import KIND
from unalike.serve.store import records
from unalike.serve.store.records import DONE, FAILED


def test_fits_are_shown_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            tasks = it.service.store.tasks
            first = tasks.add(KIND, "one", {"images": [{}] * 7}, actor="<b>ann</b>")
            record = tasks.claim((KIND,))
            assert record is not None
            tasks.report(record, "sampling patches", 3, 7)
            text = (await it.client.get("/inspect/fits")).text
            assert 'data-busy="yes"' in text and "sampling patches" in text and 'max="7" value="3"' in text
            assert "7 pictures, asked by &lt;b&gt;ann" in text and f'data-id="{first.id}"' in text
            tasks.finish(record, FAILED, error="<i>no</i>")
            text = (await it.client.get("/inspect/fits")).text
            assert 'data-busy="no"' in text and "&lt;i&gt;no" in text and "data-id" not in text
            tasks.add(KIND, "two", {"images": []})
            record = tasks.claim((KIND,))
            assert record is not None and tasks.finish(record, DONE)
            # Its inspector may not be loaded yet, so that the page looks again for a while.
            assert 'data-busy="yes"' in (await it.client.get("/inspect/fits")).text
            monkeypatch.setattr(records, "SETTLE_TIME", timedelta(0))
            assert 'data-busy="no"' in (await it.client.get("/inspect/fits")).text

    run(scenario())


def test_the_form_offers_the_networks_that_there_are(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with inspecting(tmp_path) as it:
            text = (await it.client.get("/inspect/fit")).text
            assert '<option value="part">' in text and '<option value="pretrained">' in text and "Fits" not in text
            assert "those of the inspector part" in text and "keeps no pictures" not in text
            secret = it.service.store.keys.add("eye", "view")[1]
            it.service.access.refresh()
            text = (await it.client.get("/inspect/fit", headers={"Authorization": f"Bearer {secret}"})).text
            assert "<form id" not in text and "role operate" in text and "inspector_fit.js" not in text

    run(scenario())
