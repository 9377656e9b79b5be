"""What a service offers of learning: folders by name, uploads by id, never a path of a client; curves and logs of its tasks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.learning import NAME, make_scene
from tests.support.serving import settings_for, store_in
from unalike.errors import DataError
from unalike.serve.learning.candidate import IMAGES_FOLDER, RUN_FOLDER
from unalike.serve.learning.desk import MAX_POINTS, LearningDesk, plots_of
from unalike.serve.model_files import LOG_FILE
from unalike.serve.sources import Sources
from unalike.serve.store import TaskRecord
from unalike.serve.store.learning import PROMOTE, TRAIN
from unalike.serve.store.tasks import MAX_ATTEMPTS


def make_desk(folder: Path, **values: object) -> LearningDesk:
    settings = settings_for(folder, **values)
    return LearningDesk(settings, Sources(folder=folder / "serve"), store_in(folder))


def test_folders_are_chosen_by_the_names_that_the_operator_gave(tmp_path: Path) -> None:
    desk = make_desk(tmp_path, train_folders=[f"old={tmp_path}", "more.csv"])
    assert desk.folder("old") == str(tmp_path) and desk.folder("more") == "more.csv" and desk.folder(None) is None
    for name in (str(tmp_path), "../old", "olt"):
        with pytest.raises(DataError, match="no training folder"):
            desk.folder(name)
    with pytest.raises(DataError, match="--train-folder"):
        make_desk(tmp_path).folder("old")


def test_uploads_are_archives_that_are_named_by_an_id(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    upload = desk.keep_upload(b"PK\x03\x04 archive")
    path = desk.upload(upload)
    assert path is not None and Path(path).read_bytes() == b"PK\x03\x04 archive" and desk.upload(None) is None
    for name in ("none", "../uploads/" + upload, "/etc/passwd"):
        with pytest.raises(DataError, match="no upload"):
            desk.upload(name)
    with pytest.raises(DataError, match="no ZIP archive"):
        desk.keep_upload(b"GIF89a")
    with pytest.raises(DataError, match="a folder and an upload"):
        desk.training_options({"folder": "a", "upload": upload})
    with pytest.raises(DataError, match="no images to train on"):
        desk.training_options({"with_service": False})
    options = desk.training_options({"upload": upload, "minutes": 2.0, "goal": "both", "name": None})
    assert (options.data, options.minutes, options.name) == (path, 2.0, "")
    task = TaskRecord(TRAIN, "shop", {"upload": upload}, state="failed")
    copies = desk.folder_of(task.id) / IMAGES_FOLDER
    copies.mkdir(parents=True)
    desk._clean_up(task)
    assert Path(path).exists() and not copies.exists()
    desk._clean_up(replace(task, state="done"))
    assert not Path(path).exists()


def test_a_change_of_the_model_is_begun_once_alone(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    desk = LearningDesk(
        settings_for(tmp_path), Sources(folder=scene.store.folder), scene.store, {NAME: scene.place.address}
    )
    resource: Any = SimpleNamespace(name=NAME, address=scene.place.address)
    attempts = [desk.begin(kind, resource, {}, "chief", "r").max_attempts for kind in (TRAIN, PROMOTE)]
    assert attempts == [MAX_ATTEMPTS, 1]


def test_curves_are_loss_and_recall_as_far_as_they_are_written(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    assert desk.curves("none") == {} and desk.log("none") == "" and desk.report("none") is None
    run = desk.folder_of("t1") / RUN_FOLDER
    run.mkdir(parents=True)
    lines = [
        {"step": step, "kpi": {"train_loss": 1 / step, "lr": 0.1, "val Precision at Rank 1": 0.5}}
        for step in range(1, 2001)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "status.json").write_text(text + '{"step": 9, "kpi": {"tr')
    curves = desk.curves("t1")
    assert len(curves) == 2 and all(0 < len(points) <= MAX_POINTS for points in curves.values())
    assert all(points[0][0] == 1.0 for points in curves.values())
    plots = plots_of(curves)
    assert [plot.title for plot in plots] == list(curves) and all(plot.lines[0].path for plot in plots)
    assert plots_of({"empty": []}) == []


def test_of_a_long_log_the_end_is_shown(tmp_path: Path) -> None:
    desk = make_desk(tmp_path)
    folder = desk.folder_of("t1")
    folder.mkdir(parents=True)
    (folder / LOG_FILE).write_bytes(b"first line\n" + b"x" * 100_000 + b"\nlast \xff line\n")
    text = desk.log("t1")
    assert text.endswith("last \ufffd line\n") and "first line" not in text
