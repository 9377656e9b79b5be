"""Fits of inspectors in a child process: what it writes, what it says of its progress, and why it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.inspected_parts import fitted_inspector
from tests.support.inspection_service import part_picture
from tests.support.serving import run, store_in
from unalike.errors import DataError, RunError
from unalike.inspection.inspector import Inspector
from unalike.serve import inspector_fits
from unalike.serve.inspector_fits import KIND, InspectorFits, fit
from unalike.serve.model_files import LOG_FILE
from unalike.serve.store import Store, TaskRecord
from unalike.serve.store.store import IMAGES_FOLDER
from unalike.serve.task_runner import Progress


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


def test_a_task_is_done_in_a_child_process_whose_lines_are_its_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    progress = Progress()

    async def child(module: str, arguments: list[str], on_line: Any, *, log: Path) -> None:
        seen.append(json.loads(Path(arguments[0]).read_text()))
        assert module == inspector_fits.__name__ and log == tmp_path / "t1" / LOG_FILE and log.parent.is_dir()
        assert progress.values == ("the network is prepared", 0, 0)
        for line in ('["sampling", 3, 20]', "no progress", "7", "[1]"):
            await on_line(line)

    monkeypatch.setattr(inspector_fits, "run_child", child)
    task = TaskRecord(KIND, "new", {"images": [], "rate": 0.5}, id="t1")
    run(InspectorFits(lambda task_id: tmp_path / task_id, "images", 99, 2).fit(task, progress))
    assert seen == [{"images": [], "rate": 0.5, "images_at": "images", "max_pixels": 99, "threads": 2}]
    assert progress.values == ("sampling", 3, 20)


def test_the_error_of_a_fit_is_in_its_log(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        values = options(store, tmp_path, ignore_boxes=[[0, 0, 90, 90]])
        place = str(store.folder / IMAGES_FOLDER)
    task, progress = TaskRecord(KIND, "new", values, id="t1"), Progress()
    with pytest.raises(RunError, match="sides"):
        run(InspectorFits(lambda task_id: tmp_path / task_id, place, 10_000, 1).fit(task, progress))
    assert "sides" in (tmp_path / "t1" / LOG_FILE).read_text()
