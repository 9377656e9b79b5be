"""The actor that Ray Data makes a pool of, and how many are started; with Ray itself: tests/flow/test_sharded_embedding.py."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.support.sharding import mean_model, write_images
from unalike.data.notices import Notices
from unalike.inference.shards import worker
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
