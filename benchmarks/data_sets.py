"""Data sets of the benchmarks: what a set consists of, and the rules by which series of images are split.

The sets are loaded by `data_sources.py` and listed by `suite.py`. Shape letters: N images, P parts, C classes.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from unalike.data.imageset import ImageSet

SEED = 0
GOOD = "good"
# An image with its class and its series.
Row = tuple[Path, str, str]


@dataclass(frozen=True)
class Lookup:
    """Queries, and the reference images of the same classes in which they are looked up."""

    reference: ImageSet
    query: ImageSet


@dataclass(frozen=True)
class RecognitionSet:
    """Images of classes. ``fit`` may be trained on; series (``groups``) of queries are in no other part."""

    name: str
    rule: str
    fit: ImageSet
    development: Lookup
    report: Lookup

    def parts(self) -> dict[str, ImageSet]:
        """Every part by name."""
        return {
            "fit": self.fit,
            **{f"{name} {role}": getattr(getattr(self, name), role)
               for name in ("development", "report") for role in ("reference", "query")},
        }  # fmt: skip


@dataclass(frozen=True)
class InspectionSet:
    """Images of good (class ``good``) and defective parts.

    Attributes:
        fit: Good images to fit on.
        development: Images to choose settings on.
        report: Images to confirm them on.
        defects: Defective images that few-shot methods may learn from; may be empty.
        masks: Mask of each defective image that has one.
    """

    name: str
    rule: str
    fit: ImageSet
    development: ImageSet
    report: ImageSet
    defects: ImageSet
    masks: Mapping[Path, Path] = field(default_factory=dict)

    def parts(self) -> dict[str, ImageSet]:
        """Every part by name."""
        return {name: getattr(self, name) for name in ("fit", "defects", "development", "report")}


@dataclass(frozen=True)
class ImagePair:
    """An approved image and an image to compare with it.

    Attributes:
        reference: Approved image.
        image: Image to compare.
        group: Product or screen that the pair shows.
        boxes_N5: int: left, top, right, bottom, type (1 open, 2 short, 3 mousebite, 4 spur, 5 copper, 6 pin-hole); empty where
            no boxes are published.
        difference: Picture of the differing pixels (red) by pixelmatch, where there is one.
    """

    reference: Path
    image: Path
    group: str
    boxes_N5: np.ndarray
    difference: Path | None = None


@dataclass(frozen=True)
class ComparisonSet:
    """Pairs of images."""

    name: str
    rule: str
    development: tuple[ImagePair, ...]
    report: tuple[ImagePair, ...]

    def parts(self) -> dict[str, ImageSet]:
        """Every part by name, as the set of its approved images; the class is the group."""
        return {
            name: image_set([(pair.reference, pair.group, pair.group) for pair in getattr(self, name)])
            for name in ("development", "report")
        }


DataSet = RecognitionSet | InspectionSet | ComparisonSet


# ---- splits ----


def image_set(rows: Iterable[Row]) -> ImageSet:
    """An image set, sorted by path."""
    rows = sorted(rows)
    classes = tuple(sorted({label for _, label, _ in rows}))
    labels = [classes.index(label) for _, label, _ in rows]
    return ImageSet(tuple(row[0] for row in rows), np.array(labels, np.int64), classes, tuple(row[2] for row in rows))


def shuffle(names: Iterable[str], seed: int = SEED) -> list[str]:
    """The names in an order drawn by the seed: that of SHA-256 of seed and name."""
    return sorted(set(names), key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())


def split_groups(rows: Sequence[Row], shares: Mapping[str, float], seed: int = SEED) -> dict[str, list[Row]]:
    """Distribute whole groups over the parts, so that each part has about its share of every class.

    Groups come in the order drawn by the seed; each goes to the part that lacks most of its classes.

    Args:
        rows: Images with class and group.
        shares: Share of the images by part; they add up to 1.
        seed: Seed of the order.
    """
    classes = sorted({label for _, label, _ in rows})
    by_group: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_group[row[2]].append(row)
    counts = {name: np.array([sum(r[1] == c for r in group) for c in classes]) for name, group in by_group.items()}
    total_C = np.sum(list(counts.values()), axis=0)
    missing_PC = np.outer(list(shares.values()), np.ones(len(classes)))
    parts: list[list[Row]] = [[] for _ in shares]
    for name in shuffle(by_group, seed):
        share_C = counts[name] / total_C
        part = int(np.argmax(np.round(missing_PC @ share_C, 12)))
        missing_PC[part] -= share_C
        parts[part] += by_group[name]
    return dict(zip(shares, parts, strict=True))


def group_by_gaps(values: Sequence[float], gap: float) -> list[str]:
    """Number the values' series; a new series begins where two neighbors in sorted order are more than ``gap`` apart."""
    ordered = sorted(set(values))
    starts = np.cumsum([0, *(b - a > gap for a, b in pairwise(ordered))])
    number_of = dict(zip(ordered, starts.tolist(), strict=True))
    return [f"{number_of[value]:03d}" for value in values]


def known_classes(name: str, rule: str, parts: Mapping[str, Sequence[Row]]) -> RecognitionSet:
    """A set whose queries are of the classes that may be trained on; of other classes there are no queries."""
    fit = image_set(parts["fit"])
    lookups = [
        Lookup(fit, image_set(row for row in parts[key] if row[1] in fit.classes)) for key in ("development", "report")
    ]
    return RecognitionSet(name, rule, fit, *lookups)
