"""The files that an evaluation leaves: metrics.json, per_class.csv, confusion.csv, predictions.parquet or .csv."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unalike.errors import RunError, UnalikeError
from unalike.metrics.retrieval import Ranking
from unalike.metrics.summary import confused_pairs
from unalike.runs.filenames import CONFUSION_FILE, METRICS_FILE, PER_CLASS_FILE, PREDICTIONS_STEM
from unalike.sanitize import valid_unicode
from unalike.source_names import source_name
from unalike.storage.atomic import atomic_write, write_text
from unalike.storage.csv_file import write_csv


def write_metrics(
    folder: str | Path,
    summary: Mapping[str, Any],
    ranking: Ranking,
    classes: Sequence[str],
    *,
    query_paths: Sequence[str | Path] | None = None,
    reference_paths: Sequence[str | Path] | None = None,
    neighbors: tuple[np.ndarray, np.ndarray] | None = None,
    reference_labels: np.ndarray | None = None,
) -> dict[str, Path]:
    """Write the files of an evaluation; predictions are Parquet where pyarrow is installed, else CSV.

    Args:
        folder: Where the files are written; created when absent.
        summary: Result of ``summary.summarize``.
        ranking: Metrics per query.
        classes: Display name of every label.
        query_paths: Path of each query.
        reference_paths: Path of each reference.
        neighbors: (scores_QK, indices_QK) of ``numerics.nearest_neighbors.top_k``, listed in the predictions with the classes of
            ``reference_labels`` and the paths of the references.
        reference_labels: Label of each reference (R,).

    Returns:
        Path by kind: "metrics", "per_class", "confusion", "predictions".

    Raises:
        UnalikeError: There is not one path for each query or reference.
        RunError: The folder cannot be written.
    """
    folder = Path(folder)
    if query_paths is not None and len(query_paths) != len(ranking):
        raise UnalikeError(f"{len(query_paths)} paths for {len(ranking)} queries", expected="one path a query")
    if reference_paths is not None and len(reference_paths) != ranking.references:
        raise UnalikeError(
            f"{len(reference_paths)} paths for {ranking.references} references", expected="one path a reference"
        )
    columns = _predictions(ranking, classes, query_paths, reference_paths, neighbors, reference_labels)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return {
            "metrics": _write_json(folder / METRICS_FILE, summary),
            "per_class": write_rows(
                folder / PER_CLASS_FILE,
                summary["per_class"],
                header=("class", "queries", "references", "measured", *ranking.metrics()),
            ),
            "confusion": write_rows(
                folder / CONFUSION_FILE,
                confused_pairs(ranking, classes),
                header=("class", "taken_for", "count", "share"),
            ),
            "predictions": _write_columns(folder / PREDICTIONS_STEM, columns),
        }
    except OSError as error:
        raise RunError(
            f"{folder}: {error.strerror or error}", remedy="choose a results_dir that can be written"
        ) from error


def _predictions(
    ranking: Ranking,
    classes: Sequence[str],
    query_paths: Sequence[str | Path] | None,
    reference_paths: Sequence[str | Path] | None,
    neighbors: tuple[np.ndarray, np.ndarray] | None,
    reference_labels: np.ndarray | None,
) -> dict[str, list[Any]]:
    """The values of each column, one for each query, by the column's name."""
    columns: dict[str, list[Any]] = {}
    if query_paths is not None:
        columns["path"] = [source_name(path) for path in query_paths]
    columns["class"] = [classes[label] for label in ranking.labels]
    columns["predicted"] = [classes[label] for label in ranking.predicted]
    columns["correct"] = (ranking.labels == ranking.predicted).tolist()
    columns["open_set"] = ranking.open_set.tolist()
    columns["score"] = [round(float(score), 6) for score in ranking.score]
    columns["nearest"] = ranking.nearest.tolist()
    if reference_paths is not None:
        columns["nearest_path"] = [source_name(reference_paths[i]) for i in ranking.nearest]
    columns["first_relevant_rank"] = [int(rank) or None for rank in ranking.first_relevant]
    for name, values in ranking.metrics().items():
        columns[name] = [None if math.isnan(value) else float(value) for value in values]
    if neighbors is not None:
        scores_QK, indices_QK = neighbors
        columns["neighbour_scores"] = [[round(float(s), 6) for s in row] for row in scores_QK]
        columns["neighbours"] = indices_QK.tolist()
        if reference_labels is not None:
            columns["neighbour_classes"] = [[classes[reference_labels[i]] for i in row] for row in indices_QK]
        if reference_paths is not None:
            columns["neighbour_paths"] = [[source_name(reference_paths[i]) for i in row] for row in indices_QK]
    return columns


def _write_json(path: Path, summary: Mapping[str, Any]) -> Path:
    write_text(path, valid_unicode(json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)) + "\n")
    return path


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], header: Iterable[str] = ()) -> Path:
    """Write rows as CSV.

    Args:
        path: The file.
        rows: Rows of the same keys; None becomes an empty cell.
        header: Names of the columns, for a file without rows.

    Returns:
        The file's path.
    """
    names = list(rows[0]) if rows else list(header)
    return write_csv(path, ([row[name] for name in names] for row in rows), names)


def _write_columns(stem: Path, columns: Mapping[str, list[Any]]) -> Path:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        rows = [
            {name: json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
             for name, value in zip(columns, values, strict=True)}
            for values in zip(*columns.values(), strict=True)
        ]  # fmt: skip
        return write_rows(stem.with_suffix(".csv"), rows, columns)
    path = stem.with_suffix(".parquet")
    # Parquet's text is UTF-8 by definition
    table = pyarrow.table({name: valid_unicode(values) for name, values in columns.items()})
    with atomic_write(path) as partial:
        pyarrow.parquet.write_table(table, partial)
    return path
