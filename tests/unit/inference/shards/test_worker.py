"""A worker: shards of images and tars, unreadable ones listed, a shard that is there is not embedded again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.sharding import MeanEngine, image_bytes, mean_model, numbers_of, read_shards, write_images, write_tar
from unalike.data.notices import Notices
from unalike.errors import ModelError, RunError
from unalike.inference.shards.plan import write_plan
from unalike.inference.shards.shard_file import read_record
from unalike.inference.shards.source import open_source
from unalike.inference.shards.worker import ShardReport, ShardWorker, WorkerOptions, embed_stream
from unalike.storage.output_folder import OutputFolder


def worker_of(
    source: Path | str, out: Path, *, size: int = 10, labeled: bool = True, network: str = "weights mean"
) -> ShardWorker:
    model = mean_model(network)
    settings = {
        "labeled": labeled,
        "network": "weights mean",
        "dim": 3,
        "view": model.view.to_dict(),
        "runtime": "auto",
        "precision": "auto",
    }
    out.mkdir(exist_ok=True)
    write_plan(OutputFolder(out), open_source(str(source), labeled=labeled, notices=Notices()), size, settings)
    return ShardWorker(WorkerOptions(str(out), "mean"), model)


def test_each_image_is_in_its_shard_once(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 25, bad=(4,))
    worker = worker_of(tmp_path / "in", tmp_path / "out")
    steps: list[int] = []
    reports = [worker(shard, steps.append) for shard in range(worker.plan.shards)]
    assert [(r.images, r.unreadable, r.skipped) for r in reports] == [(10, 0, False), (9, 1, False), (5, 0, False)]
    assert sum(steps) == 25
    table = read_shards(tmp_path / "out")
    assert sorted(numbers_of(table)) == [n for n in range(25) if n != 4]
    names = [Path(path) for path in table["path"].to_pylist()]
    assert [int(path.stem) for path in names] == numbers_of(table) and [p.parent.name for p in names] == table[
        "label"
    ].to_pylist()
    record = read_record(OutputFolder(tmp_path / "out"), worker.plan, 1)
    assert record.unreadable == ((str(tmp_path / "in/c1/00004.png"), "not an image of a known format"),)


def test_a_shard_that_is_there_is_not_embedded_again(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 12)
    worker = worker_of(tmp_path / "in", tmp_path / "out")
    worker(0)
    before = (tmp_path / "out/vectors-000000.parquet").stat()
    assert worker(0) == ShardReport(0, 10, 0, skipped=True)
    after = (tmp_path / "out/vectors-000000.parquet").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    (tmp_path / "out/vectors-000001.parquet").write_bytes((tmp_path / "out/vectors-000000.parquet").read_bytes())
    other = worker_of(tmp_path / "in", tmp_path / "out", size=6)
    with pytest.raises(RunError, match="belongs to another run"):
        other(1)


def test_tars_are_streamed_with_their_classes_and_damage_is_listed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_tar(
        tmp_path / "in/0.tar",
        {"0.png": image_bytes(0), "0.cls": b"cat", "1.png": b"no image at all", "2.png": image_bytes(2)},
    )
    path = write_tar(tmp_path / "in/1.tar", {f"{n}.png": image_bytes(n) + b"\0" * 5000 for n in range(10, 30)})
    path.write_bytes(path.read_bytes()[:60_000])
    worker = worker_of(tmp_path / "in", tmp_path / "out")
    steps: list[int] = []
    reports = [worker(shard, steps.append) for shard in (0, 1)]
    assert steps == [1, 1] and [report.unreadable for report in reports] == [1, 1]
    table = read_shards(tmp_path / "out")
    tar = tmp_path / "in/0.tar"
    assert table["path"].to_pylist()[:2] == [f"{tar}!0.png", f"{tar}!2.png"] and table["label"].to_pylist()[:2] == [
        "cat",
        "",
    ]
    assert numbers_of(table) == [0, 2, *range(10, 10 + reports[1].images)] and 0 < reports[1].images < 20
    records = [read_record(OutputFolder(tmp_path / "out"), worker.plan, shard).unreadable for shard in (0, 1)]
    assert records[0] == ((f"{tar}!1.png", "not an image of a known format"),)
    assert records[1][0][0] == str(path) and records[1][0][1].startswith("damaged or truncated")


def test_regions_of_a_manifest_keep_their_order(tmp_path: Path) -> None:
    write_images(tmp_path, 2, classes=1)
    rows = [f"c0/0000{n % 2}.png,{n % 4},0,4,6" for n in range(12)]
    (tmp_path / "all.csv").write_text("path,x,y,width,height\n" + "\n".join(rows) + "\n")
    worker = worker_of(tmp_path / "all.csv", tmp_path / "out", size=100, labeled=False)
    worker(0)
    table = read_shards(tmp_path / "out")
    assert table.column_names == ["path", "vector"] and numbers_of(table) == [n % 2 for n in range(12)]
    assert table["path"].to_pylist() == [f"{tmp_path}/c0/0000{n % 2}.png#{n % 4},0,4,6" for n in range(12)]


def test_another_network_than_the_plans_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 2)
    with pytest.raises(ModelError, match="network weights other, width 3; expected network weights mean"):
        worker_of(tmp_path / "in", tmp_path / "out", network="weights other")(0)


def test_a_stream_of_nothing_readable_still_tells_its_failures() -> None:
    from unalike.errors import UnreadableImage

    def read(number: int) -> np.ndarray:
        if number % 2:
            raise UnreadableImage("odd")
        return np.full((12, 8, 3), number, np.uint8)

    engine = MeanEngine()
    batches = list(embed_stream(engine, ([n] for n in range(41)), read, workers=2))
    assert [n for batch, _, _ in batches for n in batch] == list(range(0, 41, 2))
    assert [n for *_, failures in batches for n, _ in failures] == list(range(1, 41, 2))
    assert [len(batch) for batch, _, _ in batches] == [8, 8, 5]
    ((batch, vectors, failures),) = embed_stream(engine, iter([[1], [3]]), read, workers=2)
    assert batch == [] and vectors.shape == (0, 3) and failures == [(1, "odd"), (3, "odd")]
