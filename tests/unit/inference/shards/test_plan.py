"""The plan: every image in one shard, in order, and what tells a changed source or setting."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unalike.errors import DataError, RunError
from unalike.inference.shards.plan import PLAN_FILE, PlanFile, check_unchanged, source_digest, write_plan
from unalike.inference.shards.source import FILES, TARS, Item, ShardSource
from unalike.storage.output_folder import OutputFolder

SETTINGS: dict[str, Any] = {
    "labeled": True, "network": "weights 1", "dim": 3, "view": {"height": 4, "width": 4}, "runtime": "auto", "precision": "auto",
}  # fmt: skip


def source_of(count: int, kind: str = FILES, mark: str = "1") -> ShardSource:
    return ShardSource("photographs", kind, count, [Item(f"/p/{n}\udcff.png", f"c{n % 2}", mark) for n in range(count)])


@pytest.mark.parametrize(("count", "size"), [(1, 10), (10, 10), (11, 10), (25, 4)])
def test_every_item_is_in_one_shard(tmp_path: Path, count: int, size: int) -> None:
    folder, source = OutputFolder(tmp_path), source_of(count)
    plan = write_plan(folder, source, size, SETTINGS)
    file = PlanFile(folder)
    assert file.plan == plan and plan.shards == -(-count // size) and plan.items == count
    items = [item for shard in range(plan.shards) for item in file.items(shard)]
    assert items == [(item.path, item.label) for item in source.items()]
    assert all(len(file.items(shard)) == size for shard in range(plan.shards - 1))
    assert source_digest(source, size) == (plan.digest, plan.items, plan.shards)
    file.close()


def test_each_tar_is_a_shard(tmp_path: Path) -> None:
    assert write_plan(OutputFolder(tmp_path), source_of(5, TARS), 100, SETTINGS).shards == 5


def test_an_empty_source_leaves_no_plan(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        write_plan(OutputFolder(tmp_path), source_of(0), 10, SETTINGS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "weights 2"}, "another network: weights 1; expected weights 2"),
        ({"shard_size": 9}, "another shard size: 10; expected 9"),
        ({"precision": "fp32"}, "another precision"),
        ({"labeled": False}, "another --labeled"),
        ({"source": "others"}, "another source"),
        ({"digest": "0"}, "photographs has changed"),
        ({"items": 13}, "has changed .*13 images; expected the 12 images"),
    ],
)  # fmt: skip
def test_what_changed_is_named_with_the_remedy(tmp_path: Path, change: dict, message: str) -> None:
    folder = OutputFolder(tmp_path)
    plan = write_plan(folder, source_of(12), 10, SETTINGS)
    check_unchanged(folder, plan, dataclasses.replace(plan))
    with pytest.raises(RunError, match=message) as caught:
        check_unchanged(folder, plan, dataclasses.replace(plan, **change))
    assert "--overwrite" in caught.value.remedy
    assert dataclasses.replace(plan, **change).key != plan.key


def test_a_changed_file_changes_the_digest() -> None:
    assert source_digest(source_of(5), 2)[0] != source_digest(source_of(5, mark="2"), 2)[0]


@pytest.mark.parametrize("kind", ["text", "table", "half"])
def test_what_is_no_plan_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / PLAN_FILE
    if kind == "text":
        path.write_text("no")
    elif kind == "table":
        pq.write_table(pa.table({"path": ["a"]}), path)
    else:
        write_plan(OutputFolder(tmp_path), source_of(12), 10, SETTINGS)
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"plan.parquet: no plan of shards"):
        PlanFile(OutputFolder(tmp_path))
