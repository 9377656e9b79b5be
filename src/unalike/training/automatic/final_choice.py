"""Candidates of automatic training: heads, fine-tuned networks and the user's own, evaluated on held-out images.

Shape letters: N images, D dimensions of the vector, F features.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.inference.embedding import Embeddings
from unalike.model.backbones import Trunk
from unalike.model.checkpoint import load_embedder
from unalike.model.embedder import Embedder
from unalike.model.frozen_trunk import build_starting_trunk
from unalike.training.automatic.holdout import Split
from unalike.training.automatic.holdout_result import HoldoutResult, evaluate_embeddings
from unalike.training.automatic.larger_inputs import larger_views, relative_cost
from unalike.training.automatic.starting_weights import AS_GIVEN, GivenNetwork
from unalike.training.heads.config import HeadConfig, requested_dim
from unalike.training.heads.discriminant import ClassScatter, fit_scatter
from unalike.training.heads.features import TrunkFeatures
from unalike.training.heads.head_search import FROZEN, evaluate_vectors
from unalike.training.heads.interpolation import embed_with_trunk, interpolate_weights, refit_head
from unalike.training.heads.label_weights import label_weights
from unalike.training.heads.trained import fit_head
from unalike.training.trainer import TrainingResult

if TYPE_CHECKING:
    from unalike.spec import Experiment

# Names of the fine-tuned candidates in automatic.json.
FINE_TUNED, INTERPOLATED = "fine-tuned", "fine-tuned, blended, head fitted anew"
LARGER = INTERPOLATED + ", {height}x{width} px at {cost:.1f} times the cost of an image"


@dataclass(frozen=True)
class TunedTrunk:
    """A fine-tuned trunk and its features of all images.

    Attributes:
        trunk: the trunk, with its final or its interpolated weights.
        features: one row per image; the rows of the mirror images follow if ``mirrored``.
        view: the evaluation view that they were computed with.
        mirrored: whether a head is fitted to the mirror images too.
    """

    trunk: Trunk
    features: Embeddings
    view: View
    mirrored: bool = False

    @property
    def image_count(self) -> int:
        """Number of rows that are not of mirror images."""
        return len(self.features.kept_N) // (2 if self.mirrored else 1)


@dataclass(frozen=True)
class Candidate:
    """A model that automatic training could deliver.

    Attributes:
        name: its name in ``automatic.json``.
        result: its results on the held-out images.
        score: ``result.score`` for the goal.
        config: how its head is fitted, or None where the head is not a fitted one.
        vectors_ND: vectors of all images, by the first head where several were fitted; valid in the rows that were
            evaluated, and up to a rotation.
        tuned: the trunk, of a fine-tuned candidate.
        given: the network of the user's own weights, which is delivered as it is.
    """

    name: str
    result: HoldoutResult
    score: float
    config: HeadConfig | None = None
    vectors_ND: np.ndarray | None = None
    tuned: TunedTrunk | None = None
    given: GivenNetwork | None = None

    @property
    def is_larger(self) -> bool:
        """Whether it is the fine-tuned network on larger images than those of fine-tuning."""
        return self.name.startswith(LARGER.split("{")[0])


def evaluate_given(
    start_network: GivenNetwork | None, features: TrunkFeatures, labels_N: np.ndarray, splits: Sequence[Split],
    goal: str, *, with_images: bool = True,
) -> list[Candidate]:  # fmt: skip
    """Evaluate the network of the user's own weights as it is.

    Args:
        start_network: the network; None gives no candidate.
        features: its trunk's features of all images.
        labels_N: their labels.
        splits: the holdout splits.
        goal: a key of ``holdout.GOALS``.
        with_images: whether the result has ``lookups``.
    """
    if start_network is None:
        return []
    vectors_ND = start_network.vectors(features.vectors_NF)
    result = evaluate_vectors(vectors_ND, labels_N, splits, with_images=with_images)
    return [Candidate(AS_GIVEN, result, result.score(goal), vectors_ND=vectors_ND, given=start_network)]


def evaluate_heads(
    configs: Sequence[HeadConfig | None],
    features: TrunkFeatures,
    labels_N: np.ndarray,
    splits: Sequence[Split],
    goal: str,
    dim: int | None = None,
    kind: str = "linear",
) -> list[Candidate]:
    """Fit heads on a frozen trunk and evaluate them on held-out images, in the form in which they would be delivered.

    Args:
        configs: the heads; None is the frozen trunk without a head.
        features: the trunk's features of all images.
        labels_N: their labels.
        splits: the splits; a head is fitted anew for each choice of images to fit to.
        goal: a key of ``holdout.GOALS``.
        dim: number of dimensions of the vectors (None: no limit).
        kind: value of ``model.head`` for the frozen trunk without a head.
    """
    candidates = []
    scatters: dict[tuple[bytes, bool, bool], ClassScatter] = {}
    for config in configs:
        vectors: dict[bytes, np.ndarray] = {}
        for split in splits:
            if (key := split.fit_N.tobytes()) in vectors:
                continue
            vectors[key] = features.vectors_NF
            if config is None and dim is None and kind == "linear":
                continue
            x_NF, y_N = features.training_rows(split.fit_N, labels_N)
            if config is None or config.training is not None or dim is not None:
                head = fit_head(x_NF, y_N, config, dim, kind, views=features.views)
                vectors[key] = head(features.vectors_NF)
                continue
            kind_of_scatter = (key, config.sqrt, config.label_weights)
            if kind_of_scatter not in scatters:
                weights_N = label_weights(x_NF, y_N, views=features.views) if config.label_weights else None
                scatters[kind_of_scatter] = fit_scatter(x_NF, y_N, sqrt=config.sqrt, weights_N=weights_N)
            whitening = scatters[kind_of_scatter].whiten(config.shrinkage)
            vectors[key] = whitening.equivalent_vectors(features.vectors_NF, config.residual)

        def vectors_of(
            _: int, split: Split, vectors: dict[bytes, np.ndarray] = vectors
        ) -> tuple[np.ndarray, np.ndarray]:
            vectors_ND = vectors[split.fit_N.tobytes()]
            return vectors_ND[split.query_N], vectors_ND[split.reference_N]

        result = evaluate_embeddings(splits, labels_N, vectors_of, with_images=True)
        name = config.name if config else FROZEN
        candidates.append(Candidate(name, result, result.score(goal), config, next(iter(vectors.values()))))
    return candidates


def evaluate_networks(
    training: TrainingResult, spec: Experiment, config: HeadConfig | None, images: ImageSet, fit_N: np.ndarray,
    splits: Sequence[Split], goal: str, notices: Notices, seconds_left: Callable[[], float] = lambda: 0.0,
) -> list[Candidate]:  # fmt: skip
    """Evaluate a fine-tuned network on held-out images: with its final weights, and interpolated with a new head.

    The interpolated one is evaluated on larger images too (``larger_inputs``), in what time is left.

    Args:
        training: the result of fine-tuning.
        spec: its resolved spec; ``train.finish`` says how weights are interpolated.
        config: the head of the interpolated network; None leaves that candidate out.
        images: all images.
        fit_N: rows that may be fitted to.
        splits: the holdout splits.
        goal: a key of ``holdout.GOALS``.
        notices: collects unreadable images.
        seconds_left: the seconds that larger images may take; by default there are none.
    """
    embedder, meta = load_embedder(training.checkpoint)
    labels_N, preprocessing = images.labels_N, Preprocessing.from_facts(meta["facts"])

    def embed(trunk: Trunk, view: View, *, mirrored: bool = False) -> TunedTrunk:
        features = embed_with_trunk(trunk, images, replace(preprocessing, view=view), dataset=spec.dataset, notices=notices,
                                    describe="evaluating", mirrored=mirrored)  # fmt: skip
        return TunedTrunk(trunk, features, view, mirrored)

    def evaluate(name: str, network: Embedder, tuned_trunk: TunedTrunk, config: HeadConfig | None) -> Candidate:
        vectors_ND = np.zeros((len(images), network.dim), np.float32)
        rows = slice(tuned_trunk.image_count)
        with torch.inference_mode():
            head_input = torch.from_numpy(tuned_trunk.features.vectors_ND[rows])
            vectors_ND[tuned_trunk.features.kept_N[rows]] = network.head(head_input).numpy()
        result = evaluate_vectors(vectors_ND, labels_N, splits, with_images=True)
        return Candidate(name, result, result.score(goal), config, vectors_ND, tuned_trunk)

    def evaluate_refitted(name: str, tuned_trunk: TunedTrunk) -> list[Candidate]:
        network = refit_tuned(tuned_trunk, images, fit_N, config, spec) if config is not None else None
        return [] if network is None else [evaluate(name, network, tuned_trunk, config)]

    view = preprocessing.view
    candidates = [evaluate(FINE_TUNED, embedder, embed(embedder.trunk, view), None)]
    if not spec.train.finish.enabled or config is None:
        return candidates
    initial = build_starting_trunk(spec, spec.model.backbone, preprocessing.input_size).trunk.state_dict()
    trunk = interpolate_weights(embedder.trunk, initial, spec.train.finish.trained_share)
    start, mirrored = time.monotonic(), spec.train.finish.mirrored
    candidates += evaluate_refitted(INTERPOLATED, embed(trunk, view, mirrored=mirrored))
    seconds = time.monotonic() - start
    for larger in larger_views(view, spec.model.backbone, spec) if len(candidates) > 1 else ():
        cost = relative_cost(larger, view)
        if cost * seconds > seconds_left():
            break
        name = LARGER.format(height=larger.height, width=larger.width, cost=cost)
        candidates += evaluate_refitted(name, embed(trunk, larger, mirrored=mirrored))
    return candidates


def refit_tuned(
    tuned_trunk: TunedTrunk, images: ImageSet, rows: np.ndarray, config: HeadConfig, spec: Experiment
) -> Embedder | None:
    """Fit a head to some images' features of a fine-tuned trunk.

    Args:
        tuned_trunk: the trunk and its features.
        images: all images.
        rows: which of them to fit to.
        config: the head.
        spec: ``model.feat_dim``, where the user set it, limits the dimensions of the vector.

    Returns:
        The network; None where no head can be fitted (``refit_head``).
    """
    use = np.isin(tuned_trunk.features.kept_N, rows)
    features = replace(
        tuned_trunk.features, vectors_ND=tuned_trunk.features.vectors_ND[use], kept_N=tuned_trunk.features.kept_N[use]
    )
    return refit_head(tuned_trunk.trunk, features, images.labels_N, config, requested_dim(spec))
