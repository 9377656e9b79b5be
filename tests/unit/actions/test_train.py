"""What training within a time budget evaluates at its end, and which settings it says that it does not use."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from unalike.actions import train
from unalike.spec import load_spec


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = []
    for label in "ab":
        for i, part in enumerate(("train", "train", "val")):
            file = tmp_path / f"{label}{i}.png"
            Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(file)
            rows.append([file, label, part])
    with (tmp_path / "table.csv").open("w", newline="", encoding="utf-8") as table:
        csv.writer(table).writerows([["file", "cls", "part"], *rows])
    return tmp_path / "table.csv"


COLUMNS = {"path": "file", "label": "cls", "split": "part"}


def test_the_query_rows_of_a_manifest_are_evaluated_with_the_spec_s_columns(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees: list[dict] = []
    monkeypatch.setattr(
        train, "evaluate", lambda tree, overwrite: trees.append(tree) or SimpleNamespace(figures={"x": 1})
    )
    spec = load_spec(
        "train", {"dataset": {"train_dataset": str(manifest), "manifest_columns": COLUMNS}, "evaluate": {"ks": [1, 2]}}
    )
    assert train._query_evaluation(spec, tmp_path) is None
    evaluate = train._split_column_evaluation(spec, tmp_path)
    assert evaluate is not None and evaluate(tmp_path / "a.pth") == {"x": 1}
    loaded = load_spec("evaluate", trees[0])
    assert loaded.dataset.val_dataset.reference == loaded.dataset.val_dataset.query == str(manifest)
    assert loaded.dataset.manifest_columns.label == "cls" and loaded.evaluate.ks == [1, 2]
    assert loaded.evaluate.checkpoint == str(tmp_path / "a.pth")


def test_a_query_of_the_user_is_read_with_the_spec_s_columns(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees: list[dict] = []
    monkeypatch.setattr(train, "evaluate", lambda tree, overwrite: trees.append(tree) or SimpleNamespace(figures={}))
    dataset = {"train_dataset": "photos", "val_dataset": {"query": str(manifest)}, "manifest_columns": COLUMNS}
    evaluate = train._query_evaluation(load_spec("train", {"dataset": dataset}), tmp_path)
    assert evaluate is not None
    evaluate(tmp_path / "a.pth")
    loaded = load_spec("evaluate", trees[0])
    assert loaded.dataset.manifest_columns.label == "cls" and loaded.dataset.train_dataset == "photos"


def test_a_folder_has_no_query_rows(manifest: Path, tmp_path: Path) -> None:
    folder = manifest.parent / "photos" / "a"
    folder.mkdir(parents=True)
    (manifest.parent / "a0.png").rename(folder / "0.png")
    assert (
        train._split_column_evaluation(load_spec("train", {"dataset": {"train_dataset": str(folder.parent)}}), tmp_path)
        is None
    )
