"""Which checkpoints are kept: one that is offered as the best, and the top k with ties.

Checkpoints during training are tested in test_loop.py.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from unalike.model.checkpoint import read_checkpoint
from unalike.runs.filenames import BEST_CHECKPOINT
from unalike.training.checkpoints import MONITORED, TIE_BREAKER, CheckpointManager


def checkpointer_in(folder: Path, mode: str | None = None, monitor: str | None = None) -> CheckpointManager:
    settings = SimpleNamespace(monitor=monitor, mode=mode, enable_topk=False, save_top_k=0, replace_periodic=False, dirpath=None,
                               filename="m_{epoch}", auto_insert_metric_name=False)  # fmt: skip
    return CheckpointManager(folder, SimpleNamespace(checkpointer=settings))


@pytest.mark.parametrize(
    ("best", "offered", "mode", "accepted"),
    [(None, None, "max", True), (0.5, 0.6, "max", True), (0.5, 0.4, "max", False), (0.5, 0.4, "min", True),
     (0.5, None, "max", False), (0.5, float("nan"), "max", False), (0.5, 0.5, "max", False)],
)  # fmt: skip
def test_an_offered_checkpoint_replaces_the_best_only_if_it_is_better(
    tmp_path: Path, best: float | None, offered: float | None, mode: str, accepted: bool
) -> None:
    checkpointer = checkpointer_in(tmp_path, mode)
    checkpointer.best, checkpointer.best_epoch = best, None if best is None else 1
    kpis = {} if offered is None else {MONITORED: offered}
    assert checkpointer.save_if_best({"model": {}, "spec": {}}, epoch=3, step=9, kpis=kpis) is accepted
    assert (tmp_path / BEST_CHECKPOINT).exists() is accepted
    if accepted:
        assert read_checkpoint(tmp_path / BEST_CHECKPOINT)["epoch"] == 3
        assert (checkpointer.best, checkpointer.best_epoch) == (offered, 3)
    else:
        assert (checkpointer.best, checkpointer.best_epoch) == (best, 1)


def test_ties_in_the_top_k_are_decided_by_map(tmp_path: Path) -> None:
    checkpointer = checkpointer_in(tmp_path)
    checkpointer.top_k = 1
    checkpointer.load_state(
        {**checkpointer.state(), "top": [[0.5, "older.pth"]]}
    )  # as older checkpoints store it, without MAP
    for epoch, (first, average) in enumerate([(0.5, 0.2), (0.9, 0.4), (0.9, 0.6), (0.9, 0.5)]):
        kpis = {MONITORED: first, TIE_BREAKER: average}
        checkpointer.save(
            {"model": {}, "spec": {}, "training": {}}, epoch=epoch, step=epoch, due=False, last=False, kpis=kpis
        )
    assert checkpointer.top == [(0.9, "m_2.pth", 0.6)] and [p.name for p in tmp_path.glob("m_*.pth")] == ["m_2.pth"]
    assert read_checkpoint(tmp_path / BEST_CHECKPOINT)["epoch"] == 2 == read_checkpoint(tmp_path / "m_2.pth")["epoch"]
    restored = checkpointer_in(tmp_path)
    restored.load_state(checkpointer.state())
    assert restored.top == checkpointer.top
