"""Files of ``inference.explain`` and ``evaluate.explain``: evidence maps of matches as images, JSON and an HTML page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.errors import UnreadableImage
from unalike.explanation.explainer import Explainer, Explanation
from unalike.explanation.pictures import evidence_row, evidence_sheet
from unalike.numerics.normalization import l2_normalize
from unalike.progress import progress, say
from unalike.report.evaluation import EXPLAINED_COLUMNS, ExplainedMatches
from unalike.report.html import Report, ReportImage
from unalike.report.sentences import count_of
from unalike.source_names import source_name
from unalike.storage.atomic import atomic_write, write_text

if TYPE_CHECKING:
    from unalike.inference.loaded_model import LoadedModel

# Pairs on the page; the folder has all.
MAX_PAIRS = 60
NOTE = "Green: what makes the two similar. Red: what is missing to a perfect match. Each map is on its own scale. {}"
METHOD_NOTES = {
    "exact": "The values of all positions sum exactly to the score, and to its distance from 1.",
    "covers": "By occlusion: how much the score falls, or rises, when a part is covered.",
}


def explain_matches(
    folder: Path, model: LoadedModel, query: ImageSet, reference: ImageSet, nearest_Q: np.ndarray
) -> ExplainedMatches:
    """Explain the match of every query with its nearest reference.

    Args:
        folder: Folder of images, JSON and page.
        model: The network.
        query, reference: The images.
        nearest_Q: Index of each query's nearest reference.
    """
    pairs = [(i, int(nearest)) for i, nearest in enumerate(nearest_Q.tolist())]
    return _write_explanations(folder, model, query, reference, pairs, "Why they matched", "explain")


def explain_misses(
    folder: Path, model: LoadedModel, query: ImageSet, query_ND: np.ndarray, reference: ImageSet, reference_MD: np.ndarray,
    most: int, *, same: bool,
) -> ExplainedMatches | None:  # fmt: skip
    """Explain the ``most`` misses with the largest lead of the wrong class.

    Each is compared with the wrong reference and with the nearest one of its own class; None where there are no misses.
    ``same``: the queries are the references.
    """
    pairs = worst_misses(query_ND, query.labels_N, reference_MD, reference.labels_N, most, same=same)
    if not pairs:
        say("no misses to explain")
        return None
    comparisons = [pair for i, wrong, correct in pairs for pair in ((i, wrong), (i, correct))]
    return _write_explanations(folder, model, query, reference, comparisons, "Why they were missed", "misses")


def worst_misses(
    query_ND: np.ndarray, query_labels_N: np.ndarray, reference_MD: np.ndarray, reference_labels_M: np.ndarray, most: int,
    *, same: bool,
) -> list[tuple[int, int, int]]:  # fmt: skip
    """Find misses: (query, nearest reference of another class, nearest of its own class), the largest lead first.

    Queries whose class has no reference are left out. With ``same`` an image is not its own reference.
    """
    misses = []
    reference_MD = l2_normalize(reference_MD)
    for first in range(0, len(query_ND), 256):
        score_BM = l2_normalize(query_ND[first : first + 256]) @ reference_MD.T
        for number, score_M in enumerate(score_BM, first):
            if same:
                score_M[number] = -np.inf
            own_M = reference_labels_M == query_labels_N[number]
            if not own_M.any() or own_M.all():
                continue
            correct = int(np.argmax(np.where(own_M, score_M, -np.inf)))
            wrong = int(np.argmax(np.where(own_M, -np.inf, score_M)))
            if score_M[wrong] > score_M[correct] and np.isfinite(score_M[correct]):
                misses.append((float(score_M[wrong] - score_M[correct]), number, wrong, correct))
    misses.sort(key=lambda miss: (-miss[0], miss[1]))
    return [(number, wrong, correct) for _, number, wrong, correct in misses[:most]]


def _write_explanations(
    folder: Path,
    model: LoadedModel,
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
        for number, (i, j) in enumerate(pairs):
            advance()
            try:
                explanation = explainer.explain(query.paths[i], reference.paths[j])
            except UnreadableImage as error:  # readable when it was embedded, removed or changed since
                say(f"not explained: {error}")
                continue
            name = f"{number:05d}.png"
            with atomic_write(folder / name) as partial:
                evidence_sheet(explanation).save(partial)
            entry = {
                "query": source_name(query.paths[i]), "query_label": _name(query, i), "reference": source_name(reference.paths[j]),
                "reference_label": _name(reference, j), "picture": name, "why": explanation.to_dict(),
            }  # fmt: skip
            lines.append(json.dumps(entry, ensure_ascii=True))
            if len(rows) < MAX_PAIRS:
                rows.append(_row(explanation, query, i, reference, j))
    write_text(folder / f"{stem}.jsonl", "\n".join(lines) + "\n" if lines else "")
    remainder = f" {len(lines) - len(rows)} more are in the folder." if len(lines) > len(rows) else ""
    page = Report(title, f"{len(lines)} pairs, by {model.source}")
    note = NOTE.format(METHOD_NOTES[explainer.method])
    names = [(entry["query_label"], entry["reference_label"]) for entry in map(json.loads, lines)]
    page.sentence(describe_pairs(names))
    page.gallery("Pairs", rows, note=note + remainder, columns=EXPLAINED_COLUMNS)
    say(f"explained: {folder / f'{stem}.html'}")
    return ExplainedMatches(rows, note, page.write(folder / f"{stem}.html"))


def describe_pairs(names: Sequence[tuple[str, str]]) -> str:
    """Say how many of the pairs of a query and a reference, by class name, are of one class; "" is unknown."""
    pairs = [(query, reference) for query, reference in names if query]
    if not pairs:
        return f"{count_of(len(names), 'image')} beside the nearest reference, with what makes the two alike."
    same = sum(query == reference for query, reference in pairs)
    return f"Of {count_of(len(pairs), 'pair')} of an image and a reference, {same:,} {'shows' if same == 1 else 'show'} one class."


def _row(
    explanation: Explanation, query: ImageSet, i: int, reference: ImageSet, j: int
) -> tuple[ReportImage, list[ReportImage]]:
    own = evidence_row(explanation.query_HWC, explanation.query)
    other = evidence_row(explanation.reference_HWC, explanation.reference)
    name, label = _name(query, i), _name(reference, j)
    correct = None if not name else name == label
    tiles = [ReportImage(own[1], ""), ReportImage(own[2], ""), ReportImage(other[0], label or reference.paths[j].name, explanation.score, correct),
             ReportImage(other[1], ""), ReportImage(other[2], "")]  # fmt: skip
    return ReportImage(own[0], name or query.paths[i].name), tiles


def _name(images: ImageSet, i: int) -> str:
    label = int(images.labels_N[i])
    return images.classes[label] if label >= 0 else ""
