"""Blending with the weights that training began with, and the head that is fitted afterwards."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support.networks import SmallTrunk
from unalike.inference.embedding import Embeddings
from unalike.model.checkpoint import read_checkpoint
from unalike.runs.filenames import BEST_CHECKPOINT
from unalike.training.checkpoints import MONITORED, TIE_BREAKER, Checkpointer
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.discriminant import fit_whitening
from unalike.training.heads.interpolation import attach_head, copy_weights, interpolate_weights, refit_head


def trained() -> tuple[SmallTrunk, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    trunk = SmallTrunk()
    trunk.width = 8  # type: ignore[assignment]
    began = copy_weights(trunk)
    with torch.no_grad():
        for tensor in trunk.state_dict().values():
            tensor.add_(torch.ones_like(tensor))
    return trunk, began


def test_what_learning_began_with_does_not_move_with_the_trunk() -> None:
    trunk, began = trained()
    assert torch.equal(began["conv.weight"] + 1, trunk.state_dict()["conv.weight"])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_way_is_kept(share: float) -> None:
    trunk, began = trained()
    now = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    mixed = interpolate_weights(trunk, began, share).state_dict()
    for name, tensor in now.items():
        wanted = (1 - share) * began[name] + share * tensor if tensor.is_floating_point() else tensor
        torch.testing.assert_close(mixed[name], wanted)
        assert torch.equal(trunk.state_dict()[name], tensor)  # the trunk itself stays as it is


@pytest.mark.parametrize("rooted", [False, True])
@pytest.mark.parametrize("dim", [None, 3, 5])
def test_the_network_s_head_is_the_fitted_one(rooted: bool, dim: int | None) -> None:
    trunk, _ = trained()
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 6)
    features = (draw.normal(size=(4, 8))[labels] + 0.3 * draw.normal(size=(24, 8))).astype(np.float32)
    kept = np.delete(np.arange(24), 7)  # one file could not be read
    network = refit_head(trunk, Embeddings(features[kept], kept), labels, HeadConfig(rooted, 0.5), dim)
    assert network is not None and network.dim == (dim or 8)
    head = fit_whitening(features[kept], labels[kept], sqrt=rooted).head(0.5, dim)
    with torch.inference_mode():
        vectors = network.head(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(vectors, head(features), atol=2e-4)


def test_classes_of_one_image_leave_the_head_as_it_is() -> None:
    trunk, _ = trained()
    features = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    assert refit_head(trunk, Embeddings(features, np.arange(5)), np.arange(5), HeadConfig(), 4) is None


def test_a_head_for_another_trunk_is_refused() -> None:
    trunk, _ = trained()
    head = SimpleNamespace(matrix_FD=np.zeros((9, 2)), offset_D=np.zeros(2), sqrt=False)
    with pytest.raises(ValueError, match="9 features"):
        attach_head(trunk, head)  # type: ignore[arg-type]


def keeper(folder: Path, mode: str | None = None, monitor: str | None = None) -> Checkpointer:
    settings = SimpleNamespace(monitor=monitor, mode=mode, enable_topk=False, save_top_k=0, replace_periodic=False, dirpath=None,
                               filename="m_{epoch}", auto_insert_metric_name=False)  # fmt: skip
    return Checkpointer(folder, SimpleNamespace(checkpointer=settings))


@pytest.mark.parametrize(
    ("best", "offered", "mode", "taken"),
    [(None, None, "max", True), (0.5, 0.6, "max", True), (0.5, 0.4, "max", False), (0.5, 0.4, "min", True),
     (0.5, None, "max", False), (0.5, float("nan"), "max", False), (0.5, 0.5, "max", False)],
)  # fmt: skip
def test_it_takes_the_place_of_the_best_only_where_it_is_better(
    tmp_path: Path, best: float | None, offered: float | None, mode: str, taken: bool
) -> None:
    made = keeper(tmp_path, mode)
    made.best, made.best_epoch = best, None if best is None else 1
    kpis = {} if offered is None else {MONITORED: offered}
    assert made.offer({"model": {}, "spec": {}}, epoch=3, step=9, kpis=kpis) is taken
    assert (tmp_path / BEST_CHECKPOINT).exists() is taken
    if taken:
        assert read_checkpoint(tmp_path / BEST_CHECKPOINT)["epoch"] == 3
        assert (made.best, made.best_epoch) == (offered, 3)
    else:
        assert (made.best, made.best_epoch) == (best, 1)


def test_equal_figures_in_the_top_are_told_apart_by_map(tmp_path: Path) -> None:
    made = keeper(tmp_path)
    made.top_k = 1
    made.restore({**made.state(), "top": [[0.5, "older.pth"]]})  # as files of before hold it, without MAP
    for epoch, (first, average) in enumerate([(0.5, 0.2), (0.9, 0.4), (0.9, 0.6), (0.9, 0.5)]):
        kpis = {MONITORED: first, TIE_BREAKER: average}
        made.save({"model": {}, "spec": {}, "training": {}}, epoch=epoch, step=epoch, due=False, last=False, kpis=kpis)
    assert made.top == [(0.9, "m_2.pth", 0.6)] and [p.name for p in tmp_path.glob("m_*.pth")] == ["m_2.pth"]
    assert read_checkpoint(tmp_path / BEST_CHECKPOINT)["epoch"] == 2 == read_checkpoint(tmp_path / "m_2.pth")["epoch"]
    again = keeper(tmp_path)
    again.restore(made.state())
    assert again.top == made.top
