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
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.errors import DataError
from unalike.inference.embedding import embed_files
from unalike.metrics.retrieval import evaluate_ranking

FORMAT_VERSION = 1


@dataclass(frozen=True)
class AccuracyRow:
    """Accuracy of one network in one runtime.

    Attributes:
        runtime, precision: of the engine.
        mean_cosine, worst_cosine: of its vectors with the fp32 vectors of the same images, -1..1.
        recall_at_1, map_at_r: retrieval on labeled data, 0..1; None where there is none.
    """

    runtime: str
    precision: str
    mean_cosine: float
    worst_cosine: float
    recall_at_1: float | None = None
    map_at_r: float | None = None


@dataclass(frozen=True)
class AccuracyTable:
    """Comparison of a network with fp32.

    Attributes:
        rows: fp32 first, then each engine.
        images: number of images whose vectors were compared.
        queries, references: number of labeled images that retrieval was measured on.
        kept_layers: names of the layers in higher precision.
        notes: lines for the reader.
    """

    rows: tuple[AccuracyRow, ...]
    images: int
    queries: int = 0
    references: int = 0
    kept_layers: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as it is written to the JSON file beside the network."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    def figures(self) -> dict[str, Any]:
        """The second row by flat names; losses in percentage points."""
        first, row = self.rows[0], self.rows[1]
        figures: dict[str, Any] = {"mean_cosine": row.mean_cosine, "worst_cosine": row.worst_cosine,
                                   "layers_kept": len(self.kept_layers)}  # fmt: skip
        if row.recall_at_1 is not None and first.recall_at_1 is not None:
            figures["recall_loss"] = 100 * (first.recall_at_1 - row.recall_at_1)
        if row.map_at_r is not None and first.map_at_r is not None:
            figures["map_at_r_loss"] = 100 * (first.map_at_r - row.map_at_r)
        return figures

    def lines(self) -> list[str]:
        """The table as lines of text."""
        header = f"{'runtime':14}{'precision':11}{'mean cosine':>13}{'worst':>10}"
        if self.queries:
            header += f"{'R@1':>9}{'loss':>8}{'MAP@R':>9}{'loss':>8}"
        lines = [header]
        for row in self.rows:
            line = f"{row.runtime:14}{row.precision:11}{row.mean_cosine:13.6f}{row.worst_cosine:10.6f}"
            if self.queries and row.recall_at_1 is not None and row.map_at_r is not None:
                line += _format_loss(row.recall_at_1, self.rows[0].recall_at_1)
                line += _format_loss(row.map_at_r, self.rows[0].map_at_r)
            lines.append(line)
        summary = f"{self.images} images"
        if self.queries:
            summary += f"; {self.queries} queries, {self.references} references"
        if self.kept_layers:
            names = ", ".join(self.kept_layers[:4]) + (", ..." if len(self.kept_layers) > 4 else "")
            summary += f"; kept in higher precision: {len(self.kept_layers)} ({names})"
        return [*lines, summary, *self.notes]


def _format_loss(value: float, fp32_value: float | None) -> str:
    """The value in percent and its loss in percentage points."""
    return f"{100 * value:8.2f}%{100 * ((fp32_value or 0.0) - value):+8.2f}"


def cosines(expected_ND: np.ndarray, actual_ND: np.ndarray) -> np.ndarray:
    """Compute the cosine of each pair of rows.

    Returns:
        float64 (N,); -1 where a vector is not finite or has length 0.

    Raises:
        DataError: the shapes differ.
    """
    a, b = expected_ND.astype(np.float64), actual_ND.astype(np.float64)
    if a.shape != b.shape:
        raise DataError(f"vectors of shape {b.shape}", expected=f"{a.shape}")
    with np.errstate(all="ignore"):
        products = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return np.where(np.isfinite(products), products, -1.0)


@dataclass(frozen=True)
class LabeledSets:
    """Reference and query images with classes of one list."""

    reference: ImageSet
    query: ImageSet


def evaluate_retrieval(
    engine: Engine, data: LabeledSets, view: View, options: Mapping[str, Any]
) -> tuple[float, float, int]:  # fmt: skip
    """Measure retrieval of the queries among the references; a file that is in both sets is embedded once.

    Args:
        engine: computes the vectors.
        data: the labeled images.
        view: evaluation view of the images.
        options: further arguments of ``embed_files``.

    Returns:
        R@1 and MAP@R, 0..1, and the number of queries that have a reference of their class.

    Raises:
        DataError: no query has one.
    """
    union: list[Path] = list(dict.fromkeys([*data.reference.paths, *data.query.paths]))
    embedded = embed_files(engine, union, view, describe="measuring", **options)
    row_of_path = {union[i]: row for row, i in enumerate(embedded.kept_N.tolist())}

    def vectors_and_labels(images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
        readable = [i for i, path in enumerate(images.paths) if path in row_of_path]
        return embedded.vectors_ND[[row_of_path[images.paths[i]] for i in readable]], images.labels_N[readable]

    reference_ND, reference_labels_N = vectors_and_labels(data.reference)
    query_ND, query_labels_N = vectors_and_labels(data.query)
    ranking = evaluate_ranking(
        query_ND, query_labels_N, reference_ND, reference_labels_N, ks=(1,),
        same=data.reference.paths == data.query.paths,
    )  # fmt: skip
    query_count = int((~ranking.open_set).sum())
    if not query_count:
        raise DataError("no query has a reference of its class", remedy="check dataset.val_dataset")
    return float(np.nanmean(ranking.precision_at_1)), float(np.nanmean(ranking.average_precision_at_r)), query_count


def compare_engines(
    fp32: Engine, others: list[Engine], images_NHWC: np.ndarray, *, data: LabeledSets | None = None,
    view: View | None = None, options: Mapping[str, Any] | None = None, kept_layers: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> AccuracyTable:  # fmt: skip
    """Compare engines with the fp32 engine.

    Args:
        fp32: the engine of the fp32 network.
        others: engines of the converted network. The second and later ones run the same file in other runtimes: their
            vectors are compared, their retrieval is not measured.
        images_NHWC: uint8 images whose vectors are compared.
        data: labeled images on which retrieval is measured; needs ``view``.
        view, options: as in ``evaluate_retrieval``.
        kept_layers, notes: stored in the table.
    """
    expected_ND = fp32(images_NHWC)
    engines = [fp32, *others]
    retrieval = []
    if data is not None and view is not None:
        retrieval = [evaluate_retrieval(engine, data, view, options or {}) for engine in engines[:2]]
    rows = []
    for number, engine in enumerate(engines):
        cosines_N = cosines(expected_ND, engine(images_NHWC)) if number else np.ones(1)
        recall, mapr, _ = retrieval[number] if number < len(retrieval) else (None, None, 0)
        rows.append(
            AccuracyRow(engine.name, engine.precision, float(cosines_N.mean()), float(cosines_N.min()), recall, mapr)
        )
    queries = retrieval[0][2] if retrieval else 0
    references = len(data.reference) if data is not None else 0
    return AccuracyTable(tuple(rows), len(images_NHWC), queries, references, kept_layers, notes)
