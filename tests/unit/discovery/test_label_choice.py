"""Choice of what to label next: beside a plain loop, what it covers, and where it goes once classes are known."""

from __future__ import annotations

import numpy as np
import pytest

from unalike.discovery import label_choice
from unalike.discovery.label_choice import (
    LABEL_WEIGHT,
    MARGIN_SCALE,
    TYPICAL_NEIGHBORS,
    UNLABELED,
    LabelChooser,
    class_margins,
)
from unalike.errors import UnalikeError


def clusters(count: int, size: int, *, noise: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around random directions, with the number of each."""
    rng = np.random.default_rng(seed)
    class_N = np.repeat(np.arange(count), size)
    vectors = rng.normal(size=(count, 24))[class_N] + noise * rng.normal(size=(len(class_N), 24))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), class_N


def plain_margins(vectors_ND: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Margins by a loop over images and classes."""
    margins = []
    for vector in vectors_ND:
        best = sorted(
            max(float(vector @ other) for other in vectors_ND[labels_N == label])
            for label in set(labels_N.tolist()) - {UNLABELED}
        )
        margins.append(best[-1] - best[-2] if len(best) > 1 else 0.0)
    return np.array(margins)


def assert_highest_averages(chooser: LabelChooser, labels_N: np.ndarray, choice: list[int]) -> None:
    """Each choice lies in a cluster of the highest average, and no other image there is worth more; rounding decides ties."""
    labeled = labels_N != UNLABELED
    group = chooser.dendrogram.cut(len(labels_N) - int(labeled.sum()) - len(choice))
    weight = (
        np.exp(-plain_margins(chooser.unit_ND, labels_N) / MARGIN_SCALE) if labeled.any() else np.ones(len(labels_N))
    )
    former, labeled = labeled, labeled.copy()
    for image in choice:
        averages = [
            weight[group == g].sum() / (1 + LABEL_WEIGHT * labeled[group == g].sum())
            if (~labeled[group == g]).any()
            else -1.0
            for g in range(group.max() + 1)
        ]
        assert averages[group[image]] >= max(averages) - 1e-5 and not labeled[image]
        own = np.flatnonzero(group == group[image])
        repelling = np.flatnonzero(former | (labeled & (group == group[image]))) if labeled[own].any() else []
        values = {}
        for other in own[~labeled[own]].tolist():
            cosines = np.delete(chooser.unit_ND @ chooser.unit_ND[other], other)
            near = max([0.0, *(float(chooser.unit_ND[other] @ chooser.unit_ND[n]) for n in repelling)])
            values[other] = float(np.sort(cosines)[::-1][:TYPICAL_NEIGHBORS].mean()) * (1 - near)
        assert values[image] >= max(values.values()) - 1e-5
        labeled[image] = True


@pytest.mark.parametrize("labeled", [0, 1, 7, 40])
def test_as_a_plain_loop_chooses(labeled: int) -> None:
    vectors, class_N = clusters(6, 12, seed=labeled)
    labels = np.full(len(vectors), UNLABELED)
    rows = np.random.default_rng(labeled).permutation(len(vectors))[:labeled]
    labels[rows] = class_N[rows]
    chooser = LabelChooser(vectors)
    choice = chooser.choose(labels, 15).tolist()
    assert len(set(choice)) == 15 and not set(choice) & set(rows.tolist())
    assert_highest_averages(chooser, labels, choice)


def test_margins_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, class_N = clusters(5, 20)
    labels = np.where(np.random.default_rng(3).random(len(vectors)) < 0.4, class_N * 10, UNLABELED)
    expected = plain_margins(vectors, labels)
    monkeypatch.setattr(label_choice, "BLOCK_NUMBERS", 100)  # two or three images at a time
    assert np.allclose(class_margins(vectors, labels), expected, atol=1e-5)
    assert not class_margins(vectors, np.where(labels == 10, 10, UNLABELED)).any()  # one class: nothing to tell apart


def test_first_images_are_of_different_things() -> None:
    vectors, class_N = clusters(12, 25)
    first = LabelChooser(vectors).choose(np.full(len(vectors), UNLABELED), 12)
    assert len(set(class_N[first].tolist())) == 12
    at_random = [len(set(class_N[np.random.default_rng(s).permutation(300)[:12]].tolist())) for s in range(20)]
    assert np.mean(at_random) < 9


def test_labels_lead_to_where_classes_meet() -> None:
    """Of two clusters that are equally large, the one that lies between two classes is asked about first."""
    rng = np.random.default_rng(5)
    axes = np.eye(8)
    between, apart = axes[0] + axes[1], axes[2] + 0.9 * axes[3]
    spread = 0.05 * rng.normal(size=(20, 8))
    vectors = np.array([axes[0], axes[1], axes[2], *(between + spread), *(apart + spread)])
    labels = np.array([0, 1, 2, *[UNLABELED] * 40])
    for order in (np.arange(43), np.r_[0:3, 23:43, 3:23]):  # whichever comes first
        choice = LabelChooser(vectors[order]).choose(labels, 1)[0]
        assert order[choice] in range(3, 23)


def test_limits() -> None:
    vectors, class_N = clusters(3, 4)
    chooser, nothing = LabelChooser(vectors), np.full(12, UNLABELED)
    assert len(chooser.choose(nothing, 0)) == 0
    assert sorted(chooser.choose(nothing, 50).tolist()) == list(range(12))
    assert len(chooser.choose(class_N, 5)) == 0
    only = np.arange(12) % 4 == 1
    assert sorted(chooser.choose(nothing, 5, candidate_N=only).tolist()) == [1, 5, 9]
    assert len(LabelChooser(np.zeros((0, 4))).choose(np.zeros(0, int), 3)) == 0
    for labels, count in ((nothing, -1), (nothing[:5], 1)):
        with pytest.raises(UnalikeError, match="12 images"):
            chooser.choose(labels, count)


def test_the_same_input_gives_the_same_choice() -> None:
    features, _ = clusters(8, 30, seed=4)
    choices = [LabelChooser.fit(features, seed=1).choose(np.full(240, UNLABELED), 30).tolist() for _ in range(2)]
    assert choices[0] == choices[1] and len(set(choices[0])) == 30


def test_fitted_vectors_give_the_margins() -> None:
    vectors, class_N = clusters(4, 10, seed=6)
    labels = np.full(40, UNLABELED)
    labels[::10] = class_N[::10]
    fitted = np.random.default_rng(1).normal(size=(40, 5))
    chooser = LabelChooser(vectors)
    assert chooser.choose(labels, 20, fitted_ND=fitted).tolist() != chooser.choose(labels, 20).tolist()
    assert chooser.choose(labels, 20, fitted_ND=vectors).tolist() == chooser.choose(labels, 20).tolist()
