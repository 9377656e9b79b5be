"""Scores of held-out images, stored in a model's file: what a gallery of the trained classes is calibrated by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from unalike.model.checkpoint import read_checkpoint, write_checkpoint
from unalike.training.automatic.holdout_result import HoldoutResult

MAX_QUERIES = 1000  # of each kind; some 30 bytes each in the model's file


def scores_of(result: HoldoutResult, seed: int = 0) -> dict[str, Any]:
    """Cosines of held-out images to their nearest references, each image once.

    Args:
        result: results with ``lookups``.
        seed: of the sample of images, where there are many.

    Returns:
        ``known``: for images of known classes the ``score`` of the nearest reference of other series (of the same where there
        is no other), their ``class``, and whether the nearest one was ``right``. ``unknown``: for images of held-out classes
        the ``score`` of the nearest reference of another class, their ``class`` and the ``matched`` one. Both with the ``lead`` of
        that class over the next one where every image has one. A part without images is left out.
    """
    lookups, rng = result.lookups, np.random.default_rng([seed, 53])
    if lookups is None:
        return {}

    def rows_of(kind: str) -> np.ndarray:
        rows = np.flatnonzero(result.kind_Q == kind)
        rows = rows[np.unique(lookups.query_Q[rows], return_index=True)[1]]
        return rows if len(rows) <= MAX_QUERIES else np.sort(rng.choice(rows, MAX_QUERIES, replace=False))

    scores: dict[str, Any] = {}
    known_rows = next((rows for rows in map(rows_of, ("known", "same")) if len(rows)), np.empty(0, np.int64))
    if len(known_rows):
        scores["known"] = {
            "score": _rounded(lookups.score_Q[known_rows]), "class": result.label_Q[known_rows].tolist(),
            "right": (result.hit_Q[known_rows] > 0).tolist(), **_leads(lookups.lead_Q[known_rows]),
        }  # fmt: skip
    new = rows_of("new")
    new = new[lookups.other_class_Q[new] >= 0]
    if len(new):
        scores["unknown"] = {
            "score": _rounded(lookups.other_score_Q[new]), "class": result.label_Q[new].tolist(),
            "matched": lookups.other_class_Q[new].tolist(), **_leads(lookups.lead_Q[new]),
        }  # fmt: skip
    return scores


def _leads(lead_Q: np.ndarray) -> dict[str, list[float]]:
    return {"lead": _rounded(lead_Q)} if np.isfinite(lead_Q).all() else {}


def _rounded(score_Q: np.ndarray) -> list[float]:
    scores: list[float] = np.round(score_Q.astype(np.float64), 4).tolist()
    return scores


def store_scores(checkpoint: Path, scores: dict[str, Any]) -> None:
    """Add the scores to the facts of a checkpoint, from which export takes them over."""
    payload = read_checkpoint(checkpoint)
    payload["facts"] = {**payload["facts"], "held_out_scores": scores}
    write_checkpoint(checkpoint, payload)
