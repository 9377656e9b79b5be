"""Compare a quantized network with fp32: cosine of vectors, recall at 1 and MAP@R.

Shape letters: N images, H height, W width, D width of the vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.engines.protocol import Engine
from unalike.errors import DataError
from unalike.inference.embedding import embed_files
from unalike.metrics.retrieval import evaluate_ranking

FORMAT_VERSION = 1


@dataclass(frozen=True)
class AccuracyRow:
    """One form in one runtime. Cosines are with the fp32 vectors of the same images; shares lie in 0..1, None where
    no labelled data was given."""

    runtime: str
    precision: str
    mean_cosine: float
    worst_cosine: float
    recall_at_1: float | None = None
    map_at_r: float | None = None


@dataclass(frozen=True)
class AccuracyTable:
    """The fp32 row first. ``images`` were compared; ``queries`` measured against ``references``."""

    rows: tuple[AccuracyRow, ...]
    images: int
    queries: int = 0
    references: int = 0
    kept_layers: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in JSON beside the file."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    def figures(self) -> dict[str, Any]:
        """The second row as flat names, losses in percentage points."""
        first, row = self.rows[0], self.rows[1]
        found: dict[str, Any] = {"mean_cosine": row.mean_cosine, "worst_cosine": row.worst_cosine,
                                 "layers_kept": len(self.kept_layers)}  # fmt: skip
        if row.recall_at_1 is not None and first.recall_at_1 is not None:
            found["recall_loss"] = 100 * (first.recall_at_1 - row.recall_at_1)
        if row.map_at_r is not None and first.map_at_r is not None:
            found["map_at_r_loss"] = 100 * (first.map_at_r - row.map_at_r)
        return found

    def lines(self) -> list[str]:
        """The table for a person."""
        head = f"{'runtime':14}{'precision':11}{'mean cosine':>13}{'worst':>10}"
        if self.queries:
            head += f"{'R@1':>9}{'loss':>8}{'MAP@R':>9}{'loss':>8}"
        lines = [head]
        for row in self.rows:
            line = f"{row.runtime:14}{row.precision:11}{row.mean_cosine:13.6f}{row.worst_cosine:10.6f}"
            if self.queries and row.recall_at_1 is not None and row.map_at_r is not None:
                line += _share(row.recall_at_1, self.rows[0].recall_at_1) + _share(row.map_at_r, self.rows[0].map_at_r)
            lines.append(line)
        told = f"{self.images} images"
        if self.queries:
            told += f"; {self.queries} queries, {self.references} references"
        if self.kept_layers:
            shown = ", ".join(self.kept_layers[:4]) + (", ..." if len(self.kept_layers) > 4 else "")
            told += f"; kept in higher precision: {len(self.kept_layers)} ({shown})"
        return [*lines, told, *self.notes]


def _share(value: float, before: float | None) -> str:
    return f"{100 * value:8.2f}%{100 * ((before or 0.0) - value):+8.2f}"


def cosines(expected_ND: np.ndarray, found_ND: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows, float64; -1 where either is not finite or has no length."""
    a, b = expected_ND.astype(np.float64), found_ND.astype(np.float64)
    if a.shape != b.shape:
        raise DataError(f"vectors of shape {b.shape}", expected=f"{a.shape}")
    with np.errstate(all="ignore"):
        products = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return np.where(np.isfinite(products), products, -1.0)


@dataclass(frozen=True)
class LabeledSets:
    """Reference and query images of one class list."""

    reference: ImageSet
    query: ImageSet


def evaluate_retrieval(
    engine: Engine, data: LabeledSets, view: Any, options: Mapping[str, Any]
) -> tuple[float, float, int]:
    """(R@1, MAP@R, queries measured) of ``engine``; each file is embedded once."""
    union: list[Path] = list(dict.fromkeys([*data.reference.paths, *data.query.paths]))
    done = embed_files(engine, union, view, describe="measuring", **options)
    place = {union[i]: n for n, i in enumerate(done.kept_N.tolist())}

    def part(images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
        kept = [i for i, path in enumerate(images.paths) if path in place]
        return done.vectors_ND[[place[images.paths[i]] for i in kept]], images.labels_N[kept]

    (reference, reference_labels), (query, query_labels) = part(data.reference), part(data.query)
    ranking = evaluate_ranking(
        query, query_labels, reference, reference_labels, ks=(1,), same=data.reference.paths == data.query.paths
    )
    measured = int((~ranking.open_set).sum())
    if not measured:
        raise DataError("no query has a reference of its class", remedy="check dataset.val_dataset")
    return float(np.nanmean(ranking.precision_at_1)), float(np.nanmean(ranking.average_precision_at_r)), measured


def compare_engines(
    first: Engine, others: list[Engine], images_NHWC: np.ndarray, *, data: LabeledSets | None = None, view: Any = None,
    options: Mapping[str, Any] | None = None, kept: tuple[str, ...] = (), notes: tuple[str, ...] = (),
) -> AccuracyTable:  # fmt: skip
    """``first`` (fp32) and each other engine on ``images_NHWC``; with ``data``, R@1 and MAP@R of the first two.

    Further engines are the same file in other runtimes: their cosines are told, retrieval is measured once.
    """
    expected = first(images_NHWC)
    measured = {
        number: evaluate_retrieval(engine, data, view, options or {})
        for number, engine in enumerate([first, *others])
        if data is not None and number < 2
    }
    rows = []
    for number, engine in enumerate([first, *others]):
        near = cosines(expected, engine(images_NHWC)) if number else np.ones(1)
        recall, mapr, _ = measured.get(number, (None, None, 0))
        rows.append(AccuracyRow(engine.name, engine.precision, float(near.mean()), float(near.min()), recall, mapr))
    queries = measured[0][2] if measured else 0
    references = len(data.reference) if data is not None else 0
    return AccuracyTable(tuple(rows), len(images_NHWC), queries, references, kept, notes)
