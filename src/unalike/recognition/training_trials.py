"""Trials of unknown and of known classes that a network's training made with images that it held out.

A gallery whose classes the network was trained on cannot be calibrated by its own images: they are what the network was
fitted to, so that they are nearer to each other than a new photograph will be. Training stores the scores of the images that
it held out in the model's file, and these stand for new photographs.

Shape letters: M trials of known classes, N of unknown ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from unalike.recognition.calibration_trials import CalibrationTrials, KnownTrials, UnknownTrials, weigh_second
from unalike.recognition.snapshot import GallerySnapshot

MADE_FROM = "images that the training held out"


def trained_share(snapshot: GallerySnapshot, classes: Collection[str]) -> float:
    """Share of a gallery's classes (0..1) that a network was trained on, by their names."""
    gallery_classes = {snapshot.classes[code] for code in np.flatnonzero(snapshot.counts_C).tolist()}
    return len(gallery_classes & set(classes)) / max(len(gallery_classes), 1)


def trials_from_training(
    scores: Mapping[str, Any], snapshot: GallerySnapshot, rule: str, k: int
) -> CalibrationTrials | None:
    """The trials that a model's file stores (``training.automatic.held_out_scores``); None where it stores none.

    Args:
        scores: ``known`` and ``unknown``, each with lists ``score``, ``class``, and ``right`` or ``matched``; and ``lead``, the lead
            over the second class, in files of this release. Without it the score is the cosine.
        snapshot: the gallery.
        rule, k: of the gallery; the scores are those of the nearest reference.
    """
    known_scores, unknown = scores.get("known") or {}, scores.get("unknown") or {}
    if not known_scores.get("score"):
        return None
    score_M, score_N = (np.array(part.get("score", []), np.float64) for part in (known_scores, unknown))
    knowns = KnownTrials(
        score_M,
        np.array(known_scores.get("lead") or np.full(len(score_M), np.inf), np.float64),
        np.array(known_scores["right"], np.bool_),
        np.array(known_scores["class"], np.int64),
    )
    unknowns = UnknownTrials(
        score_N, np.array(unknown.get("class", []), np.int64), np.array(unknown.get("matched", []), np.int64),
        np.ones(len(score_N)), np.array(unknown["lead"], np.float64) if "lead" in unknown else None,
    )  # fmt: skip
    return weigh_second(CalibrationTrials(snapshot, rule, k, unknowns, knowns, MADE_FROM))
