"""Sharded embedding by its command, within this process: outputs, resuming, refusals, a store as source and destination."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
import uuid
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import unalike as package
from tests.support import networks
from tests.support.program import unalike
from tests.support.sharding import read_shards, write_images
from unalike.actions.embed_shards import is_shard_folder
from unalike.inference.shards import worker
from unalike.runs import ray_cluster
from unalike.storage.filesystems import RemoteStore


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    path.write_bytes(networks.exported_bytes())
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos", 30, bad=(7, 20))
    return tmp_path / "photos"


def command(source: object, output: object, model: Path, *options: object) -> list[object]:
    return ["embed", source, "-o", output, "-m", model, "--labeled", "--runtime", "onnxruntime", *options]


def test_shards_hold_what_a_file_would(photos: Path, tmp_path: Path, model: Path) -> None:
    done = unalike(*command(photos, tmp_path / "out", model, "--shard-size", 8, "--json"))
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["figures"]
    assert figures == {"images": 28, "unreadable": 2, "dim": 16, "shards": 4, "shards_written": 4}
    assert "2 images unreadable" in done.stderr and "unreadable.csv" in done.stderr
    for number in (7, 20):  # of 30 images one file may lack one
        (photos / f"c{number % 3}/{number:05d}.png").unlink()
    one = unalike(*command(photos, tmp_path / "one.parquet", model))
    assert one.returncode == 0, one.stderr
    table, expected = read_shards(tmp_path / "out"), pq.read_table(tmp_path / "one.parquet")
    assert table.schema.remove_metadata() == expected.schema and table["label"] == expected["label"]
    assert table["path"].to_pylist() == expected["path"].to_pylist()
    assert np.allclose(np.stack(table["vector"].to_pylist()), np.stack(expected["vector"].to_pylist()), atol=1e-5)
    rows = list(csv.DictReader((tmp_path / "out/unreadable.csv").open()))
    assert [(Path(row["path"]).name, row["shard"]) for row in rows] == [("00007.png", "1"), ("00020.png", "3")]
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["images"] == 28 and summary["network"].startswith("file ") and summary["shard_size"] == 8


def test_a_run_goes_on_where_it_ended(
    photos: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, line = tmp_path / "out", command(photos, tmp_path / "out", model, "--shard-size", 8)
    assert unalike(*line).returncode == 0
    complete = read_shards(out)
    (out / "vectors-000002.parquet").unlink()
    (out / "summary.json").unlink()
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("vectors-*")}
    embedded: list[int] = []
    call = worker.ShardWorker.__call__
    monkeypatch.setattr(
        worker.ShardWorker,
        "__call__",
        lambda self, shard, advance=None: embedded.append(shard) or call(self, shard, advance),
    )
    refused = unalike(*line)
    assert (
        refused.returncode == 1 and "add --resume to go on with them, or --overwrite to begin again" in refused.stderr
    )
    done = unalike(*line, "--resume", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["figures"]["shards_written"] == 1 and embedded == [2]
    assert "3 of 4 shards are there, 1 are embedded now" in done.stderr
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept and read_shards(out).equals(complete)
    begun = unalike(*line, "--overwrite", "--json")
    assert json.loads(begun.stdout)["figures"]["shards_written"] == 4 and read_shards(out).equals(complete)


def test_what_changed_is_refused_and_nothing_is_lost(photos: Path, tmp_path: Path, model: Path) -> None:
    out = tmp_path / "out"
    assert unalike(*command(photos, out, model, "--shard-size", 8)).returncode == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    other = tmp_path / "other.onnx"
    other.write_bytes(networks.exported_bytes(seed=1))
    changes = {
        "another network": command(photos, out, other, "--shard-size", 8),
        "another shard size": command(photos, out, model, "--shard-size", 9),
        "another precision": command(photos, out, model, "--shard-size", 8, "--precision", "fp32"),
        "another --labeled": [word for word in command(photos, out, model, "--shard-size", 8) if word != "--labeled"],
    }
    for message, line in changes.items():
        done = unalike(*line, "--resume")
        assert done.returncode == 1 and message in done.stderr and "--overwrite" in done.stderr, done.stderr
    shutil.copy(photos / "c0/00000.png", photos / "c0/new.png")
    done = unalike(*command(photos, out, model, "--shard-size", 8), "--resume")
    assert (
        done.returncode == 1
        and "has changed since" in done.stderr
        and "31 images; expected the 30 images" in done.stderr
    )
    assert unalike(*command(tmp_path / "nothing", out, model), "--overwrite").returncode == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_folder_with_other_files_is_not_touched(photos: Path, tmp_path: Path, model: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    for option in ([], ["--overwrite"], ["--resume"]):
        done = unalike(*command(photos, tmp_path / "out", model), *option)
        assert done.returncode == 1 and "is not empty" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_set_of_which_nothing_is_readable_is_an_error_with_its_list(tmp_path: Path, model: Path) -> None:
    write_images(tmp_path / "photos", 3, bad=(0, 1, 2))
    done = unalike(*command(tmp_path / "photos", tmp_path / "out", model))
    assert done.returncode == 1 and "none of its 3 images can be read" in done.stderr
    assert len(list(csv.DictReader((tmp_path / "out/unreadable.csv").open()))) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cluster", "ray"], "embed.cluster with the output"),
        (["--shard-size", 5], "embed.shard_size with the output"),
        (["--resume"], "--resume with the output"),
    ],
)
def test_options_of_shards_with_one_file_are_refused(
    photos: Path, tmp_path: Path, model: Path, options: list, message: str
) -> None:
    done = unalike(*command(photos, tmp_path / "one.npz", model, *options))
    assert done.returncode == 2 and message in done.stderr and "-o vectors/" in done.stderr


def test_options_that_a_source_or_this_machine_does_not_use(photos: Path, tmp_path: Path, model: Path) -> None:
    done = unalike(*command(photos, tmp_path / "out", model, "--workers", 2))
    assert done.returncode == 2 and "embed.workers is set, embed.cluster is local" in done.stderr
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(photos, arcname="photos")
    done = unalike(*command(tmp_path / "a.tar", tmp_path / "tar", model, "--shard-size", 5))
    assert done.returncode == 0 and "embed.shard_size is not used: each tar file is a shard" in done.stderr, done.stderr
    spec = tmp_path / "embed.yaml"
    for output, option, message in (
        ("new/", "workers: 2", "cluster is local"),
        ("a.npz", "shard_size: 5", "a folder of shards"),
    ):
        spec.write_text(f"embed:\n  source: {photos}\n  output: {tmp_path}/{output}\n  model: {model}\n  {option}\n")
        done = unalike("check", spec)
        assert done.returncode == 1 and message in done.stdout, done.stdout + done.stderr


def test_without_ray_nothing_is_planned(
    photos: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the command can be given again as it is, when Ray is installed."""

    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(ray_cluster, "import_module", refuse)
    done = unalike(*command(photos, tmp_path / "out", model, "--cluster", "ray"))
    assert done.returncode == 1 and "embed.cluster: ray needs ray[data]" in done.stderr
    assert not (tmp_path / "out").exists()


def test_from_a_store_to_a_store(tmp_path: Path, model: Path, photos: Path) -> None:
    place = f"memory://{uuid.uuid4().hex}"
    store = RemoteStore(place)
    for path in photos.rglob("*.png"):
        store.fs.pipe_file(f"{store.path}/in/{path.relative_to(photos)}", path.read_bytes())
    line = command(f"{place}/in", f"{place}/out", model, "--shard-size", 8, "--json")
    done = unalike(*line)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["figures"]["address"] == f"{place}/out"
    store.fs.rm_file(f"{store.path}/out/vectors-000001.parquet")
    done = unalike(*line, "--resume")
    assert done.returncode == 0 and json.loads(done.stdout)["figures"]["shards_written"] == 1, done.stderr
    for file in store.fs.ls(f"{store.path}/out", detail=False):
        store.fs.get_file(file, str(tmp_path / Path(str(file)).name))
    assert unalike(*command(photos, tmp_path / "local", model, "--shard-size", 8)).returncode == 0
    remote, local = read_shards(tmp_path), read_shards(tmp_path / "local")
    assert remote["vector"] == local["vector"] and remote["label"] == local["label"]
    assert remote["path"].to_pylist()[0] == f"{place}/in/c0/00000.png"


def test_a_check_lists_the_source_and_fetches_no_image(tmp_path: Path, model: Path) -> None:
    place = f"memory://{uuid.uuid4().hex}"
    store = RemoteStore(place)
    store.fs.pipe_file(f"{store.path}/in/a/1.png", b"not looked at")
    spec = tmp_path / "embed.yaml"
    spec.write_text(f"embed:\n  source: {place}/in\n  output: {tmp_path}/out/\n  model: {model}\n")
    done = unalike("check", spec)
    assert done.returncode == 0 and "1 images" in done.stdout + done.stderr, done.stdout + done.stderr
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    done = unalike("check", spec)
    assert done.returncode != 0 and "is not empty" in done.stdout + done.stderr


def test_the_function_of_python(photos: Path, tmp_path: Path, model: Path) -> None:
    result = package.embed(photos, tmp_path / "out", checkpoint=model, shard_size=10)
    assert result.path == tmp_path / "out" and result.figures["shards"] == 3
    again = package.embed(photos, tmp_path / "out", checkpoint=model, shard_size=10, resume=True)
    assert again.figures["shards_written"] == 0


def test_a_results_folder_records_the_run(photos: Path, tmp_path: Path, model: Path) -> None:
    done = unalike(*command(photos, tmp_path / "out", model), f"embed.results_dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert '"SUCCESS"' in (tmp_path / "run/status.json").read_text()
    done = unalike(*command(photos, tmp_path / "out", model), f"embed.results_dir={tmp_path}/run", "--resume")
    assert done.returncode == 0, done.stderr


def test_which_output_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run.2026").mkdir()
    assert all(
        map(is_shard_folder, ("vectors", "a/vectors.d/", "s3://b/vectors", "s3://b/v.1/", str(tmp_path / "run.2026")))
    )
    assert not any(map(is_shard_folder, ("v.npz", "v.parquet", "v.csv", "s3://b/v.npz")))
