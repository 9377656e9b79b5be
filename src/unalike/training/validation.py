"""Validation while training: query against reference through the fastest engine, the metrics of `evaluate`.

The evaluation view of every image is made once and kept as uint8 while it fits; the engine is built once and given the
new weights each time. Ranks share the images and merge once (TAO D15); every image counts (TAO D32).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from unalike.data.from_spec import TrainingSets
from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.inference.embedding import Embeddings, embed_files
from unalike.inference.engine_selection import create_engine, refresh_engine
from unalike.metrics.clustering import ami_nmi
from unalike.metrics.retrieval import Ranking, evaluate_ranking
from unalike.metrics.summary import summarize, tao_kpis
from unalike.progress import warn
from unalike.training.checkpoints import MONITORED

KEPT_BYTES = 2 << 30


class Validator:
    """Holds the two image sets; ``measure`` embeds them with the present weights and returns KPIs and ranking."""

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
        notices: Any,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        merge: Callable[[Any], list[Any]] = lambda x: [x],
    ) -> None:
        self.reference, self.query, self.view = reference, query, view
        self.same = reference.paths == query.paths
        self.paths = list(reference.paths) if self.same else [*reference.paths, *query.paths]
        self.labels = reference.labels_N if self.same else np.concatenate([reference.labels_N, query.labels_N])
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.limits = {"max_unreadable": max_unreadable, "max_pixels": max_pixels, "notices": notices}
        self.mine = np.arange(rank, len(self.paths), world_size)
        self.merge = merge
        self.kept: np.ndarray | None = None
        self.kept_index: np.ndarray | None = None
        # (query, its vectors), (reference, its vectors) of the latest measurement, without what could not be read
        self.seen: tuple[tuple[ImageSet, np.ndarray], tuple[ImageSet, np.ndarray]] | None = None

    def _embed(self, engine: Any) -> tuple[np.ndarray, np.ndarray]:
        """This rank's vectors and the indices of the images they belong to."""
        if self.kept is not None and self.kept_index is not None:
            step = max(self.batch_size or engine.batch, 1)
            parts = [engine(self.kept[i : i + step]) for i in range(0, len(self.kept), step)]
            return np.concatenate(parts) if parts else np.zeros((0, engine.dim), np.float32), self.kept_index
        size = len(self.mine) * self.view.height * self.view.width * 3
        keep: list[np.ndarray] | None = [] if size <= KEPT_BYTES else None
        done: Embeddings = embed_files(
            engine if keep is None else _Keeping(engine, keep),
            [self.paths[i] for i in self.mine],
            self.view,
            batch_size=self.batch_size,
            workers=self.workers,
            describe="validation",
            **self.limits,
        )
        index = self.mine[done.kept_N]
        if keep is not None and keep:
            self.kept, self.kept_index = np.concatenate(keep), index
        return done.vectors_ND, index

    def measure(self, engine: Any) -> tuple[dict[str, float], Ranking]:
        """KPIs under TAO's names with the prefix ``val``, and the ranking behind them; equal on every rank."""
        vectors, index = self._embed(engine)
        parts = self.merge((index, vectors))
        index = np.concatenate([p[0] for p in parts])
        vectors = np.concatenate([p[1] for p in parts])
        order = np.argsort(index, kind="stable")
        index, vectors = index[order], vectors[order]
        labels = self.labels[index]
        if self.same:
            reference = query = vectors
            reference_labels = query_labels = labels
            self.seen = ((self.query.select(index), vectors),) * 2
        else:
            cut = int(np.searchsorted(index, len(self.reference)))
            reference, query = vectors[:cut], vectors[cut:]
            reference_labels, query_labels = labels[:cut], labels[cut:]
            asked = self.query.select(index[cut:] - len(self.reference))
            self.seen = ((asked, query), (self.reference.select(index[:cut]), reference))
        ranking = evaluate_ranking(query, query_labels, reference, reference_labels, same=self.same)
        clusters = ami_nmi(query, query_labels, seed=self.seed)
        summary = summarize(ranking, self.reference.classes, clusters=clusters, n=0)
        return tao_kpis(summary, "val"), ranking


class _Keeping:
    """An engine that also keeps the batches that it is given."""

    def __init__(self, engine: Any, batches: list[np.ndarray]) -> None:
        self._engine, self._batches = engine, batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        self._batches.append(images_BHWC.copy())
        return self._engine(images_BHWC)


class ValidationRunner:
    """`validate(embedder) -> KPIs` for the loop: one engine for all validations, new weights each time."""

    def __init__(self, spec: Any, sets: TrainingSets, fabric: Fabric, notices: Notices, seed: int) -> None:
        self.spec, self.fabric = spec, fabric
        self.engine: Any = None
        self.latest: Any = None
        self.rankings: dict[int | None, Any] = {}
        self.validator: Validator | None = None
        if sets.reference is None or sets.query is None:
            return
        self.validator = Validator(
            sets.reference, sets.query, View.from_spec(spec),
            batch_size=spec.train.val_batch_size if spec.is_set("train.val_batch_size") else None,
            workers=spec.dataset.workers, max_unreadable=spec.dataset.max_unreadable,
            max_pixels=spec.dataset.max_pixels, notices=notices, seed=seed, rank=fabric.global_rank,
            world_size=fabric.world_size, merge=self._merge,
        )  # fmt: skip

    def _merge(self, part: Any) -> list[Any]:
        if self.fabric.world_size == 1:
            return [part]
        parts: list[Any] = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(parts, part)
        return parts

    def __call__(self, embedder: nn.Module) -> Mapping[str, float]:
        assert self.validator is not None
        modes = [(module, module.training) for module in embedder.modules()]
        embedder.eval()
        try:
            if self.engine is None:
                train = self.spec.train
                times = math.ceil(train.num_epochs / train.validation_interval)
                self.engine = create_engine(
                    embedder, Preprocessing.from_spec(self.spec), runtime=self.spec.evaluate.runtime,
                    precision=self.spec.evaluate.precision, images=len(self.validator.mine) * times,
                )  # fmt: skip
            else:
                self.engine = refresh_engine(self.engine, embedder)
            kpis, ranking = self.validator.measure(self.engine)
            self.latest = ranking, self.validator.seen
        finally:
            for module, mode in modes:
                module.training = mode
        if math.isnan(kpis.get(MONITORED, 0.0)):
            warn(f"{MONITORED} is not a number: no query of a class that the reference holds")
        return kpis

    def remember(self, epoch: int, best_epoch: int | None) -> None:
        """Keep the latest ranking and its vectors as that of ``epoch``, beside the one of the best epoch so far; no others."""
        kept = {e: ranking for e, ranking in self.rankings.items() if e == best_epoch}
        self.rankings = kept | {epoch: self.latest}
