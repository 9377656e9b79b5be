"""Images that a training withholds, so that a candidate and the model in service are compared on images that neither has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from unalike.learning.labeled_images import CORRECTION, LabeledImage
from unalike.storage.digests import text_sha256

SHARE = 0.3
# A class keeps so many images for training.
KEPT_FOR_TRAINING = 2


@dataclass(frozen=True)
class TrainingFacts:
    """What is known of the images that a model was trained on.

    Attributes:
        is_frozen: a pretrained trunk as it is: it has seen none of the user's images.
        hashes: digests of all images of its training; None where they are not known.
        until: when its training ended, in UTC; None where that is not known.
    """

    is_frozen: bool = False
    hashes: frozenset[str] | None = None
    until: datetime | None = None

    def excludes(self, image: LabeledImage) -> bool:
        """Whether the model cannot have been trained on an image; of unknown data only later corrections are sure."""
        if self.is_frozen:
            return True
        if self.hashes is not None:
            return image.sha256 not in self.hashes
        is_later = self.until is not None and image.time is not None and image.time > self.until
        return image.source == CORRECTION and is_later

    def describe(self) -> str:
        """In words, which images count."""
        if self.is_frozen:
            return "the model in service is a pretrained trunk that was trained on none of these images"
        if self.hashes is not None:
            return "the images of the training of the model in service are known, and left out"
        if self.until is not None:
            return f"the images of the training of the model in service are not known: corrections after {self.until:%Y-%m-%d %H:%M} count"
        return "neither the images nor the time of the training of the model in service are known: no image counts"

    def to_dict(self) -> dict[str, Any]:
        """Plain data without the digests."""
        return {"is_frozen": self.is_frozen, "images": None if self.hashes is None else len(self.hashes),
                "until": None if self.until is None else self.until.isoformat(), "counts": self.describe()}  # fmt: skip


def withhold(
    images: Sequence[LabeledImage],
    facts: TrainingFacts,
    *,
    share: float = SHARE,
    enrolled: Mapping[str, int] | None = None,
) -> tuple[list[LabeledImage], list[LabeledImage]]:
    """Divide images into those to train on and those to compare models on.

    Which image goes where follows from its digest alone: the same images are divided the same way.

    Args:
        images: one for each content.
        facts: of the model in service.
        share: of the images of each class that it cannot have been trained on, 0..1.
        enrolled: number of references of each class; images of other classes are not withheld, for no model can name them.

    Returns:
        (training images, withheld images).
    """
    by_class: dict[str, list[LabeledImage]] = {}
    for image in images:
        by_class.setdefault(image.label, []).append(image)
    withheld: set[str] = set()
    for label, members in by_class.items():
        if enrolled is not None and label not in enrolled:
            continue
        candidates = [image for image in members if facts.excludes(image)]
        candidates.sort(key=lambda image: text_sha256(f"withheld {image.sha256}"))
        # Of a class with few images none or one: by chance, so that the share holds over all classes.
        chance = int(text_sha256(f"share {label}")[:8], 16) / 16**8
        count = min(int(share * len(candidates) + chance), len(members) - KEPT_FOR_TRAINING)
        withheld.update(image.sha256 for image in candidates[: max(0, count)])
    return (
        [image for image in images if image.sha256 not in withheld],
        [image for image in images if image.sha256 in withheld],
    )
