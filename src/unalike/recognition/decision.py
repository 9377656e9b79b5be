"""Open-set decisions: label, ambiguous or unknown, by the threshold and the margin of a calibrated gallery.

- ``unknown``: the score of the best class is below ``threshold``;
- ``ambiguous``: the best class is less than ``margin`` ahead of the second;
- ``label``: the rest.

Shape letters: Q queries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from unalike.errors import DataError, SpecError, closest

LABEL, AMBIGUOUS, UNKNOWN = "label", "ambiguous", "unknown"
# How the nearest embeddings become a class; ``recognition.ranking`` holds one function for each.
RULES = ("nearest", "prototype", "vote")
# 2: the score is the cosine less a part of that to the second class (``second_weight``); files without that part stay at 1.
FORMAT_VERSION = 2


def check_rule(rule: str) -> str:
    """Return ``rule``. Raises SpecError with the close spellings when there is no such rule."""
    if rule not in RULES:
        raise SpecError(f"label by {rule!r}", expected=", ".join(RULES), remedy=closest(rule, RULES))
    return rule


def score_of(cosine_Q: np.ndarray, margin_Q: np.ndarray, second_weight: float) -> np.ndarray:
    """Scores that thresholds are compared with: the cosine of the best class less a part of that of the second class.

    An image that is somewhat like everything in a gallery is near to several classes, an image of a class to that one. Where
    there is no second class (infinite ``margin_Q``), its cosine counts as 0.

    Args:
        cosine_Q: cosine of each query's best class, -1..1.
        margin_Q: its lead over the second class, a difference of cosines.
        second_weight: the part, 0..1.
    """
    cosine_Q = np.asarray(cosine_Q, np.float64)
    if not second_weight:
        return cosine_Q
    second_Q = np.where(np.isfinite(margin_Q), cosine_Q - np.where(np.isfinite(margin_Q), margin_Q, 0), 0)
    score_Q: np.ndarray = cosine_Q - second_weight * second_Q
    return score_Q


def format_bounds(rate: float, low: float, high: float, note: str = "") -> str:
    """The bounds of a share with a note, or in words where there are too few classes to say (``Interval.too_few``)."""
    from unalike.metrics.intervals import TOO_FEW, Interval  # a deployed recognizer decides, and describes nothing

    return TOO_FEW if Interval(rate, low, high).too_few else f"{low:.1%} to {high:.1%}{note}"


@dataclass(frozen=True)
class RateGuarantee:
    """An error rate: its target, the rate measured, and a confidence interval.

    Attributes:
        target: the rate that was requested, 0..1.
        rate: the rate that was measured.
        low, high: bounds of the rate in as many images of as many other classes, with ``confidence``.
        trials: number of images that the rate was measured on.
        classes: number of classes of those images.
        effective: number of independent trials that they amount to, since images of one class resemble each other.
        needed: number of trials from which ``target`` can be supported.
        kept: whether there were that many, and a threshold that meets the target.
    """

    target: float
    rate: float
    low: float
    high: float
    confidence: float
    trials: int
    classes: int
    effective: float
    needed: int
    kept: bool = True


@dataclass(frozen=True)
class GalleryCalibration:
    """Decision threshold and margin for one rule and one state of a gallery.

    Attributes:
        threshold: lowest score (``score_of``) of a known image; a cosine (-1..1) where ``second_weight`` is 0.
        margin: smallest lead of the best class over the second: a difference of cosines, or of vote shares under the
            rule ``vote``.
        rule: how neighbors become a class, one of ``RULES``.
        k: number of neighbors that vote under the rule ``vote``.
        false_match: share of images of unknown classes that are not called unknown.
        wrong_label: share of images of known classes that get another class's name; None where no class has two images.
        vectors, classes, revision: size and revision of the gallery for which the calibration holds.
        made_from: which images the trials were made with, in words.
        figures: shares of known images by decision, and the AUROC of known against unknown.
        provisional: whether the threshold was set by the scores of known images alone, since the images cannot support a
            promised rate; ``false_match`` is then what was measured, and nothing is promised.
        needs: what a promised rate would need, in words; empty where the rate is promised.
        tail: mean excess of the best scores of unknown images over the threshold, by which it is raised for a larger gallery
            (``threshold_for``); 0 where it was not measured, and in files of earlier releases.
        second_weight: part of the second class's cosine that is subtracted from the best one before it is compared with the
            threshold, 0..1; 0 in files of earlier releases.
    """

    threshold: float
    margin: float
    rule: str
    k: int
    false_match: RateGuarantee
    wrong_label: RateGuarantee | None
    vectors: int
    classes: int
    made_from: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    revision: int = 0
    tail: float = 0.0
    provisional: bool = False
    needs: str = ""
    second_weight: float = 0.0

    def threshold_for(self, vectors: int, classes: int) -> float:
        """Compute the threshold for a gallery of another size.

        The best of r times as many references reaches a high score r times as often (each pair of an image and a reference
        counts by itself), and the share of scores above a high threshold falls as exp(-score / tail), as extremes of thin-tailed
        distributions do (Pickands, 1975). So the threshold rises by tail x ln r. A smaller gallery keeps its threshold.

        Args:
            vectors: number of enrolled images.
            classes: number of enrolled classes; r is the larger ratio of the two.
        """
        ratio = max(vectors / max(self.vectors, 1), classes / max(self.classes, 1), 1.0)
        return self.threshold + self.tail * math.log(ratio)

    def holds_for(self, vectors: int, classes: int, revision: int) -> bool:
        """Whether a gallery of this size and revision is the one that the calibration was measured on."""
        return (self.vectors, self.classes, self.revision) == (vectors, classes, revision)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a gallery's file, a model card and ``--json``; earlier releases read it where they would decide alike."""
        values = asdict(self) | {"format_version": FORMAT_VERSION if self.second_weight else 1}
        if not self.second_weight:
            del values["second_weight"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GalleryCalibration:
        """Read what ``to_dict`` gave. Raises DataError when a newer release wrote it."""
        if int(values["format_version"]) > FORMAT_VERSION:
            raise DataError(f"a calibration of version {values['format_version']}", remedy="update unalike")
        names = {entry.name for entry in fields(cls)}
        own_values = {key: value for key, value in values.items() if key in names}
        own_values["format_version"] = FORMAT_VERSION
        own_values["false_match"] = RateGuarantee(**values["false_match"])
        own_values["wrong_label"] = RateGuarantee(**values["wrong_label"]) if values["wrong_label"] else None
        return cls(**own_values)

    def cosine_thresholds(
        self, score_Q: np.ndarray, margin_Q: np.ndarray, threshold: float | None = None
    ) -> np.ndarray:
        """The lowest cosine of a known image for each query: where ``second_weight`` is not 0 it depends on the second class.

        Args:
            score_Q, margin_Q, threshold: as of ``decide``.
        """
        base = self.threshold if threshold is None else threshold
        cosine_Q = np.asarray(score_Q, np.float64)
        threshold_Q: np.ndarray = base + (cosine_Q - score_of(cosine_Q, margin_Q, self.second_weight))
        return threshold_Q

    def decide(
        self,
        score_Q: np.ndarray,
        margin_Q: np.ndarray,
        threshold: float | None = None,
        *,
        lead_Q: np.ndarray | None = None,
    ) -> list[str]:
        """Return LABEL, AMBIGUOUS or UNKNOWN for each query.

        A score of exactly the threshold is known, a margin of exactly ``margin`` gives a label.

        Args:
            score_Q: cosine of each query's best class, -1..1.
            margin_Q: its lead over the second class.
            threshold: lowest score of a known image, from ``threshold_for``; ``self.threshold`` when None.
            lead_Q: lead over the second class of the whole gallery, where ``margin_Q`` is that of a part of it.
        """
        decisions = np.full(len(score_Q), LABEL, dtype=object)
        decisions[margin_Q < self.margin] = AMBIGUOUS
        base = self.threshold if threshold is None else threshold
        decisions[score_of(score_Q, margin_Q if lead_Q is None else lead_Q, self.second_weight) < base] = UNKNOWN
        return decisions.tolist()

    def describe_score(self) -> str:
        """What the threshold is compared with, in words."""
        if not self.second_weight:
            return "the cosine of the nearest class"
        return f"the cosine of the nearest class less {self.second_weight:g} times that of the second"

    def __str__(self) -> str:
        score = f", of {self.describe_score()}" if self.second_weight else ""
        return f"threshold {self.threshold:.4f}{score}, margin {self.margin:.4f} (by {self.rule}); {self.costs()}"

    def refused_share(self) -> tuple[float, float, float, int, int] | None:
        """Share of images of known classes that are called unknown, its bounds, and the images and classes behind it."""
        names = ("known_unknown", "known_unknown_low", "known_unknown_high", "known_images", "known_classes")
        rate, low, high, images, classes = (self.figures.get(name) for name in names)
        if rate is None or low is None or high is None or images is None or classes is None:
            return None
        return rate, low, high, int(images), int(classes)

    def costs(self) -> str:
        """What the threshold costs in both directions, in words: unknown images taken for known, known images refused."""
        share = self.false_match
        bounds = format_bounds(share.rate, share.low, share.high, f" with {share.confidence:.0%} confidence")
        text = "how many images of unknown classes are taken for known was not measured"
        if share.trials:
            text = (
                f"of images of unknown classes {share.rate:.1%} are taken for known ({bounds}; {share.trials} trials of "
                f"{share.classes} classes)" + ("; no trial reaches the threshold" if share.rate == 0 else "")
            )
        if refusal := self.refused_share():
            rate, low, high, images, classes = refusal
            text += (
                f"; of images of known classes {rate:.1%} are called unknown ({format_bounds(rate, low, high)}; "
                f"{images} images of {classes} classes)"
            )
        elif not self.figures:
            text += (
                "; how many images of known classes are called unknown cannot be measured: no class has a second image"
            )
        return text
