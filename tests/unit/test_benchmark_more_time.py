"""The candidates that `benchmarks/more_time.py` compares: their vectors, the rules of choice and the summary."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from tests.support.paths import ROOT
from unalike.numerics.normalization import l2_normalize
from unalike.training.automatic.holdout_result import HoldoutResult
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.trained import fit_head

BENCHMARKS = ROOT / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="only in the repository")
CONFIG, FIT_N = HeadConfig(residual=0.5), np.arange(40)


@pytest.fixture(scope="module")
def more_time() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("more_time")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def drawn() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features of 60 images by name, and their labels."""
    rng, labels_N = np.random.default_rng(0), np.arange(60) % 5
    means_CF = rng.normal(size=(5, 12))
    names = ("own", "mirror", "frozen", "second", "epochs")
    return {n: (means_CF[labels_N] + rng.normal(size=(60, 12))).astype(np.float32) for n in names}, labels_N


def cosines(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Cosines of all queries to all references."""
    query_ND, reference_ND = map(l2_normalize, pair)
    values: np.ndarray = query_ND @ reference_ND.T
    return values


def test_the_base_is_the_fitted_head(more_time: ModuleType, drawn: tuple[dict[str, np.ndarray], np.ndarray]) -> None:
    features, labels_N = drawn
    pair = more_time.compute_vectors(more_time.CANDIDATES["base"], features, labels_N, FIT_N, CONFIG)
    vectors_ND = fit_head(features["own"][FIT_N], labels_N[FIT_N], CONFIG)(features["own"])
    assert np.allclose(pair[0], l2_normalize(vectors_ND), atol=1e-6) and np.allclose(*pair, atol=1e-6)


def test_views_of_references_leave_queries_as_they_are(
    more_time: ModuleType, drawn: tuple[dict[str, np.ndarray], np.ndarray]
) -> None:
    features, labels_N = drawn

    def compute(name: str, features: dict[str, np.ndarray] = features) -> tuple[np.ndarray, np.ndarray]:
        pair: tuple[np.ndarray, np.ndarray] = more_time.compute_vectors(
            more_time.CANDIDATES[name], features, labels_N, FIT_N, CONFIG
        )
        return pair

    base, references, both = compute("base"), compute("references mirrored"), compute("mirrored")
    head = fit_head(features["own"][FIT_N], labels_N[FIT_N], CONFIG)
    expected_ND = l2_normalize(l2_normalize(head(features["own"])) + l2_normalize(head(features["mirror"])))
    assert np.array_equal(references[0], base[0]) and np.allclose(references[1], expected_ND, atol=1e-6)
    assert np.array_equal(both[0], references[1]) and np.array_equal(both[1], references[1])
    unchanged = compute("references mirrored", {**features, "mirror": features["own"]})
    assert np.allclose(cosines(unchanged), cosines(base), atol=1e-5)
    fitted_to_both = compute("references mirrored, fitted to both")
    assert not np.allclose(cosines(fitted_to_both), cosines(references), atol=1e-2)


def test_the_cosine_of_two_heads_is_the_mean_of_both(
    more_time: ModuleType, drawn: tuple[dict[str, np.ndarray], np.ndarray]
) -> None:
    features, labels_N = drawn
    single = [
        cosines(more_time.compute_vectors(more_time.CANDIDATES[n], features, labels_N, FIT_N, CONFIG))
        for n in ("base", "frozen trunk")
    ]
    two = more_time.compute_vectors(more_time.CANDIDATES["with frozen, two heads"], features, labels_N, FIT_N, CONFIG)
    assert np.allclose(cosines(two), np.mean(single, axis=0), atol=1e-5)
    joined = more_time.join_features(features)
    assert set(joined) == {*features, "own+frozen", "own+second"} and joined["own+frozen"].shape == (60, 24)
    assert np.allclose(np.linalg.norm(joined["own+frozen"], axis=1), 2**0.5, atol=1e-5)


def test_weights_are_averaged_but_for_counters(more_time: ModuleType) -> None:
    torch = pytest.importorskip("torch")
    weights = [
        {"a": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)},
        {"a": torch.tensor([3.0, 6.0]), "n": torch.tensor(5)},
    ]
    average = more_time.average_weights(weights)
    assert average["a"].tolist() == [2.0, 4.0] and average["n"].item() == 5


def test_a_rule_takes_the_base_where_nothing_is_better(more_time: ModuleType) -> None:
    label_Q, kind_Q = np.arange(80) // 4, np.full(80, "known")

    def result(hits: int) -> HoldoutResult:
        hit_Q = (np.arange(80) % 4 < hits).astype(float)
        return HoldoutResult(kind_Q, hit_Q, hit_Q, label_Q)

    slightly = result(2)
    slightly.hit_Q[2] = 1.0
    chosen = more_time.choose(
        {"base": result(2), "larger 256": slightly, "larger 336": result(1), "averaged": result(3)}, "known-classes"
    )
    assert chosen["score of size"] == "larger 256" and chosen["clear of size"] == "base"
    assert chosen["score of all"] == chosen["clear of weights"] == chosen["clear of all"] == "averaged"
    assert chosen["score of references"] == "base"


def test_the_summary_counts_gains_ranks_and_losses(more_time: ModuleType) -> None:
    def row(name: str, value: float, low: float, high: float, **flags: bool) -> dict[str, object]:
        gain = {"gain": {"value": value, "low": low, "high": high, **flags}}
        even = {"gain": {"value": 0.0, "low": 0.0, "high": 0.0}}
        return {"set": name, "candidate": "new", "development": {"R@1": gain, "MAP@R": even}}

    rows = [row("a", 3.0, 1, 5), row("b", -1.0, -2, -0.5), row("c", 1.0, -0.5, 2), row("d", -2.0, -3, -1, too_few=True)]
    (line,) = more_time.summarize([{**rows[0], "candidate": "base"}, *rows])
    assert line == (
        "new: R@1 +0.25, MAP@R +0.00 over 4 sets, rank 1.50 beside 1.50 of the base; higher: a R@1; lower: b R@1"
    )
