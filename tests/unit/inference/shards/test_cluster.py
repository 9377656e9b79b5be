"""The actor that Ray Data makes a pool of, and how many are started; with Ray itself: tests/flow/test_sharded_embedding.py."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.sharding import mean_model, write_images
from unalike.data.notices import Notices
from unalike.errors import DeviceError
from unalike.inference.shards import cluster, worker
from unalike.inference.shards.cluster import ShardActor
from unalike.inference.shards.plan import write_plan
from unalike.inference.shards.source import open_source
from unalike.inference.shards.worker import WorkerOptions
from unalike.storage.output_folder import OutputFolder


def planned(tmp_path: Path, network: str = "weights mean") -> dict[str, Any]:
    write_images(tmp_path / "in", 12)
    settings = {
        "labeled": True,
        "network": network,
        "dim": 3,
        "view": mean_model().view.to_dict(),
        "runtime": "auto",
        "precision": "auto",
    }
    (tmp_path / "out").mkdir()
    write_plan(
        OutputFolder(tmp_path / "out"), open_source(str(tmp_path / "in"), labeled=True, notices=Notices()), 5, settings
    )
    return asdict(WorkerOptions(str(tmp_path / "out"), "mean", threads=1))


def test_an_actor_gives_a_row_for_each_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "load_model", lambda *args, **options: mean_model())
    rows = list(ShardActor(planned(tmp_path))({"shard": [2, 0]}))
    assert [(row["shard"], row["images"], row["error"]) for row in rows] == [([2], [2], [""]), ([0], [5], [""])]
    assert sorted(path.name for path in (tmp_path / "out").glob("vectors-*")) == [
        "vectors-000000.parquet",
        "vectors-000002.parquet",
    ]


def test_an_error_of_a_user_comes_back_as_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "load_model", lambda *args, **options: mean_model())
    (row,) = ShardActor(planned(tmp_path, "weights other"))({"shard": [0]})
    assert row["error"] == ["ModelError"] and row["remedy"] == ["give every worker the same file"]
    assert row["expected"][0].startswith("network weights other, width 3")


def cluster_of(cpus: int, gpus: int, nodes: int) -> Any:
    return SimpleNamespace(
        cluster_resources=lambda: {"CPU": float(cpus), "GPU": float(gpus)}, nodes=lambda: [{"Alive": True}] * nodes
    )


@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes", "workers", "count", "cpus_each", "gpus_each"),
    [
        (32, 0, 2, None, 2, 16, 0),
        (32, 4, 2, None, 4, 8, 1),
        (32, 4, 2, 8, 8, 4, 0.5),
        (2, 0, 1, 2, 2, 1, 0),
        (7, 0, 1, 2, 2, 3, 0),
        (1, 0, 1, None, 1, 1, 0),
    ],
)
def test_workers_share_the_cores_of_the_cluster(
    cpus: int, gpus: int, nodes: int, workers: int | None, count: int, cpus_each: int, gpus_each: float
) -> None:
    number, resources = cluster._resources(cluster_of(cpus, gpus, nodes), workers)
    assert (number, resources["num_cpus"], resources.get("num_gpus", 0)) == (count, cpus_each, gpus_each)


def test_more_workers_than_cores_are_refused() -> None:
    with pytest.raises(DeviceError, match="3 workers on 2 cores of the cluster"):
        cluster._resources(cluster_of(2, 0, 1), 3)
