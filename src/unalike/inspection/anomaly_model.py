"""What "like the good ones" means for a patch: the space in which patches are compared, and the memory of good ones.

Functions of arrays alone. Shape letters: N patches, F their width, M remembered ones, h x w a grid of patches, P = 6 what is
known of where a patch lies: row and column (0..1 of the longer side of the grid), then how many pixels its middle is from the
upper, lower, left and right border of the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from unalike.errors import SpecError
from unalike.inspection.coreset import greedy_coreset
from unalike.inspection.memory_bank import PatchMemory
from unalike.inspection.patch_classifier import Perceptron

# A weight of one direction is at most this many times the mean weight.
LARGEST_WEIGHT = 10.0
# Of the mean variance: what is added to every direction, so that those without variance do not drown the others.
FLOOR = 0.01
# Usual patches around a remembered one that say how much good ones vary there, and what is added to their mean distance.
NEAR, FLOOR_SPREAD = 8, 0.3
# How much more the eye counts than the distance, where there is one (chosen on defects that no figure is reported on;
# docs/experiments/inspection.md, 2026-11-26).
EYE = 2.0
# How far a patch at a border is from one that looks alike and lies inside, in typical distances of good patches.
RIM = 1.5


@dataclass(frozen=True)
class Recipe:
    """What may be chosen when an inspector learns; the defaults were measured (docs/experiments/inspection.md,
    2026-11-26).

    ``patches``: how many patches of good images are drawn to choose the memory from; ``memory``: how many it keeps.
    ``whiten``: share of the good patches' covariance that is undone (0 none, 1 all but a floor). ``local``: how far the
    spread of good patches around a remembered one is undone (0: one distance means the same everywhere, 1: distances count
    in units of that spread, so that an edge, which is never twice the same, may differ more than plain ground).
    ``smooth``: sigma of the heat's smoothing in patches. ``hottest``: the share of an image's patches whose mean heat is its
    score (at most 16 patches; 0: the hottest alone). ``fixture``: for parts that always lie alike, how far (share of the
    image's longer side) a patch may have moved; 0 forgets where patches were. ``border``: up to how many pixels (of the
    picture as it is looked at) a patch's distance from each border of the picture is a part of it, so that a rim is compared
    with rims; 0 forgets it. ``folds``: into how many parts good images are split to judge each by the others. ``search``:
    exact or ann (faiss, extra ``ann``). ``flaws``: how many tiles with made-up flaws a perceptron learns from (0: none, the
    distance alone is the heat).
    """

    patches: int = 50_000
    memory: int = 5_000
    whiten: float = 0.0
    local: float = 1.0
    smooth: float = 1.0
    hottest: float = 0.01
    fixture: float = 0.0
    border: float = 48.0
    folds: int = 4
    search: str = "exact"
    flaws: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.memory or not self.memory <= self.patches:
            raise SpecError(
                f"a memory of {self.memory} of {self.patches} patches", expected="1 to the number of patches"
            )
        if not (0 <= self.whiten <= 1 and 0 <= self.local <= 1) or self.smooth < 0 or self.fixture < 0:
            raise SpecError(
                f"whiten {self.whiten}, local {self.local}, smooth {self.smooth}, fixture {self.fixture}",
                expected="whiten and local from 0 to 1, the others 0 or more",
            )
        if self.border < 0:
            raise SpecError(f"border {self.border}", expected="0 or more pixels")
        if not 0 <= self.hottest <= 1:
            raise SpecError(f"hottest {self.hottest}", expected="0 to 1")
        if self.flaws < 0:
            raise SpecError(f"{self.flaws} tiles with made-up flaws", expected="0 or more")
        if self.folds < 2:
            raise SpecError(f"{self.folds} folds", expected="2 or more")


@dataclass(frozen=True)
class Whereabouts:
    """How much it counts where a patch lies: nothing, as it stands.

    ``place`` multiplies row and column. With ``border``, four more values are 0 at a border of the picture and ``rim`` from
    that many pixels on.
    """

    place: float = 0.0
    border: float = 0.0
    rim: float = 0.0

    def beside(self, mixed_NF: np.ndarray, places_NP: np.ndarray) -> np.ndarray:
        """What patches look like, and beside it where they lie, as far as that counts."""
        parts = [mixed_NF]
        if self.place:
            parts.append(places_NP[:, :2] * np.float32(self.place))
        if self.border:
            parts.append(np.minimum(places_NP[:, 2:] / np.float32(self.border), 1) * np.float32(self.rim))
        return np.concatenate(parts, axis=1) if len(parts) > 1 else mixed_NF


class Judge:
    """A memory of good patches and the space in which they are compared: arrays alone. Patches -> heat.

    ``local_M`` divides the distance from each remembered patch: how far good patches usually are from it. ``eye``, where
    there is one, says how far a patch looks like a made-up flaw; its log odds times ``gain`` are added to the logarithm of
    the distance.
    """

    def __init__(
        self, mean_F: np.ndarray, mix_FF: np.ndarray, memory: PatchMemory, where: Whereabouts, local_M: np.ndarray,
        eye: Perceptron | None = None, gain: float = 0.0,
    ) -> None:  # fmt: skip
        self.mean_F, self.mix_FF, self.memory, self.where, self.local_M = mean_F, mix_FF, memory, where, local_M
        self.eye, self.gain = eye, gain

    @classmethod
    def learn(
        cls, vectors_NF: np.ndarray, places_NP: np.ndarray, recipe: Recipe, common_N: np.ndarray | None = None,
        image_N: np.ndarray | None = None,
    ) -> Judge:  # fmt: skip
        """From patches of good images and where each stood.

        ``common_N``: which were drawn by chance, so that they say what is usual (all, where it is not given); ``image_N``:
        of which image each is (each of its own, where it is not given).
        """
        usual_NF = vectors_NF if common_N is None else vectors_NF[common_N]
        mean_F, mix_FF = whitening(usual_NF, recipe.whiten)
        where = Whereabouts()
        if recipe.fixture > 0 or recipe.border > 0:
            usually = typical_distance((usual_NF - mean_F) @ mix_FF, recipe.seed)
            # A patch that moved by ``fixture`` is as far as two good patches that are a typical distance apart.
            place = usually / recipe.fixture if recipe.fixture > 0 else 0.0
            where = Whereabouts(place, recipe.border, RIM * usually)
        seen_NF = where.beside((vectors_NF - mean_F) @ mix_FF, places_NP)
        kept = greedy_coreset(seen_NF, recipe.memory, seed=recipe.seed)
        local_M = np.ones(len(kept), np.float32)
        if recipe.local > 0:
            owner_N = np.arange(len(seen_NF)) if image_N is None else image_N
            usual_N = np.ones(len(seen_NF), np.bool_) if common_N is None else common_N
            local_M = spread(seen_NF[kept], owner_N[kept], seen_NF[usual_N], owner_N[usual_N]) ** np.float32(
                recipe.local
            )
        memory = PatchMemory(seen_NF[kept], recipe.search)
        return cls(mean_F, mix_FF, memory, where, local_M)

    def seen(self, vectors_NF: np.ndarray, places_NP: np.ndarray) -> np.ndarray:
        """Patches in the space of the memory."""
        return self.where.beside((vectors_NF - self.mean_F) @ self.mix_FF, places_NP)

    def heat(self, vectors_hwF: np.ndarray, places_hwP: np.ndarray) -> np.ndarray:
        """float32 (h, w): each patch's distance from the memory, more where the eye sees a flaw and less where it sees none."""
        height, width, channels = vectors_hwF.shape
        vectors_NF = vectors_hwF.reshape(-1, channels)
        heat_N = self.distance(vectors_NF, places_hwP.reshape(-1, places_hwP.shape[-1]))
        if self.eye is not None:
            heat_N = heat_N * np.exp(np.float32(self.gain) * self.eye(vectors_NF))
        return heat_N.reshape(height, width)

    def distance(self, vectors_NF: np.ndarray, places_NP: np.ndarray) -> np.ndarray:
        """float32 (N,): how far patches are from their nearest in the memory, in units of the spread there."""
        distance_N1, near_N1 = self.memory.nearest(self.seen(vectors_NF, places_NP))
        distance_N: np.ndarray = (distance_N1 / self.local_M[near_N1])[:, 0]
        return distance_N

    def with_eye(self, eye: Perceptron, vectors_NF: np.ndarray, places_NP: np.ndarray) -> Judge:
        """The same memory with ``eye`` beside it. Among the good patches given, both speak with the same weight times EYE."""
        distance_N = self.distance(vectors_NF, places_NP)
        usual_N = distance_N > 0.01 * np.median(distance_N)  # those in the memory itself say nothing
        spread_of = float(np.log(distance_N[usual_N]).std()) if usual_N.any() else 0.0
        gain = EYE * spread_of / max(float(eye(vectors_NF).std()), 1e-6)
        return Judge(self.mean_F, self.mix_FF, self.memory, self.where, self.local_M, eye, gain)

    def leftover(self, vectors_NF: np.ndarray, places_NP: np.ndarray) -> np.ndarray:
        """float64 (F, F): the second moment of what is left of patches after their nearest neighbour is taken away.

        In the trunk's own space, so that judges of other foldings can use it.
        """
        seen_NF = self.seen(vectors_NF, places_NP)
        near_N = self.memory.nearest(seen_NF)[1][:, 0]
        width = len(self.mix_FF)
        rest_NF = (seen_NF - self.memory.vectors_MF[near_N])[:, :width].astype(np.float64)
        rest_NF = rest_NF @ np.linalg.inv(self.mix_FF.astype(np.float64))
        moment_FF: np.ndarray = rest_NF.T @ rest_NF / max(1, len(rest_NF))
        return moment_FF

    def weighted(self, good_FF: np.ndarray, bad_FF: np.ndarray, patches: int) -> Judge:
        """The same memory in a space where what tells defects counts more.

        ``good_FF`` and ``bad_FF`` are leftovers of unseen good patches and of ``patches`` defective ones. Were a leftover
        normal in each direction, with variance g for good and b for defective patches, its squares would speak by
        ``1 / g - 1 / b``: that is the weight, held back towards equal weights where few patches were given.
        """
        mix_FF = self.mix_FF.astype(np.float64)
        good_F, bad_F = (np.einsum("fk,fg,gk->k", mix_FF, moment, mix_FF) for moment in (good_FF, bad_FF))
        good_F = np.maximum(good_F, 1e-3 * good_F.mean())
        weight_F = np.maximum(1 / good_F - 1 / np.maximum(bad_F, 1e-12), 0)
        weight_F = np.minimum(weight_F / max(weight_F.mean(), 1e-30), LARGEST_WEIGHT)
        trust = patches / (patches + 10 * len(weight_F))
        scale_F = np.sqrt((1 - trust) + trust * weight_F)
        both_F = np.concatenate([scale_F, np.ones(self.memory.width - len(scale_F))]).astype(np.float32)
        memory = PatchMemory(self.memory.vectors_MF * both_F, self.memory.search)
        mix_FF = (mix_FF * scale_F).astype(np.float32)
        return Judge(self.mean_F, mix_FF, memory, self.where, self.local_M, self.eye, self.gain)


def whitening(vectors_NF: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """(mean_F, mix_FF), float32: ``(x - mean) @ mix`` has unit covariance for ``share`` 1, the plain scale for 0.

    In each principal direction of variance v the factor is ``(v + floor) ** (-share / 2)``; the result is scaled so that a
    vector's mean square is 1, so that distances mean the same whatever the trunk.
    """
    mean_F = vectors_NF.mean(axis=0, dtype=np.float64)
    centred_NF = vectors_NF.astype(np.float64) - mean_F
    values_F, axes_FF = np.linalg.eigh(centred_NF.T @ centred_NF / max(1, len(vectors_NF) - 1))
    values_F = np.maximum(values_F, 0)
    floor = FLOOR * max(float(values_F.mean()), 1e-12)
    factor_F = (values_F + floor) ** (-share / 2)
    factor_F /= math.sqrt(max(float((values_F * factor_F**2).sum()), 1e-30))
    return mean_F.astype(np.float32), (axes_FF * factor_F).astype(np.float32)


def spread(memory_MF: np.ndarray, owner_M: np.ndarray, usual_NF: np.ndarray, owner_N: np.ndarray) -> np.ndarray:
    """float32 (M,), median 1: how far usual patches of other images lie around each remembered one.

    The mean distance to its NEAR nearest, and a share FLOOR_SPREAD of the median added, so that no place is infinitely
    strict. Where all of the nearest are of its own image, the farthest of them counts.
    """
    distance_MK, near_MK = PatchMemory(usual_NF).nearest(memory_MF, 4 * NEAR)
    other_MK = owner_N[near_MK] != owner_M[:, None]
    counted_MK = other_MK & (np.cumsum(other_MK, axis=1) <= NEAR)
    total_M = np.where(counted_MK, distance_MK, 0).sum(axis=1)
    mean_M = np.where(counted_MK.any(axis=1), total_M / np.maximum(counted_MK.sum(axis=1), 1), distance_MK[:, -1])
    mean_M = mean_M + FLOOR_SPREAD * np.median(mean_M)
    result_M: np.ndarray = (mean_M / max(float(np.median(mean_M)), 1e-12)).astype(np.float32)
    return np.maximum(result_M, 1e-6)


def typical_distance(vectors_NF: np.ndarray, seed: int, sample: int = 2000) -> float:
    """The median distance from a patch to the nearest other, in a sample."""
    draws = np.random.default_rng(seed)
    some = vectors_NF[draws.choice(len(vectors_NF), min(sample, len(vectors_NF)), replace=False)]
    near = PatchMemory(some).nearest(some, 2)[0]
    return max(float(np.median(near[:, -1])), 1e-6)
