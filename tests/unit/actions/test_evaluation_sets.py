"""Evaluation of vectors that ``unalike embed`` wrote, by the commands: metrics of images, refusals, and a cluster."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import networks
from tests.support.program import unalike
from tests.unit.inference.shards.test_vector_set import embed
from tests.unit.metrics.test_ray_ranking import StandIn
from unalike.actions import evaluate as evaluate_action
from unalike.metrics import ray_ranking
from unalike.runs import ray_cluster

SIDES = {"reference": range(60), "query": range(60, 90)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of three classes, a network, and the vectors of both sides."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "net.onnx").write_bytes(networks.exported_bytes())
    rng = np.random.default_rng(0)
    for side, numbers in SIDES.items():
        for number in numbers:
            path = folder / side / f"c{number % 3}" / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            color = np.array([60, 120, 180])[(np.arange(3) + number) % 3] + rng.integers(-50, 50, (16, 16, 3))
            Image.fromarray(color.astype(np.uint8)).save(path)
        done = unalike("embed", folder / side, "-o", folder / f"{side}-vectors/", "-m", folder / "net.onnx", "--labeled",
                       "--runtime", "onnxruntime", "--precision", "fp32", "--shard-size", 25)  # fmt: skip
        assert done.returncode == 0, done.stderr
    return folder


def evaluate(place: Path, out: Path, *words: Any) -> dict[str, Any]:
    done = unalike("evaluate", "-r", out, *words, "--json")
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads((out / "evaluate/metrics.json").read_text())
    return content


def vectors(place: Path) -> list[Any]:
    return ["--reference", place / "reference-vectors", "--query", place / "query-vectors"]


def refused(*words: Any) -> str:
    done = unalike("evaluate", *words)
    assert done.returncode != 0
    error: str = done.stderr.strip().splitlines()[-1]
    return error


def test_vectors_are_measured_as_the_images_are(place: Path, tmp_path: Path) -> None:
    model = [place / "net.onnx", "evaluate.runtime=onnxruntime", "evaluate.precision=fp32"]
    images = evaluate(
        place, tmp_path / "images", *model, "--reference", place / "reference", "--query", place / "query"
    )
    embedded = evaluate(place, tmp_path / "vectors", *vectors(place))
    assert embedded["micro"] == images["micro"] and embedded["macro"] == images["macro"]
    assert embedded["per_class"] == images["per_class"] and embedded["data"]["query_classes_unseen_in_training"] is None
    assert embedded["model"]["network"].startswith("file ") and embedded["model"]["file"] is None
    written = {path.name for path in (tmp_path / "vectors/evaluate").iterdir()}
    assert {"report.html", "per_class.csv", "predictions.parquet", "near_duplicates.csv"} <= written
    assert (tmp_path / "vectors/evaluate/report.html").read_text().count("data:image/jpeg") > 3


def test_one_folder_of_vectors_is_its_own_query(place: Path, tmp_path: Path) -> None:
    content = evaluate(place, tmp_path, place / "reference-vectors")
    assert content["data"]["same"] is True and sum(row["queries"] for row in content["per_class"]) == 60


def test_a_cluster_gives_the_same_files(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def connect(address: str | None, **options: Any) -> StandIn:
        asked.append(address)
        return StandIn()

    monkeypatch.setattr(ray_ranking, "connect_ray", connect)
    monkeypatch.setattr(evaluate_action, "check_cluster", lambda address, **options: asked.append(address))
    here = evaluate(place, tmp_path / "here", *vectors(place))
    there = evaluate(
        place, tmp_path / "there", *vectors(place), "--cluster", "ray", "--workers", 2, "--address", "10.0.0.1:6379"
    )
    assert there == here and asked == 2 * ["10.0.0.1:6379"]
    for name in ("predictions.parquet", "per_class.csv", "confusion.csv"):
        assert (tmp_path / "there/evaluate" / name).read_bytes() == (tmp_path / "here/evaluate" / name).read_bytes(), (
            name
        )


def test_without_ray_nothing_is_embedded(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(ray_cluster, "import_module", refuse)
    monkeypatch.setattr(evaluate_action, "evaluation_sets", lambda *args: pytest.fail("embeds"))
    sides = ["--reference", place / "reference", "--query", place / "query"]
    assert "evaluate.cluster: ray needs ray" in refused(place / "net.onnx", "-r", tmp_path, *sides, "--cluster", "ray")


def test_options_of_a_cluster_without_one_are_refused(place: Path, tmp_path: Path) -> None:
    assert "evaluate.workers is set, evaluate.cluster is local" in refused(
        "-r", tmp_path, *vectors(place), "--workers", 2
    )
    assert "evaluate.cluster" in refused("-r", tmp_path, *vectors(place), "--cluster", "slurm")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["net.onnx"], "evaluate.onnx_file is set, and .*reference-vectors holds vectors"),
        (["evaluate.explain=3"], "evaluate.explain is set, and .* holds vectors"),
    ],
)
def test_a_model_beside_vectors_is_refused(place: Path, tmp_path: Path, words: list[str], message: str) -> None:
    arguments = [place / word if word.endswith("onnx") else word for word in words]
    assert re.search(message, refused("-r", tmp_path, *arguments, *vectors(place)))


def test_what_runs_a_model_is_said_to_be_unused_with_vectors(place: Path, tmp_path: Path) -> None:
    words = ["-r", tmp_path, *vectors(place), "evaluate.precision=bf16", "dataset.view.mode=fit", "evaluate.seed=3"]
    done = unalike("evaluate", *words)
    assert done.returncode == 0, done.stderr
    assert (
        "settings that are not used: evaluate.precision, dataset.view.mode (the vectors are there already)"
        in done.stderr
    )


def test_devices_and_threads_that_are_not_used_are_said(place: Path, tmp_path: Path) -> None:
    sides = ["--reference", place / "reference", "--query", place / "query"]
    done = unalike("evaluate", place / "net.onnx", "-r", tmp_path, *sides, "evaluate.gpu_ids=[1]")
    assert done.returncode == 0 and "evaluate.gpu_ids: [1] is not used: the network runs on the CPU" in done.stderr


def test_vectors_on_one_side_are_refused(place: Path, tmp_path: Path) -> None:
    one = ["--reference", place / "reference-vectors", "--query", place / "query"]
    assert "dataset.val_dataset.reference holds vectors, query does not" in refused("-r", tmp_path, *one)
    alone = refused("-r", tmp_path, "--query", place / "query-vectors")
    assert "dataset.val_dataset.query holds vectors, the reference does not" in alone


def test_vectors_of_two_networks_are_refused(place: Path, tmp_path: Path) -> None:
    other = embed(tmp_path)
    error = refused("-r", tmp_path / "out", "--reference", place / "reference-vectors", "--query", other)
    assert "network weights mean, width 3" in error and "embed both with the same model" in error


def test_a_check_of_a_spec_reads_the_vectors(place: Path, tmp_path: Path) -> None:
    spec = tmp_path / "evaluate.yaml"
    spec.write_text(f"dataset:\n  val_dataset:\n    reference: {place}/reference-vectors\n    query: {place}/query-vectors\n"
                    "evaluate:\n  ks: [1, 3]\n")  # fmt: skip
    done = unalike("check", spec)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 vectors of 3 classes" in done.stdout + done.stderr
    (shards := tmp_path / "query").mkdir()
    for path in (place / "query-vectors").iterdir():
        (shards / path.name).write_bytes(path.read_bytes())
    (shards / "vectors-000001.parquet").unlink()
    spec.write_text(spec.read_text().replace(f"{place}/query-vectors", str(shards)))
    done = unalike("check", spec)
    assert done.returncode != 0 and "1 of 2 shards are missing" in done.stdout + done.stderr


def test_what_comes_next_names_no_gallery_of_vectors(place: Path, tmp_path: Path) -> None:
    done = unalike("evaluate", "-r", tmp_path, *vectors(place))
    assert done.returncode == 0 and "report:" in done.stderr and "gallery" not in done.stderr
