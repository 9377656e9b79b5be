"""Every loss and miner of pytorch-metric-learning by its name; wrong names and parameters in one line."""

import numpy as np
import pytest
import torch

from tests.support.tiny import spec
from unalike.errors import SpecError, TrainingError
from unalike.training import losses
from unalike.training.losses import (
    Criterion,
    build_criterion,
    build_loss,
    build_miner,
    loss_names,
    miner_names,
)


def batch(classes=6, per_class=4, dim=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(per_class)
    return torch.randn(len(labels), dim, generator=generator, requires_grad=True), labels


@pytest.mark.parametrize("name", loss_names())
def test_every_loss_gives_a_finite_number_and_gradient(name):
    torch.manual_seed(0)
    vectors, labels = batch()
    parameters = {"RankedListLoss": {"margin": 0.4, "Tn": 1}, "ManifoldLoss": {"K": 6}}.get(name, {})
    loss = Criterion(build_loss(name, parameters, classes=6, dim=16), None)
    value = loss(vectors, labels)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(vectors.grad).all()


@pytest.mark.parametrize("name", miner_names())
def test_every_miner_feeds_the_triplet_loss(name):
    torch.manual_seed(0)
    vectors, labels = batch()
    value = Criterion(build_loss("TripletMarginLoss", {}, classes=6, dim=16), build_miner(name, {}))(vectors, labels)
    assert torch.isfinite(value)


def test_tao_keys_feed_the_two_defaults_and_explicit_parameters_win():
    criterion = build_criterion(
        spec(train__optim__triplet_loss_margin=0.7, train__smooth_loss=False), classes=6, dim=16
    )
    assert criterion.loss.margin == 0.7 and not criterion.loss.smooth_loss and criterion.miner.epsilon == 0.1
    changed = spec()
    changed.train.loss.parameters = {"margin": 0.9}
    assert build_criterion(changed, classes=6, dim=16).loss.margin == 0.9


def test_triplet_loss_against_a_plain_loop():
    vectors, labels = batch(3, 3, 4, seed=1)
    unit = torch.nn.functional.normalize(vectors.detach())
    distance = torch.cdist(unit, unit)
    terms = [
        torch.relu(distance[a, p] - distance[a, n] + 0.3)
        for a in range(9) for p in range(9) for n in range(9)
        if a != p and labels[a] == labels[p] and labels[a] != labels[n]
    ]  # fmt: skip
    active = [t for t in terms if t > 0]
    ours = build_loss("TripletMarginLoss", {"margin": 0.3}, classes=3, dim=4)(vectors, labels)
    assert ours.item() == pytest.approx(float(sum(active) / len(active)), rel=1e-5)


@pytest.mark.parametrize(
    "name, parameters, message",
    [
        ("TripletMarginLos", {}, "TripletMarginLoss"),
        ("CosFaceLoss", {"margn": 0.1}, "margin"),
        ("CosFaceLoss", {"num_classes": 3}, "come from the data"),
        ("CircleLoss", {"num_classes": 3}, "train.loss"),
        ("MarginLoss", {"foo": 1}, "no such parameter"),
        ("MarginLoss", {"num_classes": 3}, "come from the data"),
        ("CosFaceLoss", {"margin": "a"}, "CosFaceLoss refuses"),
        ("CosFaceLoss", {"margin": float("nan")}, "not finite"),
        ("TripletMarginLoss", {"distance": "LpDistance"}, "no such parameter"),
        ("TripletMarginLoss", {"embedding_reg_weight": 1.0}, "no such parameter"),
        ("CosFaceLoss", {"weight_reg_weight": 1.0}, "no such parameter"),
        ("ContrastiveLoss", {"pos_margin": [1]}, "ContrastiveLoss refuses"),
        ("ArcFaceLoss", {"scale": None}, "ArcFaceLoss refuses"),
        ("PNPLoss", {"variant": "zz"}, "PNPLoss refuses"),
        ("MultiSimilarityLoss", {"alpha": {}}, "MultiSimilarityLoss refuses"),
    ],
)
def test_wrong_names_and_parameters_say_the_remedy(name, parameters, message):
    with pytest.raises(SpecError, match=message):
        build_loss(name, parameters, classes=3, dim=4)


@pytest.mark.parametrize(("name", "parameters"), [("MultiSimilarityMiner", {"epsilon": "a"}), ("TripletMarginMiner", {"margin": "a"}),
                                                  ("PairMarginMiner", {"pos_margin": []})])  # fmt: skip
def test_wrong_parameters_of_miners_are_refused(name, parameters):
    with pytest.raises(SpecError, match=f"{name} refuses"):
        build_miner(name, parameters)


def test_trying_parameters_out_leaves_random_numbers_alone():
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    build_loss("TripletMarginLoss", {"margin": 0.2}, classes=3, dim=4)
    build_miner("TripletMarginMiner", {"margin": 0.2})
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize(
    ("name", "labels", "message"),
    [("ManifoldLoss", torch.arange(8).repeat_interleave(2), "batch of 16 images of 8 classes.*K, which is 50"),
     ("NCALoss", torch.arange(8), "two or more images of a class"),
     ("SmoothAPLoss", torch.tensor([0, 0, 1, 2, 3, 3, 4, 5]), "as many images of each class")],
)  # fmt: skip
def test_a_batch_that_a_loss_cannot_use_says_what_it_needs(name, labels, message):
    criterion = Criterion(build_loss(name, {}, classes=8, dim=16), None)
    with pytest.raises(TrainingError, match=message):
        criterion(torch.randn(len(labels), 16, requires_grad=True), labels)


def test_miner_may_be_absent_and_misspelt_miner_is_refused():
    assert build_miner(None, {}) is None
    with pytest.raises(SpecError, match="MultiSimilarityMiner"):
        build_miner("MultiSimilarity", {})


class CenterLoss(torch.nn.Module):
    """A loss of one's own: squared distance to a center for each class."""

    def __init__(self, num_classes, embedding_size, scale=1.0):
        super().__init__()
        self.scale, self.proxies = scale, torch.nn.Parameter(torch.zeros(num_classes, embedding_size))

    def forward(self, vectors, labels, mined=None):
        return self.scale * (vectors - self.proxies[labels]).square().sum(dim=1).mean()


def test_one_entry_in_the_registry_adds_a_loss(monkeypatch):
    monkeypatch.setitem(losses.LOSSES, "CenterLoss", CenterLoss)
    assert "CenterLoss" in loss_names() and losses.has_parameters("CenterLoss")
    changed = spec()
    changed.train.loss.name, changed.train.loss.parameters = "CenterLoss", {"scale": 2.0}
    vectors, labels = batch()
    value = build_criterion(changed, classes=6, dim=16)(vectors, labels)
    assert value.item() == pytest.approx(2.0 * vectors.square().sum(dim=1).mean().item())
    with pytest.raises(SpecError, match="scale"):
        build_loss("CenterLoss", {"scal": 2.0}, classes=6, dim=16)
