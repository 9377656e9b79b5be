"""The result of verifying an image: the answer, its score, and why and where the image differs from the asset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unalike.verification.measures import AssetDifference
    from unalike.verification.regions import AlteredRegion

SAME, ALTERED, DIFFERENT, ABSENT = "same", "altered", "different", "not in the set"
ANSWERS = (SAME, ALTERED, DIFFERENT, ABSENT)
REASONS = {
    "edges": "its outlines do not agree",
    "mirrored": "it is a mirror image",
    "rotated": "it is rotated by more than 15 degrees",
    "distortion": "it is stretched or slanted",
    "colour": "it is recolored",
    "parts": "parts differ",
    "balance": "its strokes are heavier or lighter",
}


@dataclass(frozen=True)
class VerificationResult:
    """The result for one image.

    Attributes:
        answer: One of ANSWERS.
        asset: Name of the nearest asset, whatever the answer.
        score: How unaltered the asset is, 0 to 1; ``same`` from ``threshold`` on.
        threshold: The calibrated threshold.
        similarity: Cosine similarity of the vectors.
        reasons: The measures beyond their limits, the largest first, in units of the limit.
        regions: Where the image differs.
        outline: The asset's corners, (x, y) in pixels of the image.
        rotation: Degrees, counter-clockwise positive.
        scale: Image pixels per pixel of the asset.
        is_global: Whether most of the asset differs.
        twins: Assets that cannot be distinguished from this one.
        size: (H, W) of the image.
        difference: Heat map and images in the asset's frame; not part of ``to_dict``.
    """

    answer: str
    asset: str
    score: float
    threshold: float
    similarity: float
    reasons: dict[str, float] = field(default_factory=dict)
    regions: tuple[AlteredRegion, ...] = ()
    outline: tuple[tuple[float, float], ...] = ()
    rotation: float = 0.0
    scale: float = 0.0
    is_global: bool = False
    twins: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    difference: AssetDifference | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return format_result(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; the keys are those of ``verdicts.jsonl``."""
        return {
            "answer": self.answer, "asset": self.asset, "score": round(self.score, 4), "threshold": round(self.threshold, 4),
            "likeness": round(self.similarity, 4), "reasons": {k: round(v, 3) for k, v in self.reasons.items()},
            "spots": [region.to_dict() for region in self.regions],
            "outline": [[round(x, 1), round(y, 1)] for x, y in self.outline],
            "whole": self.is_global, "turn": round(self.rotation, 2), "scale": round(self.scale, 4),
            "twins": list(self.twins), "size": list(self.size),
        }  # fmt: skip


def format_result(result: Mapping[str, Any]) -> str:
    """Return one line about a result's plain data (``to_dict``)."""
    answer, asset, score = result["answer"], result["asset"], result["score"]
    if answer == SAME:
        return f"same as {asset} (score {score:.3f})"
    if answer == ABSENT:
        return f"{answer} (nearest {asset})"
    if answer == DIFFERENT:
        return f"different from {asset}"
    reason = _main_reason(result["reasons"], result["whole"])
    return f"altered {asset}: {reason} (score {score:.3f}, same from {result['threshold']:.3f})"


def _main_reason(reasons: Mapping[str, float], is_global: bool) -> str:
    """The reason in words: a cause before its consequences."""
    for cause in ("mirrored", "rotated", "distortion"):
        if cause in reasons:
            return REASONS[cause]
    if is_global and "edges" not in reasons:  # most of it differs, while its outlines agree
        return REASONS["colour"]
    return next(
        (REASONS[name] for name in ("parts", "colour", "balance", "edges") if name in reasons), "it differs a little"
    )
