"""What a service offers of learning: folders by name, uploads by id, never a path of a client; curves and logs of its tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.serving import settings_for, store_in
from unalike.errors import DataError
from unalike.serve.learning.candidate import RUN_FOLDER
from unalike.serve.learning.desk import LOG_FILE, MAX_POINTS, LearningDesk, plots_of
from unalike.serve.sources import Sources
from unalike.serve.store.learning import TRAIN, TaskRecord


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
    options = desk.training_options({"upload": upload, "minutes": 2.0, "goal": "both", "name": None})
    assert (options.data, options.minutes, options.name) == (path, 2.0, "")
    desk._forget_upload(TaskRecord(TRAIN, "shop", {"upload": upload}))
    assert not Path(path).exists()


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
