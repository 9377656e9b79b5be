"""Catalogs of one image a class: recognized before anything is embedded; candidates are ranked, nothing is stated."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.training.automatic.test_delivery import BACKBONE, NORMALIZATIONS, SPEC, random_trunk
from unalike.data.view import View
from unalike.errors import DataError
from unalike.spec import load_spec
from unalike.training.automatic.single_images import has_second_images, rank_candidates
from unalike.training.heads.features import TrunkFeatures


def test_labels_and_groups_alone_say_whether_anything_can_be_measured() -> None:
    assert not has_second_images(np.arange(9), None, "x")
    assert not has_second_images(np.array([0, 1, 1]), None, "x"), "with a query held out no class has two images"
    assert has_second_images(np.array([0, 0, 1, 1]), None, "x")
    assert has_second_images(np.array([0, 1, 1, 1]), ["a", "", "", ""], "x")
    assert has_second_images(np.array([0, 1, 1, 1]), ["a", "a", "a", "b"], "x")
    with pytest.raises(DataError, match="every class lies in one group"):
        has_second_images(np.array([0, 0, 1, 1]), ["a", "a", "b", "b"], "x")
    with pytest.raises(DataError, match="1 class"):
        has_second_images(np.zeros(4, int), None, "x")


@pytest.mark.parametrize("classes", [2, 3, 5, 40])
@pytest.mark.parametrize("seed", range(4))
def test_candidates_are_ranked_by_views(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features_NF = rng.normal(size=(classes, 12)).astype(np.float32)
    noise_FF = np.diag(np.r_[np.full(3, 6.0), np.full(9, 0.1)])  # what differs between views lies in three directions
    views_NF = (features_NF + rng.normal(size=features_NF.shape) @ noise_FF).astype(np.float32)
    spec = load_spec("train", overrides=[*SPEC, *NORMALIZATIONS["own"]])
    features = TrunkFeatures(
        BACKBONE,
        View(64, 32),
        random_trunk(BACKBONE, (64, 32)).trunk.facts,
        features_NF,
        np.arange(classes),
        1.0,
        mirrored_NF=views_NF,
    )
    candidates = rank_candidates(features, np.arange(classes), spec, seed)
    assert candidates[0].config is None
    if classes == 40:
        assert candidates[1].score > candidates[0].score
