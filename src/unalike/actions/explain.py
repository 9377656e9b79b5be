"""What ``inference.explain`` and ``evaluate.explain`` leave: why images matched, as pictures, JSON and one HTML file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.errors import UnreadableImage
from unalike.explanation.explainer import Explainer, Explanation
from unalike.explanation.pictures import evidence_row, evidence_sheet
from unalike.metrics.knn import unit
from unalike.progress import progress, say
from unalike.report.evaluation import ExplainedMatches
from unalike.report.html import Report, ReportImage
from unalike.storage.atomic import atomic_write, write_text

# Pairs that the page shows; the rest is in the folder.
MOST_SHOWN = 60
NOTE = "Green: what makes the two alike. Red: what is missing to a perfect match. Each map is on its own scale. {}"
HOW = {
    "exact": "The parts sum to the score, and to what it lacks to 1, exactly.",
    "covers": "Found by covering parts up: how much the score falls, or rises, without them.",
}


def explain_matches(
    folder: Path, model: Any, query: ImageSet, reference: ImageSet, nearest_Q: np.ndarray
) -> ExplainedMatches:
    """Every query beside its nearest reference."""
    pairs = [(i, int(nearest)) for i, nearest in enumerate(nearest_Q.tolist())]
    return _explained(folder, model, query, reference, pairs, "Why they matched", "explain")


def explain_misses(
    folder: Path, model: Any, query: ImageSet, query_ND: np.ndarray, reference: ImageSet, reference_MD: np.ndarray,
    most: int, *, same: bool,
) -> ExplainedMatches | None:  # fmt: skip
    """The ``most`` misses with the largest lead of the wrong class: each beside its wrong reference and its best right one."""
    pairs = worst_misses(query_ND, query.labels_N, reference_MD, reference.labels_N, most, same=same)
    if not pairs:
        say("no misses to explain")
        return None
    both = [pair for i, wrong, right in pairs for pair in ((i, wrong), (i, right))]
    return _explained(folder, model, query, reference, both, "Why they were missed", "misses")


def worst_misses(
    query_ND: np.ndarray, query_labels_N: np.ndarray, reference_MD: np.ndarray, reference_labels_M: np.ndarray, most: int,
    *, same: bool,
) -> list[tuple[int, int, int]]:  # fmt: skip
    """(query, its nearest reference of another class, its nearest of its own) of misses, the largest lead first.

    Queries whose class has no reference are left out. With ``same`` an image is no reference of itself.
    """
    found = []
    reference_MD = unit(reference_MD)
    for first in range(0, len(query_ND), 256):
        score_BM = unit(query_ND[first : first + 256]) @ reference_MD.T
        for row, score_M in enumerate(score_BM):
            number = first + row
            if same:
                score_M[number] = -np.inf
            own_M = reference_labels_M == query_labels_N[number]
            if not own_M.any() or own_M.all():
                continue
            right = int(np.argmax(np.where(own_M, score_M, -np.inf)))
            wrong = int(np.argmax(np.where(own_M, -np.inf, score_M)))
            if score_M[wrong] > score_M[right] and np.isfinite(score_M[right]):
                found.append((float(score_M[wrong] - score_M[right]), number, wrong, right))
    found.sort(key=lambda one: (-one[0], one[1]))
    return [(number, wrong, right) for _, number, wrong, right in found[:most]]


def _explained(
    folder: Path,
    model: Any,
    query: ImageSet,
    reference: ImageSet,
    pairs: Sequence[tuple[int, int]],
    title: str,
    stem: str,
) -> ExplainedMatches:
    explainer = Explainer.from_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    rows: list[tuple[ReportImage, list[ReportImage]]] = []
    with progress("explaining", len(pairs), "pairs") as advance:
        for place, (i, j) in enumerate(pairs):
            advance()
            try:
                why = explainer.explain(query.paths[i], reference.paths[j])
            except UnreadableImage as error:  # it could be read a moment ago
                say(f"not explained: {error}")
                continue
            name = f"{place:05d}.png"
            with atomic_write(folder / name) as partial:
                evidence_sheet(why).save(partial)
            told = {
                "query": str(query.paths[i]), "query_label": _name(query, i), "reference": str(reference.paths[j]),
                "reference_label": _name(reference, j), "picture": name, "why": why.to_dict(),
            }  # fmt: skip
            lines.append(json.dumps(told, ensure_ascii=True))
            if len(rows) < MOST_SHOWN:
                rows.append(_row(why, query, i, reference, j))
    write_text(folder / f"{stem}.jsonl", "\n".join(lines) + "\n" if lines else "")
    rest = f" {len(lines) - len(rows)} more are in the folder." if len(lines) > len(rows) else ""
    page = Report(title, f"{len(lines)} pairs, by {model.source}")
    note = NOTE.format(HOW[explainer.method])
    page.gallery("Pairs", rows, note=note + rest)
    say(f"explained: {folder / f'{stem}.html'}")
    return ExplainedMatches(rows, note, page.write(folder / f"{stem}.html"))


def _row(
    why: Explanation, query: ImageSet, i: int, reference: ImageSet, j: int
) -> tuple[ReportImage, list[ReportImage]]:
    own, other = (
        evidence_row(image, told) for image, told in ((why.query_HWC, why.query), (why.reference_HWC, why.reference))
    )
    name, label = _name(query, i), _name(reference, j)
    right = None if not name else name == label
    tiles = [ReportImage(own[1], "for"), ReportImage(own[2], "against"), ReportImage(other[0], label or reference.paths[j].name, why.score, right),
             ReportImage(other[1], "for"), ReportImage(other[2], "against")]  # fmt: skip
    return ReportImage(own[0], name or query.paths[i].name), tiles


def _name(images: ImageSet, i: int) -> str:
    label = int(images.labels_N[i])
    return images.classes[label] if label >= 0 else ""
