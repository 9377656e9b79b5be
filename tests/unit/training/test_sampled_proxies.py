"""A proxy loss over sampled classes moves the rows of a step as an optimizer of sparse gradients does."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import (
    ArcFaceLoss,
    CosFaceLoss,
    NormalizedSoftmaxLoss,
    ProxyAnchorLoss,
    ProxyNCALoss,
)
from torch import Tensor, nn

from unalike.errors import SpecError, TrainingError
from unalike.spec import Experiment
from unalike.spec.load import load_spec
from unalike.training.losses import build_criterion, initialize_proxies
from unalike.training.sampled_proxies import SampledProxies

CLASSES, DIM = 60, 6
# With the scale of 64 gradients vanish, and Adam makes steps of their rounding errors.
LOSSES = (
    partial(CosFaceLoss, scale=4),
    partial(ArcFaceLoss, scale=4),
    NormalizedSoftmaxLoss,
    ProxyNCALoss,
    ProxyAnchorLoss,
)
NAMES = ("CosFace", "ArcFace", "NormalizedSoftmax", "ProxyNCA", "ProxyAnchor")


def _sampled(cls: Callable[..., nn.Module], sampled: int = 12) -> SampledProxies:
    torch.manual_seed(0)
    return SampledProxies(
        lambda count: cls(num_classes=count, embedding_size=DIM), classes=CLASSES, sampled=sampled, seed=3
    )


def _spec(**fields: object) -> Experiment:
    return load_spec("train", None, [(f"train.{name.replace('__', '.')}", value) for name, value in fields.items()])


def _batches(steps: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, DIM, generator=generator), torch.randint(CLASSES, (8,), generator=generator))
        for _ in range(steps)
    ]


@pytest.fixture
def double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("cls", LOSSES, ids=NAMES)
def test_it_moves_as_sparse_adam_moves_an_embedding_table(cls: Callable[..., nn.Module]) -> None:
    criterion = _sampled(cls)
    table = nn.Parameter(criterion.get_extra_state()["proxies"].clone())
    criterion.attach(optimizer := torch.optim.Adam(criterion.parameters(), lr=0.1, eps=1e-20))
    reference = torch.optim.SparseAdam([table], lr=0.1, eps=1e-20)
    plain = cls(num_classes=criterion.sampled, embedding_size=DIM)
    name = next(name for name, _ in plain.named_parameters())
    for vectors_BD, labels_B in _batches(25):
        optimizer.zero_grad()
        loss = criterion(vectors_BD, labels_B)
        loss.backward()
        optimizer.step()
        rows_S = torch.from_numpy(criterion._drawn_S)
        assert set(labels_B.tolist()) <= set(rows_S.tolist()) and len(set(rows_S.tolist())) == criterion.sampled
        rows_SD = table.detach()[rows_S].requires_grad_()
        delattr(plain, name)
        setattr(plain, name, rows_SD.T if name == "W" else rows_SD)
        expected = plain(vectors_BD, torch.searchsorted(rows_S, labels_B))
        expected.backward()
        assert rows_SD.grad is not None and torch.allclose(loss, expected)
        table.grad = torch.sparse_coo_tensor(rows_S[None], rows_SD.grad, table.shape)
        reference.step()
        assert torch.allclose(criterion.get_extra_state()["proxies"], table, atol=1e-9)


def test_every_class_is_drawn_about_equally_often() -> None:
    criterion, drawn = _sampled(CosFaceLoss), np.zeros(CLASSES)
    for _ in range(2000):
        criterion._draw(np.array([0, 1, 1]))
        drawn[criterion._drawn_S] += 1
    assert drawn[0] == drawn[1] == 2000
    rate = 10 / 58
    assert np.abs(drawn[2:] / 2000 - rate).max() < 5 * np.sqrt(rate / 2000)


def test_a_resumed_run_goes_on_bit_for_bit() -> None:
    def steps(
        criterion: SampledProxies, optimizer: torch.optim.Optimizer, batches: list[tuple[Tensor, Tensor]]
    ) -> None:
        for vectors_BD, labels_B in batches:
            optimizer.zero_grad()
            criterion(vectors_BD, labels_B).backward()
            optimizer.step()

    def make() -> tuple[SampledProxies, torch.optim.Optimizer]:
        criterion = _sampled(CosFaceLoss)
        criterion.attach(optimizer := torch.optim.AdamW(criterion.parameters(), lr=0.1))
        return criterion, optimizer

    batches = _batches(12)
    whole, whole_optimizer = make()
    steps(whole, whole_optimizer, batches)
    first, first_optimizer = make()
    steps(first, first_optimizer, batches[:5])
    stream = io.BytesIO()
    torch.save({"criterion": first.state_dict(), "optimizer": first_optimizer.state_dict()}, stream)
    stream.seek(0)
    second, second_optimizer = make()
    state = torch.load(stream, weights_only=True)
    second.load_state_dict(state["criterion"])
    second_optimizer.load_state_dict(state["optimizer"])
    steps(second, second_optimizer, batches[5:])
    for name, value in whole.get_extra_state()["moments"].items():
        assert torch.equal(second.get_extra_state()["moments"][name], value)
    assert torch.equal(second.get_extra_state()["proxies"], whole.get_extra_state()["proxies"])


def test_more_classes_in_a_batch_than_sampled_ones() -> None:
    with pytest.raises(TrainingError, match=r"sampled_classes is 3 and a batch has images of 5 classes.*raise it"):
        _sampled(CosFaceLoss, 3)(torch.randn(5, DIM), torch.arange(5))


@pytest.mark.parametrize("name", ["TripletMarginLoss", "SubCenterArcFaceLoss", "SoftTripleLoss"])
def test_other_losses_are_refused(name: str) -> None:
    spec = _spec(loss__name=name, loss__sampled_classes=8)
    with pytest.raises(SpecError, match=rf"train.loss.sampled_classes is set and train.loss.name is {name}"):
        build_criterion(spec, classes=CLASSES, dim=DIM)


@pytest.mark.parametrize("fields", [{"accumulate": 2}, {"num_gpus": 2, "max_gather": False}])
def test_settings_under_which_processes_or_batches_would_differ(fields: dict[str, object]) -> None:
    spec = _spec(loss__name="CosFaceLoss", loss__sampled_classes=8, **fields)
    with pytest.raises(SpecError, match=r"sampled_classes is set and train\."):
        build_criterion(spec, classes=CLASSES, dim=DIM)


@pytest.mark.parametrize(("sampled", "is_sampled"), [(8, True), (CLASSES, False), (None, False)])
def test_the_spec_chooses_it(sampled: int | None, is_sampled: bool) -> None:
    spec = _spec(loss__name="CosFaceLoss", loss__sampled_classes=sampled, miner__name=None)
    criterion = build_criterion(spec, classes=CLASSES, dim=DIM)
    assert isinstance(criterion.loss, SampledProxies) == is_sampled
    means_CD = np.random.default_rng(0).normal(size=(CLASSES, DIM)).astype(np.float32)
    initialize_proxies(criterion, means_CD)
    if is_sampled:
        assert np.array_equal(criterion.loss.get_extra_state()["proxies"].numpy(), means_CD)  # type: ignore[operator]
