"""Heads are fitted anew for each choice of images; networks are evaluated through the command line (tests/flow)."""

from __future__ import annotations

import numpy as np

from tests.support.series import images_and_features
from unalike.training.automatic.final_choice import evaluate_heads
from unalike.training.automatic.holdout import pooled_splits
from unalike.training.heads.config import HeadConfig
from unalike.training.heads.head_search import FROZEN
from unalike.training.heads.trained import fit_head


def test_a_head_is_fitted_to_the_images_of_its_split_alone() -> None:
    images, features = images_and_features(4)
    labels, config = images.labels_N, HeadConfig(True, 0.5)
    splits = pooled_splits(features.vectors_NF, labels, "known-classes")
    frozen, head = evaluate_heads([None, config], features, labels, splits, "known-classes")
    assert (frozen.name, head.name) == (FROZEN, config.name) and head.config is config
    place = 0
    for split in splits:
        if not split.leave_one_out:
            vectors = fit_head(features.vectors_NF[split.fit_N], labels[split.fit_N], config)(features.vectors_NF)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            nearest = split.reference_N[(vectors[split.query_N] @ vectors[split.reference_N].T).argmax(axis=1)]
            assert head.result.lookups is not None
            assert np.array_equal(head.result.lookups.nearest_Q[place : place + len(split.query_N)], nearest)
        place += len(split.query_N)
    assert place == len(head.result.hit_Q)
