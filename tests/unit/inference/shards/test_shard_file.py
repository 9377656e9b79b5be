"""A shard: whole or absent, its width checked, its metadata complete."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.sharding import read_shards
from unalike.errors import DataError, ModelError, RunError
from unalike.inference.shards import shard_file
from unalike.inference.shards.plan import ShardPlan
from unalike.inference.shards.shard_file import read_record, shard_name, shard_number, write_shard
from unalike.storage.output_folder import OutputFolder

PLAN = ShardPlan("photographs", "images", True, 10, "weights 1", 3, {"height": 4}, "auto", "auto", "00", 25, 3)


def vectors(count: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + 3 * count, dtype=np.float32).reshape(count, 3)


def test_rows_and_metadata_are_those_that_were_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_file, "_ROWS", 4)
    folder = OutputFolder(tmp_path)
    with write_shard(folder, PLAN, 2, {"runtime": "openvino"}) as writer:
        for start in range(0, 9, 3):
            writer.add([f"{n}.png" for n in range(start, start + 3)], ["ü"] * 3, vectors(3, start))
        writer.unreadable.append(("bad.png", "damaged"))
    assert [path.name for path in tmp_path.iterdir()] == ["vectors-000002.parquet"]
    table = read_shards(tmp_path)
    assert table.column_names == ["path", "label", "vector"] and table["path"].to_pylist() == [
        f"{n}.png" for n in range(9)
    ]
    assert np.stack(table["vector"].to_pylist())[:, 0].tolist() == [0, 3, 6, 3, 6, 9, 6, 9, 12]
    record = read_record(folder, PLAN, 2)
    assert (record.shard, record.images, record.unreadable) == (2, 9, (("bad.png", "damaged"),))
    metadata = json.loads(pq.read_metadata(tmp_path / shard_name(2)).metadata[b"unalike"])
    assert (metadata["network"], metadata["dim"], metadata["runtime"]) == ("weights 1", 3, "openvino")


def test_a_shard_of_which_no_image_is_readable_is_there(tmp_path: Path) -> None:
    with write_shard(OutputFolder(tmp_path), PLAN, 0, {}) as writer:
        writer.unreadable.append(("bad.png", "damaged"))
    assert read_shards(tmp_path).num_rows == 0 and read_record(OutputFolder(tmp_path), PLAN, 0).images == 0


def test_an_error_leaves_no_shard(tmp_path: Path) -> None:
    with pytest.raises(KeyError), write_shard(OutputFolder(tmp_path), PLAN, 0, {}) as writer:
        writer.add(["a"], ["x"], vectors(1))
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_vectors_of_another_width_are_refused_and_not_finite_ones_are_no_vectors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="width 3"), write_shard(OutputFolder(tmp_path), PLAN, 0, {}) as writer:
        writer.add(["a"], ["x"], np.zeros((1, 4), np.float32))
    with write_shard(OutputFolder(tmp_path), PLAN, 1, {}) as writer:
        writer.add(["a", "b", "c"], ["x"] * 3, np.array([[1, 2, 3], [1, np.nan, 3], [4, 5, 6]], np.float32))
    assert read_shards(tmp_path)["path"].to_pylist() == ["a", "c"]
    assert read_record(OutputFolder(tmp_path), PLAN, 1).unreadable == (("b", "the network gives no finite vector"),)


@pytest.mark.parametrize("change", [{"network": "weights 2"}, {"dim": 4}, {"digest": "11"}])
def test_a_shard_of_another_plan_is_refused(tmp_path: Path, change: dict) -> None:
    folder = OutputFolder(tmp_path)
    with write_shard(folder, PLAN, 0, {}) as writer:
        writer.add(["a"], ["x"], vectors(1))
    with pytest.raises(RunError, match="belongs to another run"):
        read_record(folder, dataclasses.replace(PLAN, **change), 0)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / shard_name(0)).write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"vectors-000000.parquet: no shard .*--resume"):
        read_record(OutputFolder(tmp_path), PLAN, 0)


def test_names() -> None:
    assert [shard_number(shard_name(n)) for n in (0, 7, 1_234_567)] == [0, 7, 1_234_567]
    assert shard_number("plan.parquet") is None and shard_number("vectors-1.parquet") is None
