"""What a service finds to serve."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from unalike.errors import DataError, RunError, SpecError, StoreError
from unalike.serve.sources import default_name, find_sources
from unalike.serve.store import open_store
from unalike.spec.serve import Serve


def touch(folder: Path, *names: str, action: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    if action is not None:
        (folder / "run.json").write_text(json.dumps({"action": action}))
    return folder


def test_names_are_given_or_made_of_the_file() -> None:
    sources = find_sources(
        Serve(
            galleries=["shop=a/b.gallery", "c/marks of 2026.gallery", "postgresql://h/db?gallery=parts"],
            inspectors=["p.inspector"],
        )
    )
    assert sources.galleries == {
        "shop": "a/b.gallery", "marks-of-2026": "c/marks of 2026.gallery", "parts": "postgresql://h/db?gallery=parts",
    }  # fmt: skip
    assert sources.inspectors == {"p": "p.inspector"} and sources.folder == Path("runs/serve")
    assert default_name("../") == "default"
    with pytest.raises(DataError, match="no address"):
        default_name("postgresql://[::1/x")


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(SpecError, match="named 'a'"):
        find_sources(Serve(galleries=["a.gallery", "b/a.gallery"]))


def test_an_existing_file_with_an_equals_sign_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(touch(tmp_path, "a=b.gallery"))
    assert list(find_sources(Serve(galleries=["a=b.gallery"])).galleries.values()) == ["a=b.gallery"]


def test_without_anything_the_demo_is_served_or_the_error_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match="unalike demo"):
        find_sources(Serve())
    touch(tmp_path / "runs/demo/export", "ml_model_best.onnx", action="export")
    (tmp_path / "runs/demo/images/unseen/reference").mkdir(parents=True)
    sources = find_sources(Serve())
    assert sources.model == "runs/demo/export/ml_model_best.onnx"
    assert sources.references == Path("runs/demo/images/unseen/reference")
    assert sources.new_gallery == Path("runs/demo/serve/images.gallery")


def test_a_folder_of_a_build_a_fit_or_plain_files_gives_its_files(tmp_path: Path) -> None:
    build = touch(tmp_path / "b", "images.gallery", "model.onnx", action="gallery_build")
    assert find_sources(Serve(run=str(build))).galleries == {"images": str(build / "images.gallery")}
    assert find_sources(Serve(run=str(build))).model is None  # the gallery names its own
    fit = touch(tmp_path / "f", "part.inspector", action="inspect_fit")
    assert find_sources(Serve(run=str(fit))).inspectors == {"part": str(fit / "part.inspector")}
    plain = touch(tmp_path / "p", "m.onnx", "m.pth")
    assert find_sources(Serve(run=str(plain))).model == str(plain / "m.onnx")
    assert find_sources(Serve(run=str(plain / "m.onnx"))).model == str(plain / "m.onnx")


def test_the_root_of_several_runs_gives_its_own_files_else_the_trained_model(tmp_path: Path) -> None:
    touch(tmp_path / "train", "m.onnx")
    checkpoint = tmp_path / "train/ml_model_best.pth"
    with zipfile.ZipFile(checkpoint, "w") as archive:
        archive.writestr("data.pkl", "x")
    touch(tmp_path / "train", action="train")
    sources = find_sources(Serve(run=str(tmp_path)))
    assert sources.model == str(checkpoint) and sources.folder == tmp_path / "serve"
    touch(tmp_path, "shop.gallery")
    assert find_sources(Serve(run=str(tmp_path))).galleries == {"shop": str(tmp_path / "shop.gallery")}


def test_a_run_of_training_gives_its_model_and_its_references(tmp_path: Path) -> None:
    run = touch(tmp_path / "e", "m.onnx", action="export")
    references = touch(tmp_path / "refs")
    (run / "experiment.yaml").write_text(f"dataset:\n  train_dataset: {references}\n")
    sources = find_sources(Serve(run=str(run), folder=str(tmp_path / "own")))
    assert (sources.model, sources.references, sources.folder) == (str(run / "m.onnx"), references, tmp_path / "own")


def test_folders_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds nothing"):
        find_sources(Serve(run=str(touch(tmp_path / "empty", "a.txt"))))
    with pytest.raises(RunError, match="there is no folder"):
        find_sources(Serve(run=str(tmp_path / "none")))
    with pytest.raises(RunError, match="2 models"):
        find_sources(Serve(run=str(touch(tmp_path / "two", "a.onnx", "b.onnx"))))


def test_the_folder_of_a_service_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--folder s3://bucket/x`` made a folder ``s3:`` with the service's store in it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="is an address"):
        find_sources(Serve(model="a.onnx", folder="s3://bucket/x"))
    with pytest.raises(StoreError, match="is an address"):
        open_store(None, "s3://bucket/x")
    assert not list(tmp_path.iterdir())
