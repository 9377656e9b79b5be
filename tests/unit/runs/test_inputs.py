"""Outputs that are inputs are refused, also with --overwrite."""

from __future__ import annotations

import json
import os
import re

import pytest

from unalike.errors import RunError
from unalike.runs.folder import open_run
from unalike.runs.inputs import input_paths, refuse_written_inputs
from unalike.spec import load_spec


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "1.png").write_bytes(b"x")
    return tmp_path / "images"


def test_inputs_are_those_that_exist_and_no_outputs(images, tmp_path):
    checkpoint = tmp_path / "m.pth"
    checkpoint.touch()
    (tmp_path / "m.onnx").touch()
    spec = load_spec("export", {"export": {"checkpoint": str(checkpoint), "onnx_file": str(tmp_path / "m.onnx")},
                                "dataset": {"train_dataset": str(tmp_path / "none")}})  # fmt: skip
    assert list(input_paths("export", spec)) == [("export.checkpoint", checkpoint)]
    spec = load_spec(
        "inspect_run", {"inspect_run": {"inspector": str(checkpoint), "images": [str(images), "s3://b/x"]}}
    )
    assert dict(input_paths("inspect_run", spec)) == {"inspect_run.inspector": checkpoint, "inspect_run.images": images}


def test_an_output_that_is_an_input_or_a_file_in_one_is_refused(images, tmp_path):
    table = tmp_path / "table.csv"
    table.touch()
    os.link(table, tmp_path / "same.npz")
    (tmp_path / "link.npz").symlink_to(table)
    spec = load_spec("embed", {"embed": {"source": str(table)}})
    for name in ("table.csv", "same.npz", "link.npz"):
        with pytest.raises(RunError, match=re.escape(f"{tmp_path / name} would be written, and is embed.source too")):
            refuse_written_inputs("embed", spec, [tmp_path / name])
    spec = load_spec("embed", {"embed": {"source": str(images)}})
    refuse_written_inputs("embed", spec, [images / "new.npz", tmp_path / "other.npz"])
    for path in (images, images / "a" / "1.png"):
        with pytest.raises(RunError, match="choose another name"):
            refuse_written_inputs("embed", spec, [path])


def test_overwrite_does_not_delete_the_model_that_the_call_reads(tmp_path):
    """``unalike export out/train/best.pth export.results_dir=out/train --overwrite`` deleted the model, then missed it."""
    folder = tmp_path / "train"
    with open_run("train", load_spec("train", {"train": {"results_dir": str(folder)}})) as run:
        (run.dir / "ml_model_best.pth").write_bytes(b"weights")
    section = {"checkpoint": str(folder / "ml_model_best.pth"), "results_dir": str(folder)}
    with pytest.raises(RunError, match="ml_model_best.pth would be written, and is export.checkpoint too"):
        open_run("export", load_spec("export", {"export": section}), overwrite=True)
    assert (folder / "ml_model_best.pth").read_bytes() == b"weights"
    assert json.loads((folder / "run.json").read_text())["action"] == "train"


def test_results_do_not_go_among_the_images(images):
    spec = load_spec(
        "compare", {"compare": {"reference": str(images), "image": str(images), "results_dir": str(images)}}
    )
    for overwrite in (False, True):
        with pytest.raises(RunError, match="is compare.reference too"):
            open_run("compare", spec, overwrite=overwrite)
    assert sorted(os.listdir(images)) == ["a"]


def test_a_run_in_a_folder_of_images_can_be_replaced(images):
    """``cd images; unalike train . -r out --overwrite``: what the former run wrote there is no image."""
    spec = load_spec("train", {"results_dir": str(images / "out"), "dataset": {"train_dataset": str(images)}})
    for overwrite in (False, True):
        with open_run("train", spec, overwrite=overwrite) as run:
            (run.dir / "ml_model_best.pth").write_bytes(b"weights")
