"""The vectors of a folder of shards as one set: order, classes, and what is said of shards that cannot be read."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.sharding import mean_model, read_shards, write_images
from unalike.data.notices import Notices
from unalike.errors import DataError, RunError
from unalike.inference.shards import vector_set
from unalike.inference.shards.plan import METADATA_KEY, write_plan
from unalike.inference.shards.source import open_source
from unalike.inference.shards.vector_set import read_vector_set
from unalike.inference.shards.worker import ShardWorker, WorkerOptions, network_key
from unalike.runs.vector_folder import is_vector_folder
from unalike.storage.filesystems import RemoteStore
from unalike.storage.output_folder import OutputFolder


def embed(folder: Path, *, labeled: bool = True, bad: tuple[int, ...] = (4,), network: str = "weights mean") -> Path:
    """A folder of three shards of 12 images, one of which is none."""
    write_images(folder / "in", 12, bad=bad)
    model = mean_model(network)
    settings = {
        "labeled": labeled, "network": network_key(model), "dim": 3, "view": model.view.to_dict(), "runtime": "auto",
        "precision": "auto",
    }  # fmt: skip
    out = OutputFolder(folder / "out")
    out.create()
    plan = write_plan(out, open_source(str(folder / "in"), labeled=labeled, notices=Notices()), 5, settings)
    worker = ShardWorker(WorkerOptions(str(folder / "out"), "mean", threads=1), model)
    for shard in range(plan.shards):
        worker(shard)
    return folder / "out"


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write a shard again with other rows and the same metadata."""
    table, metadata = change(pq.read_table(path)), pq.read_metadata(path).metadata[METADATA_KEY]
    with pq.ParquetWriter(path, table.schema) as file:
        file.write_table(table)
        file.add_key_value_metadata({METADATA_KEY: metadata})


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return embed(tmp_path)


def test_vectors_names_and_classes_are_those_of_the_shards_in_their_order(shards: Path) -> None:
    vectors, table = read_vector_set(shards), read_shards(shards)
    assert list(vectors.images.paths) == table["path"].to_pylist() and len(vectors.images) == 11
    assert list(vectors.images.label_names()) == table["label"].to_pylist()
    assert vectors.images.classes == ("c0", "c1", "c2") and vectors.unlabeled == 0
    np.testing.assert_array_equal(vectors.vectors_ND, np.array(table["vector"].to_pylist(), np.float32))
    assert vectors.vectors_ND.dtype == np.float32 and vectors.plan.network == "weights mean"


def test_which_folders_hold_vectors(shards: Path, tmp_path: Path) -> None:
    assert is_vector_folder(shards) and is_vector_folder(str(shards) + "/")
    assert not is_vector_folder(tmp_path / "in") and not is_vector_folder(tmp_path / "nothing")
    assert not is_vector_folder("https://shop.example/photos.zip")  # which is not asked for
    assert not is_vector_folder("nosuch://shop/photos")


def test_a_store_holds_vectors_too(shards: Path) -> None:
    store = RemoteStore(f"memory://{uuid.uuid4().hex}")
    for path in shards.iterdir():
        store.fs.pipe_file(f"{store.path}/{path.name}", path.read_bytes())
    address = f"memory:/{store.path}"
    assert is_vector_folder(address)
    np.testing.assert_array_equal(read_vector_set(address).vectors_ND, read_vector_set(shards).vectors_ND)


def test_a_shard_that_is_missing(shards: Path) -> None:
    (shards / "vectors-000001.parquet").unlink()
    with pytest.raises(DataError, match=r"1 of 3 shards are missing, the first is vectors-000001\.parquet") as caught:
        read_vector_set(shards)
    assert "--resume" in caught.value.remedy


def test_a_shard_that_is_damaged_in_its_rows_or_at_its_end(shards: Path) -> None:
    path = shards / "vectors-000001.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 200 + content[204:])
    with pytest.raises(DataError, match=r"vectors-000001\.parquet cannot be read") as caught:
        read_vector_set(shards)
    assert "delete it" in caught.value.remedy
    path.write_bytes(content[:-100])
    with pytest.raises(DataError, match=r"vectors-000001\.parquet: no shard"):
        read_vector_set(shards)


def test_fewer_rows_than_the_metadata_say(shards: Path) -> None:
    rewrite(shards / "vectors-000001.parquet", lambda table: table.slice(0, 2))
    with pytest.raises(DataError, match="2 rows, its metadata say 4"):
        read_vector_set(shards)


def test_a_shard_of_another_run(shards: Path, tmp_path: Path) -> None:
    other = embed(tmp_path / "other", network="weights else")
    shutil.copy(other / "vectors-000002.parquet", shards)
    with pytest.raises(RunError, match="belongs to another run"):
        read_vector_set(shards)


def test_vectors_without_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="vectors without classes") as caught:
        read_vector_set(embed(tmp_path, labeled=False))
    assert "--labeled" in caught.value.remedy


def test_images_without_a_class_are_left_out_and_counted(shards: Path) -> None:
    def without_first(table: pa.Table) -> pa.Table:
        return table.set_column(1, "label", pa.array(["", *table["label"].to_pylist()[1:]]))

    for path in sorted(shards.glob("vectors-*.parquet"))[:2]:
        rewrite(path, without_first)
    vectors = read_vector_set(shards)
    assert vectors.unlabeled == 2 and len(vectors.images) == len(vectors.vectors_ND) == 9
    assert "" not in vectors.images.classes and list(vectors.images.paths) == [
        path for path, label in zip(*(read_shards(shards)[name].to_pylist() for name in ("path", "label")), strict=True) if label
    ]  # fmt: skip


def test_a_shard_of_another_network_that_comes_while_the_others_are_read(
    shards: Path, tmp_path: Path, monkeypatch
) -> None:
    """Its metadata were read before all vectors: they have to be those of the vectors that are read now."""
    other, real = embed(tmp_path / "other", network="weights else"), vector_set.read_columns

    def replace_before(folder, plan, shard, columns):
        if shard == 2:
            shutil.copy(other / "vectors-000002.parquet", shards)
        return real(folder, plan, shard, columns)

    monkeypatch.setattr(vector_set, "read_columns", replace_before)
    with pytest.raises(RunError, match="belongs to another run"):
        read_vector_set(shards)


def test_flipped_bits_in_vectors_are_noticed(shards: Path) -> None:
    path = shards / "vectors-000000.parquet"
    content, before, refusals = path.read_bytes(), read_vector_set(shards), 0
    for place in range(4, len(content) // 2, 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            after = read_vector_set(shards)
        except (DataError, RunError):
            refusals += 1
            continue
        np.testing.assert_array_equal(after.vectors_ND, before.vectors_ND)
        assert after.images.paths == before.images.paths and after.images.classes == before.images.classes
    assert refusals
