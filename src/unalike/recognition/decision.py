"""Label, ambiguous or unknown: what a calibration says, and the answer that follows from two scores.

- ``unknown``: no class is as near as ``threshold``;
- ``ambiguous``: two classes are nearly as near, the best less than ``margin`` before the second;
- ``label``: the rest.

Shape letters: Q queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from unalike.errors import DataError, SpecError, closest

LABEL, AMBIGUOUS, UNKNOWN = "label", "ambiguous", "unknown"
# How the nearest vectors become a class: gallery.ranking holds one function each.
RULES = ("nearest", "prototype", "vote")
FORMAT_VERSION = 1


def check_rule(rule: str) -> str:
    """The rule itself. Raises SpecError with the close spellings."""
    if rule not in RULES:
        raise SpecError(f"label by {rule!r}", expected=", ".join(RULES), remedy=closest(rule, RULES))
    return rule


@dataclass(frozen=True)
class RateGuarantee:
    """A share of wrong answers: what was asked for, what was measured, and how surely.

    ``rate`` was measured in ``trials`` with images of ``classes`` classes, whose likeness within a class makes them count
    as ``effective`` independent ones. In as many images of as many other classes it lies from ``low`` to ``high``
    (``confidence``). ``kept`` says whether the data can support ``target`` at all; ``needed`` trials could.
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
    """Where "unknown" and "ambiguous" begin, for one rule and one state of a gallery.

    ``threshold`` is a cosine (-1..1), ``margin`` a difference of cosines (of vote shares under the rule ``vote``).
    ``false_match``: the share of images of unknown classes that are not called unknown; ``wrong_label``: the share of
    images of known classes that get another class's name (None where no class has two images).
    ``vectors``, ``classes`` and ``revision`` are those of the gallery for which it holds.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a gallery's head, a model card, ``--json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> GalleryCalibration:
        """Raises DataError for one of a newer release."""
        if int(held["format_version"]) > FORMAT_VERSION:
            raise DataError(f"a calibration of version {held['format_version']}", remedy="update unalike")
        known = {key: value for key, value in held.items() if key in {f.name for f in fields(cls)}}
        known["false_match"] = RateGuarantee(**held["false_match"])
        known["wrong_label"] = RateGuarantee(**held["wrong_label"]) if held["wrong_label"] else None
        return cls(**known)

    def decide(self, score_Q: np.ndarray, margin_Q: np.ndarray) -> list[str]:
        """One of the three words a query. A score of exactly ``threshold`` is known, of exactly ``margin`` a label."""
        answers = np.full(len(score_Q), LABEL, dtype=object)
        answers[margin_Q < self.margin] = AMBIGUOUS
        answers[score_Q < self.threshold] = UNKNOWN
        return answers.tolist()

    def __str__(self) -> str:
        share = self.false_match
        return (
            f"threshold {self.threshold:.4f}, margin {self.margin:.4f} (by {self.rule}); unknown images taken for known: "
            f"{share.rate:.2%} ({share.low:.2%} to {share.high:.2%} with {share.confidence:.0%} confidence), "
            f"{share.trials} trials of {share.classes} classes"
        )
