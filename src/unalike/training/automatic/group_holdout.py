"""Evaluation without labels: retrieval within discovered groups that were held out.

In each split one part of every held-out group is the query, seen through augmentation, and is looked up among the other
parts. The groups come from the frozen trunk's features, so the result ranks candidates but is no accuracy.
Shape letters: N images, F features, D dimensions, G groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from unalike.data.imageset import ImageSet
from unalike.data.preprocessing import Preprocessing
from unalike.discovery.clustering import ImageGroups
from unalike.errors import DataError
from unalike.inference.embedding import embed_files
from unalike.inference.engine_selection import create_engine, move_to_gpu
from unalike.model.checkpoint import load_embedder
from unalike.model.frozen_trunk import build_starting_trunk
from unalike.progress import say
from unalike.runs.filenames import AUGMENTED_QUERIES_FILE
from unalike.runs.stage import load_or_compute
from unalike.training.automatic.augmented_view import AugmentedView
from unalike.training.automatic.holdout import (
    Holdout,
    Split,
    holdout_splits,
)
from unalike.training.automatic.holdout_result import HoldoutResult, evaluate_embeddings
from unalike.training.automatic.scenes import assign_scenes
from unalike.training.automatic.starting_weights import AS_GIVEN, GivenNetwork
from unalike.training.heads.config import frozen_head_kind, requested_dim
from unalike.training.heads.features import TrunkFeatures
from unalike.training.heads.head_search import FROZEN
from unalike.training.heads.unsupervised import fit_unlabeled_head

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment

# Share of the images to hold out, least number of images of a held-out group, least number of held-out groups.
HOLDOUT_SHARE, MIN_GROUP_SIZE, MIN_GROUPS = 0.2, 4, 4


@dataclass(frozen=True)
class UnlabeledCandidate:
    """A model that training without labels could deliver.

    Attributes:
        name: its name in ``unlabelled.json``.
        result: its results on held-out groups; None where no group could be held out.
        score: ``result.score``; 0 without a result.
        sqrt: whether its whitening by neighbors follows the signed square root of the features; None for the frozen trunk
            and for a trained network.
        given: the network of the user's own weights, which is delivered as it is.
    """

    name: str
    result: HoldoutResult | None
    score: float
    sqrt: bool | None = None
    given: GivenNetwork | None = None


@dataclass(frozen=True)
class GroupHoldout:
    """Held-out groups, and what candidates need to be evaluated on them.

    Attributes:
        images: all images, labeled by group.
        vectors_NF: their frozen features.
        queries_NF: frozen features of the queries seen through augmentation; other rows are 0.
        fit_N: rows that may be fitted to.
        splits: the splits; empty where there are too few groups to hold any out.
        augmented_view: the view of the queries.
        spec: resolved spec of the run.
    """

    images: ImageSet
    vectors_NF: np.ndarray
    queries_NF: np.ndarray
    fit_N: np.ndarray
    splits: Sequence[Split]
    augmented_view: AugmentedView
    spec: Experiment

    @classmethod
    def create(
        cls, images: ImageSet, features: TrunkFeatures, grouping: ImageGroups, spec: Experiment, run: Run, seed: int
    ) -> GroupHoldout:
        """Hold out entire groups, and embed their queries with the frozen trunk.

        Args:
            images: all images, labeled by group.
            features: their frozen features.
            grouping: the discovered groups.
            spec: resolved spec of the run.
            run: its folder keeps the queries' features for a resumed run.
            seed: of the choice of groups and of the augmentation.
        """
        held_out_N = _draw_groups(grouping, seed)
        augmented_view = AugmentedView(images.paths, features.view, seed)
        queries_NF = np.zeros_like(features.vectors_NF)
        splits: list[Split] = []
        if held_out_N.any():
            # Parts are numbered within a group; with its label in their names none spans groups. A group of one part is
            # divided by similarity.
            numbers = list(zip(images.labels_N.tolist(), grouping.subgroup_N.tolist(), strict=True))
            count = Counter(label for label, _ in set(numbers))
            parts = [f"{label} {part}" if count[label] > 1 else "" for label, part in numbers]
            scene_N = assign_scenes(features.vectors_NF, images.labels_N, groups=parts, seed=seed)
            splits = _splits_or_none(images.labels_N, scene_N, held_out_N)
        if not splits:
            held_out_N[:] = False
        else:
            rows = _query_rows(splits)

            def embed_queries() -> dict[str, np.ndarray]:
                trunk = build_starting_trunk(spec, features.backbone, features.preprocessing.input_size)
                return {"vectors": embed_rows(trunk, features.preprocessing, images, rows, augmented_view, spec)}

            key = features.vectors_NF.tobytes() + rows.tobytes() + str(seed).encode()
            queries_NF[rows] = load_or_compute(
                run, run.dir / AUGMENTED_QUERIES_FILE, "augmented queries", key, embed_queries
            )["vectors"]
        return cls(images, features.vectors_NF, queries_NF, np.flatnonzero(~held_out_N), splits, augmented_view, spec)

    def evaluate_heads(self, seed: int) -> list[UnlabeledCandidate]:
        """Evaluate the frozen trunk, and whitening by neighbors of its features and of their square roots."""
        spec = self.spec
        if not self.splits:
            say("too few groups to hold some out: trained candidates could not be evaluated, so none is trained")
            return [UnlabeledCandidate(FROZEN, None, 0.0)]
        dim, kind = requested_dim(spec), frozen_head_kind(spec)
        candidates = []
        for sqrt in (None, *roots_to_try(spec)):
            head = fit_unlabeled_head(self.vectors_NF[self.fit_N], sqrt, seed=seed, dim=dim, kind=kind)
            name = FROZEN if sqrt is None else "whitened by neighbors" + (", square root" if sqrt else "")
            candidates.append(self._evaluate(name, head(self.queries_NF), head(self.vectors_NF), sqrt))
        return candidates

    def evaluate_given(self, start_network: GivenNetwork | None) -> list[UnlabeledCandidate]:
        """Evaluate the network of the user's own weights as it is; no candidate without one."""
        if start_network is None:
            return []
        if not self.splits:
            return [UnlabeledCandidate(AS_GIVEN, None, 0.0, given=start_network)]
        candidate = self._evaluate(
            AS_GIVEN, start_network.vectors(self.queries_NF), start_network.vectors(self.vectors_NF), None
        )
        return [replace(candidate, given=start_network)]

    def evaluate_network(self, name: str, checkpoint: Path) -> UnlabeledCandidate:
        """Evaluate a trained network; only queries and references are embedded.

        Args:
            name: the candidate's name.
            checkpoint: the network.
        """
        embedder, meta = load_embedder(checkpoint)
        preprocessing, query_rows = Preprocessing.from_facts(meta["facts"]), _query_rows(self.splits)
        reference_rows = np.unique(np.concatenate([split.reference_N for split in self.splits]))
        vectors = []
        for rows, view in ((query_rows, self.augmented_view), (reference_rows, preprocessing.view)):
            vectors_ND = np.zeros((len(self.images), embedder.dim), np.float32)
            vectors_ND[rows] = embed_rows(embedder, preprocessing, self.images, rows, view, self.spec)
            vectors.append(vectors_ND)
        return self._evaluate(name, vectors[0], vectors[1], None)

    def _evaluate(
        self, name: str, query_ND: np.ndarray, reference_ND: np.ndarray, sqrt: bool | None
    ) -> UnlabeledCandidate:
        result = evaluate_embeddings(
            self.splits, self.images.labels_N, lambda _, s: (query_ND[s.query_N], reference_ND[s.reference_N])
        )
        return UnlabeledCandidate(name, result, result.score("new-classes"), sqrt)


def roots_to_try(spec: Experiment) -> tuple[bool, ...]:
    """Return for which heads whitening is tried: with the signed square root or without, or both, as ``model.head`` allows."""
    if not spec.is_set("model.head") or spec.model.head == "auto":
        return (False, True)
    return (spec.model.head != "linear",)


def _draw_groups(grouping: ImageGroups, seed: int) -> np.ndarray:
    """Draw groups to hold out, of about ``HOLDOUT_SHARE`` of the images; return a mask (N), empty if there are too few."""
    large_G = np.flatnonzero(grouping.sizes() >= MIN_GROUP_SIZE)
    if len(large_G) < 2 * MIN_GROUPS:
        return np.zeros(len(grouping.group_N), bool)
    order_G = np.random.default_rng([seed, 31]).permutation(large_G)
    enough = int(np.searchsorted(np.cumsum(grouping.sizes()[order_G]), HOLDOUT_SHARE * len(grouping.group_N))) + 1
    return np.isin(grouping.group_N, order_G[: max(MIN_GROUPS, min(enough, len(order_G) // 2))])


def _splits_or_none(labels_N: np.ndarray, scene_N: np.ndarray, held_out_N: np.ndarray) -> list[Split]:
    try:
        return holdout_splits(labels_N, scene_N, Holdout(held_out_N, np.zeros_like(held_out_N)), search_all=False)
    except DataError:  # every held-out group has one part only
        return []


def _query_rows(splits: Sequence[Split]) -> np.ndarray:
    return np.unique(np.concatenate([split.query_N for split in splits]))


def embed_rows(
    network: nn.Module, preprocessing: Preprocessing, images: ImageSet, rows: np.ndarray,
    view: Callable[..., np.ndarray], spec: Experiment,
) -> np.ndarray:  # fmt: skip
    """Embed some of the images.

    Args:
        network: trunk or embedder.
        preprocessing: of the network.
        images: all images.
        rows: which of them; none may be unreadable.
        view: the network's evaluation view, or an augmented one of the same size.
        spec: ``spec.dataset`` holds the number of workers and the limit on pixels.

    Returns:
        One vector per row, float32.
    """
    move_to_gpu(network, "auto")
    engine = create_engine(network, preprocessing, images=len(rows))
    embedded = embed_files(engine, [images.paths[i] for i in rows.tolist()], view, workers=spec.dataset.workers,
                           max_unreadable=0.0, max_pixels=spec.dataset.max_pixels, describe="evaluating")  # fmt: skip
    return embedded.vectors_ND
