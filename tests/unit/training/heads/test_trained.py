"""Heads that a loss trains on frozen features: where they begin, that they learn, that they repeat, that they stop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from unalike.metrics.knn import unit
from unalike.model.backbones import build_trunk
from unalike.model.embedder import MLPHead
from unalike.training.automatic.candidates import FINE_TUNED, INTERPOLATED, Candidate, select_best
from unalike.training.automatic.holdout import HoldoutResult, assign_scenes, cross_validation_splits
from unalike.training.automatic.pipeline import candidates_to_evaluate
from unalike.training.heads import search as frozen_heads
from unalike.training.heads.config import HEAD_TRAININGS, HeadConfig, HeadTraining
from unalike.training.heads.discriminant import FittedHead, fit_whitening, sqrt_features
from unalike.training.heads.interpolation import attach_head
from unalike.training.heads.search import HeadSearchSpace, HeadTrial, search_heads, search_trained_heads
from unalike.training.heads.trained import fit_head, train_head
from unalike.training.losses import build_loss


@pytest.fixture(scope="module")
def sample() -> tuple[np.ndarray, np.ndarray]:
    """Features of ten classes, numbered 3, 5, 7, ..., that noise in a few loud directions drowns."""
    draw = np.random.default_rng(2)
    labels = 2 * np.repeat(np.arange(10), 16) + 3
    loud = draw.normal(size=(4, 24))
    features = draw.normal(size=(10, 24))[labels // 2 - 1] + draw.normal(size=(160, 4)) @ loud
    return (features + 0.5 * draw.normal(size=features.shape)).astype(np.float32), labels


def closed(sample: tuple[np.ndarray, np.ndarray], residual: float = 0.25) -> FittedHead:
    return fit_whitening(*sample, sqrt=True).head(residual)


@pytest.mark.parametrize("family", HEAD_TRAININGS, ids=lambda f: f.name)
def test_it_begins_at_the_closed_form(sample: tuple[np.ndarray, np.ndarray], family: HeadTraining) -> None:
    head = closed(sample)
    begun = train_head(head, *sample, family, epochs=0)
    cosines = [unit(h(sample[0])) @ unit(h(sample[0])).T for h in (head, begun)]
    np.testing.assert_allclose(*cosines, atol=1e-4)


@pytest.mark.parametrize("family", HEAD_TRAININGS, ids=lambda f: f.name)
def test_it_learns_repeats_and_leaves_the_global_numbers_alone(
    sample: tuple[np.ndarray, np.ndarray], family: HeadTraining
) -> None:
    before = torch.get_rng_state()
    first, second, other = (train_head(closed(sample), *sample, family, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(first.matrix_FD, second.matrix_FD)
    assert not np.array_equal(first.matrix_FD, other.matrix_FD)
    assert (first.mlp is not None) == family.mlp
    if first.mlp is not None and second.mlp is not None:
        np.testing.assert_array_equal(first.mlp.up_HF, second.mlp.up_HF)
        assert first.mlp.up_HF.any() and first.kind == "mlp"
    if (
        family.loss == "MultiSimilarityLoss"
    ):  # the one that holds no class directions: its value depends on the vectors alone
        measure, labels = build_loss(family.loss, {}, classes=10, dim=1), torch.from_numpy(sample[1])
        values = [float(measure(torch.from_numpy(h(sample[0])), labels)) for h in (closed(sample), first)]
        assert values[1] < values[0]


def test_its_first_step_is_the_gradient_s(sample: tuple[np.ndarray, np.ndarray]) -> None:
    """Adam's first step moves each weight by the rate against its gradient's sign; the gradient by finite differences."""
    head, labels = closed(sample, residual=0.0), sample[1]
    one = train_head(head, sample[0][:100], labels[:100], HeadTraining("MultiSimilarityLoss"), epochs=1)
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(100, (100,), generator=draw)
    inputs = sqrt_features(sample[0][:100]).astype(np.float32)
    noise = torch.randn((100, 24), generator=draw).numpy()
    x = torch.from_numpy(inputs[rows.numpy()] + 0.3 * inputs.std(0, ddof=1) * noise).double()
    scale = 1 / np.linalg.norm(head(sample[0][:100]), axis=1).mean()
    weight = torch.from_numpy(head.matrix_FD.T * scale).double()
    measure, y = build_loss("MultiSimilarityLoss", {}, classes=10, dim=1), torch.from_numpy(labels[:100])[rows]

    def value(w: torch.Tensor) -> float:
        return float(measure(x @ w.T - torch.from_numpy(head.offset_D * scale), y))

    moved = one.matrix_FD.T - (weight.numpy() * (1 - 1e-4 * 0.01))
    for d, f in ((0, 0), (1, 5), (3, 20)):
        up, down = weight.clone(), weight.clone()
        up[d, f] += 1e-5
        down[d, f] -= 1e-5
        assert np.sign(value(up) - value(down)) == -np.sign(moved[d, f])
        assert abs(moved[d, f]) == pytest.approx(1e-4, rel=0.05)


def test_the_search_tries_each_family_and_its_trial_can_be_fitted_again(
    sample: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = sample
    rounds = cross_validation_splits(labels, assign_scenes(features, labels), "both")
    form = HeadConfig(True, 0.3, 2.0)
    best = next(t for t in search_heads(features, labels, rounds, "both") if t.config == form)
    trials = search_trained_heads(best, features, labels, rounds, "both", seconds=600)
    assert [t.config for t in trials] == [replace(form, training=family) for family in HEAD_TRAININGS]
    assert [t.name for t in trials] == [f"{best.name}, trained with {family.name}" for family in HEAD_TRAININGS]
    assert best.name == "discriminant head, residual 0.3, shrinkage x 2, square root"
    again = fit_head(features, labels, replace(form, training=HEAD_TRAININGS[0]))
    direct = train_head(
        fit_whitening(features, labels, sqrt=True, shrinkage=2.0).head(0.3), features, labels, HEAD_TRAININGS[0]
    )
    np.testing.assert_array_equal(again.matrix_FD, direct.matrix_FD)
    assert search_trained_heads(best, features, labels, rounds, "both", seconds=0) == []
    clock = iter(range(10**6))
    monkeypatch.setattr(frozen_heads.time, "monotonic", lambda: float(next(clock)))
    assert len(search_trained_heads(best, features, labels, rounds, "both", seconds=3 * len(rounds))) < len(
        HEAD_TRAININGS
    )


def test_a_perceptron_wants_the_square_root(sample: tuple[np.ndarray, np.ndarray]) -> None:
    rounds = cross_validation_splits(sample[1], assign_scenes(*sample), "both")
    plain = search_heads(*sample, rounds, "both", space=HeadSearchSpace(sqrt=(False,)))[1]
    trials = search_trained_heads(plain, *sample, rounds, "both", seconds=600)
    assert [t.config and t.config.training for t in trials] == [f for f in HEAD_TRAININGS if not f.mlp]


def test_the_network_computes_what_the_trained_head_does(sample: tuple[np.ndarray, np.ndarray]) -> None:
    trunk = build_trunk("resnet10t", pretrained="false", input_size=(32, 32))
    draw = np.random.default_rng(4)
    features = draw.normal(size=(60, trunk.width)).astype(np.float32)
    labels = np.repeat(np.arange(6), 10)
    family = next(f for f in HEAD_TRAININGS if f.mlp)
    head = train_head(fit_whitening(features, labels, sqrt=True).head(0.5, 16), features, labels, family)
    network = attach_head(trunk, head)
    assert isinstance(network.head, MLPHead)
    with torch.inference_mode():
        found = network.head(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(found, head(features), atol=1e-4 * np.abs(found).max())
    assert head.mlp is not None
    straight = replace(head, mlp=None)(features)
    assert np.abs(found - straight).max() > 1e-3 * np.abs(found).max()


def verdict(hits: list[float], precisions: list[float], kind: str = "known") -> HoldoutResult:
    zeros = np.zeros(len(hits), int)
    return HoldoutResult(np.array([kind] * len(hits)), np.array(hits), np.array(precisions), zeros)


def trial(v: HoldoutResult, goal: str, family: HeadTraining | None = None) -> HeadTrial:
    return HeadTrial(HeadConfig(training=family), v, v.score(goal))


def many(right: float, precision: float, kind: str = "known") -> HoldoutResult:
    return verdict((np.arange(200) < 200 * right).astype(float).tolist(), [precision] * 200, kind)


def test_what_is_no_better_at_the_nearest_neighbour_is_not_taken() -> None:
    goal = "known-classes"
    closed, better = trial(many(0.5, 0.4), goal), trial(many(0.6, 0.4), goal, HEAD_TRAININGS[0])
    costly = trial(many(0.45, 0.9), goal, HEAD_TRAININGS[0])  # average precision for the nearest neighbour
    little, worse = (
        trial(many(0.505, 0.9), goal, HEAD_TRAININGS[0]),
        trial(many(0.6, 0.39), goal, HEAD_TRAININGS[0]),
    )
    assert costly.score > better.score > closed.score
    assert better.beats(closed, goal) and not any(t.beats(closed, goal) for t in (costly, little, worse, closed))
    raw, other = HeadTrial(None, closed.result, 0.0), trial(closed.result, goal)
    assert candidates_to_evaluate([raw, closed, other], [costly, better], None, goal) == [
        None,
        closed.config,
        better.config,
    ]
    assert candidates_to_evaluate([raw, closed, other], [costly], None, goal) == [None, closed.config]
    assert candidates_to_evaluate([raw, closed], [], HEAD_TRAININGS[1], goal) == [
        None,
        HeadConfig(training=HEAD_TRAININGS[1]),
    ]
    assert candidates_to_evaluate([raw], [], None, goal) == [None]


def test_both_kinds_count_where_both_are_asked_for() -> None:
    def both(new: HoldoutResult, known: HoldoutResult) -> HoldoutResult:
        return HoldoutResult(
            *(
                np.concatenate([getattr(p, f) for p in (new, known)])
                for f in ("kind_Q", "hit_Q", "precision_Q", "label_Q")
            )
        )

    closed = both(many(0.5, 0.5, "new"), many(0.5, 0.5))
    other = both(many(0.4, 0.5, "new"), many(0.9, 0.5))
    assert trial(other, "known-classes").beats(trial(closed, "known-classes"), "known-classes")
    assert trial(other, "both").score > trial(closed, "both").score
    assert not trial(other, "both").beats(trial(closed, "both"), "both")


def test_a_network_as_it_ended_must_be_clearly_better_than_blended() -> None:
    goal, draw = "known-classes", np.random.default_rng(0)
    base = (draw.random(200) < 0.5).astype(float)
    better = np.where(np.arange(200) < 40, 1.0, base)  # many more right
    little = base.copy()
    little[np.flatnonzero(base == 0)[0]] = 1.0  # one more right: chance

    def candidate(name: str, hits: np.ndarray) -> Candidate:
        found = verdict(hits.tolist(), hits.tolist())
        return Candidate(name, found, found.score(goal))

    frozen, mixed = candidate("frozen trunk", np.zeros(200)), candidate(INTERPOLATED, base)
    for hits, chosen in ((little, INTERPOLATED), (better, FINE_TUNED), (np.zeros(200), INTERPOLATED)):
        assert select_best([frozen, candidate(FINE_TUNED, hits), mixed], goal).name == chosen
    assert select_best([frozen, candidate(FINE_TUNED, little)], goal).name == FINE_TUNED  # nothing was blended
    worse = candidate(INTERPOLATED, np.zeros(200))
    high = candidate("a head", base)
    assert select_best([frozen, high, candidate(FINE_TUNED, better), worse], goal).name == FINE_TUNED
