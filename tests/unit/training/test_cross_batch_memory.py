"""A loss of pairs is computed between a batch and the last vectors of the batches before it."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor

from unalike.errors import SpecError
from unalike.spec import Experiment
from unalike.spec.load import load_spec
from unalike.training.losses import Criterion, build_criterion

DIM, BATCH, MEMORY = 6, 8, 20  # a ring that no number of whole batches fills exactly


def _spec(**fields: object) -> Experiment:
    values = {
        "loss__name": "ContrastiveLoss",
        "loss__memory_size": MEMORY,
        "miner__name": None,
        "batch_size": BATCH,
    } | fields
    return load_spec("train", None, [(f"train.{name.replace('__', '.')}", value) for name, value in values.items()])


def _criterion(**fields: object) -> Criterion:
    return build_criterion(_spec(**fields), classes=5, dim=DIM)


def _batches(steps: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(BATCH, DIM, generator=generator), torch.randint(5, (BATCH,), generator=generator))
        for _ in range(steps)
    ]


def _contrastive(batches: list[tuple[Tensor, Tensor]], margin: float = 1.0) -> Tensor:
    """The contrastive loss of the last batch with the last ``MEMORY`` vectors, pair by pair; no vector meets itself."""
    vectors_BD, labels_B = batches[-1]
    memory = [
        (batch, row, *pair) for batch, (v, y) in enumerate(batches) for row, pair in enumerate(zip(v, y, strict=True))
    ][-MEMORY:]
    same: list[Tensor] = []
    other: list[Tensor] = []
    for row, (vector_D, label) in enumerate(zip(vectors_BD, labels_B, strict=True)):
        for batch, place, kept_D, kept_label in memory:
            if (batch, place) == (len(batches) - 1, row):
                continue
            kept_D = kept_D.detach()
            distance = (vector_D / vector_D.norm() - kept_D / kept_D.norm()).norm()
            (same if label == kept_label else other).append(distance if label == kept_label else margin - distance)
    return sum(
        (torch.stack([d for d in part if d > 0]).mean() for part in (same, other) if any(d > 0 for d in part)),
        start=torch.zeros(()),
    )


def test_the_loss_and_its_gradient_equal_pairs_computed_one_by_one() -> None:
    criterion, batches = _criterion(), _batches(7)
    for number in range(len(batches)):
        vectors_BD, labels_B = batches[number]
        ours, slow = vectors_BD.clone().requires_grad_(), vectors_BD.clone().requires_grad_()
        loss = criterion(ours, labels_B)
        loss.backward()
        expected = _contrastive([*batches[:number], (slow, labels_B)])
        expected.backward()  # type: ignore[no-untyped-call]
        assert torch.allclose(loss, expected, atol=1e-6), number
        assert ours.grad is not None and slow.grad is not None
        assert torch.allclose(ours.grad, slow.grad, atol=1e-6), number


@pytest.mark.parametrize("saved_after", [1, 2, 4])  # before, while and after the ring is filled
def test_a_restored_memory_goes_on_bit_for_bit(saved_after: int) -> None:
    batches = _batches(7)
    whole, first, second = _criterion(), _criterion(), _criterion()
    losses = [whole(*batch) for batch in batches]
    for batch in batches[:saved_after]:
        first(*batch)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    assert [second(*batch) for batch in batches[saved_after:]] == losses[saved_after:]


@pytest.mark.parametrize(
    "name", ["TripletMarginLoss", "MultiSimilarityLoss", "NTXentLoss", "CircleLoss", "MarginLoss", "SupConLoss"]
)
@pytest.mark.parametrize("miner", [None, "MultiSimilarityMiner"])
def test_losses_of_pairs_and_triplets_take_a_memory(name: str, miner: str | None) -> None:
    criterion = _criterion(loss__name=name, miner__name=miner)
    for vectors_BD, labels_B in _batches(4):
        vectors_BD.requires_grad_()
        loss = criterion(vectors_BD, labels_B)
        loss.backward()
        assert torch.isfinite(loss) and vectors_BD.grad is not None and torch.isfinite(vectors_BD.grad).all()


@pytest.mark.parametrize("name", ["CosFaceLoss", "ProxyAnchorLoss", "HistogramLoss"])
def test_other_losses_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match=rf"memory_size is set and train.loss.name is {name}.*TripletMarginLoss"):
        _criterion(loss__name=name)


@pytest.mark.parametrize(
    ("fields", "least"), [({}, 8), ({"num_gpus": 2}, 16), ({"num_gpus": 2, "max_gather": False}, 8)]
)
def test_a_memory_holds_a_batch_of_all_processes(fields: dict[str, object], least: int) -> None:
    _criterion(**fields, loss__memory_size=least)
    with pytest.raises(SpecError, match=rf"memory_size is {least - 1}.*at least {least}"):
        _criterion(**fields, loss__memory_size=least - 1)


def test_sampled_classes_beside_a_memory_are_refused() -> None:
    with pytest.raises(SpecError, match=r"train.loss.sampled_classes is set"):
        _criterion(loss__sampled_classes=3)
