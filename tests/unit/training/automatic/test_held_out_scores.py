"""Scores of held-out images are those of their nearest references, by a loop."""

from __future__ import annotations

import numpy as np

from unalike.training.automatic.held_out_scores import scores_of
from unalike.training.automatic.holdout import Split
from unalike.training.automatic.holdout_result import evaluate_embeddings


def lead_of(cosine: np.ndarray, labels_R: np.ndarray) -> float:
    """Lead of the class of the highest cosine over the best one of another class."""
    others = [value for value, label in zip(cosine, labels_R, strict=True) if label != labels_R[cosine.argmax()]]
    return float(cosine.max() - max(others))


def test_scores_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    vectors_ND, labels_N = rng.normal(size=(60, 8)).astype(np.float32), np.repeat(np.arange(10), 6)
    unit = vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    known = Split("known", np.arange(40), np.arange(0, 60, 2), np.arange(1, 60, 6))
    new = Split("new", np.arange(40), np.arange(0, 60, 2), np.arange(49, 60, 2))
    splits = [known, new, known]  # a query of two repeats counts once
    result = evaluate_embeddings(
        splits, labels_N, lambda _, s: (vectors_ND[s.query_N], vectors_ND[s.reference_N]), with_images=True
    )
    scores = scores_of(result)
    assert len(scores["known"]["score"]) == len(known.query_N)
    for place, q in enumerate(known.query_N):
        cosine = unit[known.reference_N] @ unit[q]
        best = int(cosine.argmax())
        assert abs(scores["known"]["score"][place] - cosine[best]) < 1e-4
        assert abs(scores["known"]["lead"][place] - lead_of(cosine, labels_N[known.reference_N])) < 1e-4
        assert scores["known"]["right"][place] == bool(labels_N[known.reference_N[best]] == labels_N[q])
    for place, q in enumerate(new.query_N):
        cosine = np.where(labels_N[new.reference_N] == labels_N[q], -2, unit[new.reference_N] @ unit[q])
        assert abs(scores["unknown"]["score"][place] - cosine.max()) < 1e-4
        assert abs(scores["unknown"]["lead"][place] - lead_of(cosine, labels_N[new.reference_N])) < 1e-4
        assert scores["unknown"]["matched"][place] == labels_N[new.reference_N[cosine.argmax()]]
    known_alone = evaluate_embeddings(
        [known], labels_N, lambda _, s: (vectors_ND[s.query_N], vectors_ND[s.reference_N]), with_images=True
    )
    assert "unknown" not in scores_of(known_alone)
