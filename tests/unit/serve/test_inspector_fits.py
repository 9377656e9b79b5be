"""Fits of inspectors in a child process: progress is written down, a stop of the service gives the work back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.inspected_parts import fitted_inspector
from tests.support.inspection_service import part_picture
from tests.support.serving import run, store_in, until
from unalike.errors import DataError
from unalike.inspection.inspector import Inspector
from unalike.serve import inspector_fits
from unalike.serve.inspector_fits import KIND, InspectorFits, fit
from unalike.serve.store import Store, WorkRecord
from unalike.serve.store.store import IMAGES_FOLDER


def options(store: Store, folder: Path, count: int = 20, **values: Any) -> dict[str, Any]:
    fitted_inspector().save(folder / "part.inspector")
    images = [{"sha256": store.images.put(part_picture(seed)), "name": f"{seed}.png"} for seed in range(count)]
    return {"images": images, "defects": [], "rate": 0.05, "light": "as-is", "fit": "auto", "ignore_boxes": [],
            "network": str(folder / "part.inspector"), "target": str(folder / "inspectors" / "new.inspector"), **values}  # fmt: skip


def test_it_writes_an_inspector_with_the_names_of_its_images(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        values = options(store, tmp_path, ignore_boxes=[[0, 0, 20, 20]], defects=[
            {"sha256": store.images.put(part_picture(100, is_scratched=True)), "name": "scratch.png"}
        ])  # fmt: skip
        place = str(store.folder / IMAGES_FOLDER)
        path = fit({**values, "images_at": place, "max_pixels": 10_000, "threads": 1})
        inspector = Inspector.load(path)
        assert inspector.threshold is not None and inspector.threshold.set_by.endswith(".png")
        assert "/" not in inspector.threshold.set_by and inspector.threshold.defects == 1
        assert inspector.extractor.ignored_HW is not None and inspector.extractor.ignored_HW.sum() == 400
        assert inspector.network.trunk == "edges"
        with pytest.raises(DataError, match="sides"):
            fit({**values, "ignore_boxes": [[0, 0, 90, 90]], "images_at": place, "max_pixels": 10_000})


class Scripted:
    """In place of the child process: what ``script`` does with the function that takes its lines."""

    def __init__(self, script: Any) -> None:
        self.script, self.options = script, {}

    async def __call__(self, module: str, arguments: list[str], on_line: Any) -> None:
        self.options = json.loads(Path(arguments[0]).read_text())
        await self.script(on_line)


def start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, script: Any
) -> tuple[Store, InspectorFits, WorkRecord, Scripted]:
    child = Scripted(script)
    monkeypatch.setattr(inspector_fits, "run_child", child)
    store = store_in(folder)
    return store, InspectorFits(store, "images", 99, 2), store.work.add(KIND, "new", {"images": [], "rate": 0.5}), child


def test_progress_is_written_down_and_the_end_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = asyncio.Event()

    async def script(on_line: Any) -> None:
        await on_line('["sampling", 3, 20]')
        await on_line("no progress")
        await step.wait()

    async def scenario() -> None:
        store, fits, record, child = start(tmp_path, monkeypatch, script)
        await asyncio.to_thread(store.keys.list)
        task = asyncio.create_task(fits.look())
        await until(lambda: (store.work.get(record.id) or record).step == "sampling")
        now = store.work.get(record.id)
        assert now is not None and (now.state, now.count, now.total) == ("running", 3, 20)
        assert child.options == {"images": [], "rate": 0.5, "images_at": "images", "max_pixels": 99, "threads": 2}
        step.set()
        await task
        assert store.work.get(record.id).state == "done"  # type: ignore[union-attr]
        await fits.look()  # there is no more

    run(scenario())


def test_an_error_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(on_line: Any) -> None:
        raise DataError("no good images", expected="some")

    async def scenario() -> None:
        store, fits, record, _ = start(tmp_path, monkeypatch, script)
        await fits.look()
        now = store.work.get(record.id)
        assert now is not None and (now.state, now.error) == ("failed", "no good images; expected some")

    run(scenario())


def test_a_stop_of_the_service_gives_the_work_back_and_a_cancel_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[str] = []

    async def script(on_line: Any) -> None:
        try:
            await asyncio.sleep(600)
        finally:
            ends.append("killed")

    async def scenario() -> None:
        store, fits, record, _ = start(tmp_path, monkeypatch, script)

        def state() -> str:
            return (store.work.get(record.id) or record).state

        task = asyncio.create_task(fits.look())
        await until(lambda: state() == "running")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert state() == "waiting" and ends == ["killed"]
        task = asyncio.create_task(fits.look())
        await until(lambda: state() == "running")
        monkeypatch.setattr(inspector_fits, "RENEW_S", 0.0)
        store.work.cancel(record.id)
        await task
        assert state() == "canceled" and ends == ["killed", "killed"]

    run(scenario())
