"""Validation while training: query against reference through the fastest engine, with the metrics of `evaluate`.

The evaluation view of every image is computed once and cached as uint8 while it fits; the engine is built once and takes
the new weights each time. Ranks share the images and merge once (TAO D15); every image counts (TAO D32).
Shape letters: N images, D vector width, B images a batch, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.inference.embedding import embed_files
from unalike.inference.engine_selection import RefreshableEngine, create_engine, refresh_engine
from unalike.metrics.clustering import ami_nmi
from unalike.metrics.retrieval import Ranking, evaluate_ranking
from unalike.metrics.summary import summarize, tao_kpis
from unalike.progress import warn
from unalike.training.checkpoints import MONITORED

if TYPE_CHECKING:
    from torch import nn

    from unalike.training.setup import TrainingSetup

# Views are cached in memory up to this size.
CACHE_BYTES = 2 << 30

# (query, its vectors), (reference, its vectors), without the images that could not be read.
ValidationEmbeddings = tuple[tuple[ImageSet, np.ndarray], tuple[ImageSet, np.ndarray]]
# Rows of the images, and their vectors: what one rank contributes.
_Part = tuple[np.ndarray, np.ndarray]


def _no_merge(part: _Part) -> list[_Part]:
    return [part]


class Validator:
    """Two image sets; ``measure`` embeds them with an engine and returns the metrics.

    Args:
        reference: images that queries are compared with.
        query: images whose nearest references are evaluated; may be the reference, whose images then never match themselves.
        view: the evaluation view.
        batch_size: images a call of the engine; None leaves it to the engine.
        workers: threads that decode.
        max_unreadable: share of files that may be unreadable, 0..1.
        max_pixels: largest image that is decoded.
        notices: collects unreadable files.
        seed: of the clustering behind AMI and NMI.
        rank: of this process.
        world_size: number of processes.
        merge: gathers the parts of all ranks.
    """

    def __init__(
        self,
        reference: ImageSet,
        query: ImageSet,
        view: View,
        *,
        batch_size: int | None,
        workers: int,
        max_unreadable: float,
        max_pixels: int,
        notices: Notices,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        merge: Callable[[_Part], list[_Part]] = _no_merge,
    ) -> None:
        self.reference, self.query, self.view = reference, query, view
        self.same = reference.paths == query.paths
        self.paths = list(reference.paths) if self.same else [*reference.paths, *query.paths]
        self.labels_N = reference.labels_N if self.same else np.concatenate([reference.labels_N, query.labels_N])
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.max_unreadable, self.max_pixels, self.notices = max_unreadable, max_pixels, notices
        self.own_rows = np.arange(rank, len(self.paths), world_size)  # the images that this rank embeds
        self.merge = merge
        self.cached_NHWC: np.ndarray | None = None
        self.cached_rows: np.ndarray | None = None
        self.embeddings: ValidationEmbeddings | None = None  # of the latest measurement

    def _embed(self, engine: Engine) -> _Part:
        """Compute the vectors of this rank's readable images; return their rows and the vectors."""
        if self.cached_NHWC is not None and self.cached_rows is not None:
            step = max(self.batch_size or engine.batch, 1)
            parts = [engine(self.cached_NHWC[i : i + step]) for i in range(0, len(self.cached_NHWC), step)]
            return self.cached_rows, np.concatenate(parts) if parts else np.zeros((0, engine.dim), np.float32)
        size = len(self.own_rows) * self.view.height * self.view.width * 3
        batches: list[np.ndarray] | None = [] if size <= CACHE_BYTES else None
        embeddings = embed_files(
            engine if batches is None else _RecordingEngine(engine, batches),
            [self.paths[i] for i in self.own_rows],
            self.view,
            batch_size=self.batch_size,
            workers=self.workers,
            max_unreadable=self.max_unreadable,
            max_pixels=self.max_pixels,
            notices=self.notices,
            describe="validation",
        )
        rows = self.own_rows[embeddings.kept_N]
        if batches:
            self.cached_NHWC, self.cached_rows = np.concatenate(batches), rows
        return rows, embeddings.vectors_ND

    def measure(self, engine: Engine) -> tuple[dict[str, float], Ranking]:
        """Embed the images and evaluate them.

        Returns:
            Metrics under TAO's names with the prefix ``val``, and the ranking that they are of; equal on every rank.
        """
        parts = self.merge(self._embed(engine))
        rows_N = np.concatenate([rows for rows, _ in parts])
        vectors_ND = np.concatenate([vectors for _, vectors in parts])
        order_N = np.argsort(rows_N, kind="stable")
        rows_N, vectors_ND = rows_N[order_N], vectors_ND[order_N]
        labels_N = self.labels_N[rows_N]
        if self.same:
            reference = query = vectors_ND
            reference_labels = query_labels = labels_N
            images = self.query.select(rows_N), vectors_ND
            self.embeddings = images, images
        else:
            cut = int(np.searchsorted(rows_N, len(self.reference)))
            reference, query = vectors_ND[:cut], vectors_ND[cut:]
            reference_labels, query_labels = labels_N[:cut], labels_N[cut:]
            query_images = self.query.select(rows_N[cut:] - len(self.reference))
            self.embeddings = (query_images, query), (self.reference.select(rows_N[:cut]), reference)
        ranking = evaluate_ranking(query, query_labels, reference, reference_labels, same=self.same)
        clusters = ami_nmi(query, query_labels, seed=self.seed)
        summary = summarize(ranking, self.reference.classes, clusters=clusters, n=0)
        return tao_kpis(summary, "val"), ranking


class _RecordingEngine:
    """An engine that also keeps copies of the batches that it runs on."""

    def __init__(self, engine: Engine, batches: list[np.ndarray]) -> None:
        self._engine, self._batches = engine, batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        self._batches.append(images_BHWC.copy())
        return self._engine(images_BHWC)


class ValidationRunner:
    """The ``validate`` of the loop: maps the embedder to its metrics, with one engine that gets new weights each time.

    Args:
        setup: the data, network and devices of a training.

    Attributes:
        validator: None without validation images.
        rankings: ranking and vectors of the latest and of the best epoch.
    """

    def __init__(self, setup: TrainingSetup) -> None:
        self.experiment, self.fabric = setup.experiment, setup.fabric
        self.engine: RefreshableEngine | None = None
        self.latest: tuple[Ranking, ValidationEmbeddings | None] | None = None
        self.rankings: dict[int | None, tuple[Ranking, ValidationEmbeddings | None] | None] = {}
        self.validator: Validator | None = None
        experiment, reference, query = setup.experiment, setup.sets.reference, setup.sets.query
        if reference is None or query is None:
            return
        self.validator = Validator(
            reference, query, View.from_spec(experiment),
            batch_size=experiment.train.val_batch_size if experiment.is_set("train.val_batch_size") else None,
            workers=experiment.dataset.workers, max_unreadable=experiment.dataset.max_unreadable,
            max_pixels=experiment.dataset.max_pixels, notices=setup.notices, seed=setup.seed,
            rank=self.fabric.global_rank, world_size=self.fabric.world_size, merge=self._merge,
        )  # fmt: skip

    def _merge(self, part: _Part) -> list[_Part]:
        if self.fabric.world_size == 1:
            return [part]
        parts: list[_Part | None] = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(parts, part)
        return [part for part in parts if part is not None]

    def __call__(self, embedder: nn.Module) -> Mapping[str, float]:
        """Return the metrics of the embedder; its train and eval modes are restored."""
        assert self.validator is not None
        modes = [(module, module.training) for module in embedder.modules()]
        embedder.eval()
        try:
            if self.engine is None:
                train, evaluate = self.experiment.train, self.experiment.evaluate
                times = math.ceil(train.num_epochs / train.validation_interval)
                self.engine = create_engine(
                    embedder, Preprocessing.from_spec(self.experiment), runtime=evaluate.runtime,
                    precision=evaluate.precision, images=len(self.validator.own_rows) * times,
                )  # fmt: skip
            else:
                self.engine = refresh_engine(self.engine, embedder)
            kpis, ranking = self.validator.measure(self.engine)
            self.latest = ranking, self.validator.embeddings
        finally:
            for module, mode in modes:
                module.training = mode
        if math.isnan(kpis.get(MONITORED, 0.0)):
            warn(f"{MONITORED} is not a number: no query of a class that the reference holds")
        return kpis

    def remember(self, epoch: int, best_epoch: int | None) -> None:
        """Keep the latest ranking and its vectors, and those of the best epoch; drop all others.

        Args:
            epoch: the epoch of the latest validation.
            best_epoch: the best epoch so far.
        """
        best = {e: ranking for e, ranking in self.rankings.items() if e == best_epoch}
        self.rankings = best | {epoch: self.latest}
