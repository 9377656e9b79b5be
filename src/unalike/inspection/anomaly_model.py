"""The fitted anomaly model: memory bank, patch whitening and position encoding; scores patches (PatchCore).

Functions of arrays alone; no network and no images. Shape letters: N patches, F their width, M patches in the memory bank,
h x w a grid of patches, P = 6 values of a patch's position (``patch_features.patch_positions``): row and column (0..1 of
the longer side of the grid), then the distances in pixels of its center from the upper, lower, left and right border of
the image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unalike.errors import SpecError
from unalike.inspection.coreset import greedy_coreset
from unalike.inspection.memory_bank import MemoryBank
from unalike.inspection.patch_classifier import PatchClassifier

# The weight of one direction is at most this many times the mean weight.
MAX_WEIGHT = 10.0
# Share of the mean variance that is added to every direction, so that those without variance do not drown the others.
VARIANCE_FLOOR = 0.01
# Normal patches around a patch of the memory bank that its local spread is measured with, and the share of the median
# spread that is added to it (0.3 made plain surfaces too strict; docs/experiments/inspection.md, 2026-11-30).
SPREAD_NEIGHBORS, SPREAD_FLOOR = 8, 1.0
# Weight of the patch classifier beside the distance, where there is one (chosen on defects that no figure is reported on;
# docs/experiments/inspection.md, 2026-11-26).
CLASSIFIER_WEIGHT = 2.0
# Distance of a patch at a border from one that looks the same and lies inside, in typical distances of normal patches.
BORDER_DISTANCE = 1.5
# Largest smoothing, in patches, and border, in pixels.
MAX_LENGTH = 10_000
# What the anomaly map of an image shows (``AnomalyModelConfig.localize_by``).
LOCALIZATIONS = ("distance", "score")

# Field of AnomalyModelConfig -> its key in inspector files, where the two differ.
STORED_KEYS = {"top_share": "hottest", "synthetic_defects": "flaws"}


@dataclass(frozen=True)
class AnomalyModelConfig:
    """Hyperparameters of an anomaly model. The defaults were measured (docs/experiments/inspection.md, 2026-11-26).

    Attributes:
        patches: Patches of normal images that are sampled; the memory bank is chosen from them.
        memory: Size of the memory bank, 1 to ``patches``.
        whiten: Share of the covariance of normal patches that is undone, from 0 (none) to 1 (all but a floor).
        local: How far the spread of normal patches around each patch of the memory bank is undone. 0: a distance means the
            same everywhere; 1: distances count in units of that spread, so that an edge, which never looks the same twice,
            may differ more than a plain surface.
        smooth: Standard deviation of the Gaussian that smooths the anomaly map, in patches.
        top_share: Share of an image's patches, the most anomalous ones, whose mean is the image's score (at most 16
            patches; 0: the highest value alone).
        fixture: For parts that always lie in the same place: how far a patch may have moved, as a share of the image's
            longer side. 0 ignores where patches lie.
        border: Up to this distance in pixels (of the scaled image), a patch's distance from each border of the image is
            part of it, so that rims are compared with rims. 0 ignores borders.
        folds: Number of folds for the scores of normal images by models that were fitted without them.
        search: ``exact``, or ``ann`` (faiss, extra ``ann``).
        synthetic_defects: Number of tiles with synthetic defects that a patch classifier is fitted to. 0: no classifier,
            the anomaly map is the distance alone.
        seed: Seed of sampling and folds.
        localize_by: What the anomaly map shows. ``score``: the values that the image is scored by, with the local spread
            undone. ``distance``: the plain distances, by one factor an image, so that its score stays the same: where normal
            patches hardly vary, such as on a plain ground, a small distance is none.

    Raises:
        SpecError: A value out of range.
    """

    patches: int = 20_000
    memory: int = 2_000
    whiten: float = 0.0
    local: float = 1.0
    smooth: float = 1.0
    top_share: float = 0.01
    fixture: float = 0.0
    border: float = 48.0
    folds: int = 4
    search: str = "exact"
    synthetic_defects: int = 0
    seed: int = 0
    localize_by: str = "distance"

    def __post_init__(self) -> None:
        if not 1 <= self.memory or not self.memory <= self.patches:
            raise SpecError(
                f"a memory of {self.memory} of {self.patches} patches", expected="1 to the number of patches"
            )
        if not (0 <= self.whiten <= 1 and 0 <= self.local <= 1):
            raise SpecError(f"whiten {self.whiten}, local {self.local}", expected="0 to 1")
        for name in ("smooth", "fixture", "border"):
            if not 0 <= getattr(self, name) <= MAX_LENGTH:
                raise SpecError(f"{name} {getattr(self, name)}", expected=f"0 to {MAX_LENGTH}")
        if not 0 <= self.top_share <= 1:
            raise SpecError(f"top_share {self.top_share}", expected="0 to 1")
        if self.synthetic_defects < 0:
            raise SpecError(f"{self.synthetic_defects} tiles with synthetic defects", expected="0 or more")
        if self.localize_by not in LOCALIZATIONS:
            raise SpecError(f"localize_by {self.localize_by!r}", expected=" or ".join(LOCALIZATIONS))
        if self.folds < 2:
            raise SpecError(f"{self.folds} folds", expected="2 or more")

    def to_dict(self) -> dict[str, Any]:
        """Plain data under the keys of inspector files."""
        return {STORED_KEYS.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AnomalyModelConfig:
        """The inverse of ``to_dict``; fields that older files lack get the value with which those were fitted."""
        fields = {key: name for name, key in STORED_KEYS.items()}
        # Version 1 knew the highest value alone and no synthetic defects; neither 1 nor 2 knew borders; all before 6 had one
        # map for score and place.
        older: dict[str, Any] = {"top_share": 0.0, "synthetic_defects": 0, "border": 0.0, "localize_by": "score"}
        return cls(**{**older, **{fields.get(key, key): value for key, value in values.items()}})


@dataclass(frozen=True)
class PositionEncoding:
    """Values that are appended to a patch vector so that its position counts; none by default.

    Attributes:
        place: Factor of row and column; 0 leaves them out.
        border: Distance from a border of the image, in pixels, from which on the border does not count; 0 leaves it out.
        rim: The four border values of a patch rise from 0 at a border to ``rim`` at distance ``border``.
    """

    place: float = 0.0
    border: float = 0.0
    rim: float = 0.0

    def append(self, vectors_NF: np.ndarray, positions_NP: np.ndarray) -> np.ndarray:
        """Append the encoded positions to the vectors."""
        columns = [vectors_NF]
        if self.place:
            columns.append(positions_NP[:, :2] * np.float32(self.place))
        if self.border:
            columns.append(np.minimum(positions_NP[:, 2:] / np.float32(self.border), 1) * np.float32(self.rim))
        return np.concatenate(columns, axis=1) if len(columns) > 1 else vectors_NF


class AnomalyModel:
    """Scores patches by their distance from a memory bank of normal patches, and by a patch classifier where there is one.

    Args:
        mean_F, mix_FF: The linear map of patch vectors, ``(x - mean) @ mix``.
        memory: The memory bank, in the mapped space with encoded positions.
        positions: How the positions of patches are encoded.
        local_M: Divisor of the distance from each patch of the memory bank: the spread of normal patches around it.
        classifier: Gives the log odds that a patch is defective. They are multiplied by ``gain`` and added to the
            logarithm of the distance.
        gain: Factor of the classifier's log odds.
    """

    def __init__(
        self, mean_F: np.ndarray, mix_FF: np.ndarray, memory: MemoryBank, positions: PositionEncoding,
        local_M: np.ndarray, classifier: PatchClassifier | None = None, gain: float = 0.0,
    ) -> None:  # fmt: skip
        self.mean_F, self.mix_FF, self.memory, self.positions, self.local_M = mean_F, mix_FF, memory, positions, local_M
        self.classifier, self.gain = classifier, gain

    @classmethod
    def fit(
        cls, vectors_NF: np.ndarray, positions_NP: np.ndarray, config: AnomalyModelConfig,
        random_N: np.ndarray | None = None, image_N: np.ndarray | None = None,
    ) -> AnomalyModel:  # fmt: skip
        """Fit a model to patches of normal images.

        Args:
            vectors_NF: float32 patch vectors.
            positions_NP: Their positions.
            config: Hyperparameters.
            random_N: bool, which patches were sampled at random and so represent the distribution; all by default.
            image_N: The image that each patch comes from; each patch its own by default.
        """
        usual_NF = vectors_NF if random_N is None else vectors_NF[random_N]
        mean_F, mix_FF = fit_whitening(usual_NF, config.whiten)
        positions = PositionEncoding()
        if config.fixture > 0 or config.border > 0:
            typical = typical_distance((usual_NF - mean_F) @ mix_FF, config.seed)
            # A patch that moved by ``fixture`` is as far as two normal patches that are a typical distance apart.
            place = typical / config.fixture if config.fixture > 0 else 0.0
            positions = PositionEncoding(place, config.border, BORDER_DISTANCE * typical)
        encoded_NF = positions.append((vectors_NF - mean_F) @ mix_FF, positions_NP)
        chosen_M = greedy_coreset(encoded_NF, config.memory, seed=config.seed)
        local_M = np.ones(len(chosen_M), np.float32)
        if config.local > 0:
            owner_N = np.arange(len(encoded_NF)) if image_N is None else image_N
            usual_N = np.ones(len(encoded_NF), np.bool_) if random_N is None else random_N
            spread_M = local_spread(encoded_NF[chosen_M], owner_N[chosen_M], encoded_NF[usual_N], owner_N[usual_N])
            local_M = spread_M ** np.float32(config.local)
        memory = MemoryBank(encoded_NF[chosen_M], config.search)
        return cls(mean_F, mix_FF, memory, positions, local_M)

    def transform(self, vectors_NF: np.ndarray, positions_NP: np.ndarray) -> np.ndarray:
        """Map patches into the space of the memory bank."""
        return self.positions.append((vectors_NF - self.mean_F) @ self.mix_FF, positions_NP)

    def extended(self, vectors_NF: np.ndarray, positions_NP: np.ndarray, size: int, seed: int) -> AnomalyModel:
        """The model with patches of further normal images in its memory bank; ``self`` stays as it is.

        The space stays that of the fit, and so do the classifier and the unit of the local spread: distances mean what they
        meant. The spread around a further patch is that around the nearest patch of the bank, since the random patches by
        which a spread is measured are not kept.

        Args:
            vectors_NF: float32 patch vectors; may be empty.
            positions_NP: Their positions.
            size: Size of the memory bank; a coreset of old and further patches where there are more.
            seed: Seed of the coreset.
        """
        if not len(vectors_NF):
            return self
        encoded_NF = self.transform(vectors_NF, positions_NP)
        local_N = self.local_M[self.memory.nearest(encoded_NF)[1][:, 0]]
        pool_NF = np.concatenate([self.memory.vectors_MF, encoded_NF])
        chosen_M = greedy_coreset(pool_NF, size, seed=seed)
        local_M = np.concatenate([self.local_M, local_N])[chosen_M]
        memory = MemoryBank(pool_NF[chosen_M], self.memory.search)
        return AnomalyModel(self.mean_F, self.mix_FF, memory, self.positions, local_M, self.classifier, self.gain)

    def anomaly_maps(self, vectors_hwF: np.ndarray, positions_hwP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Score a grid of patches.

        Returns:
            float32 (h, w) twice: the distances in units of the local spread, and the plain distances; both raised or lowered
            by the classifier.
        """
        height, width, channels = vectors_hwF.shape
        vectors_NF = vectors_hwF.reshape(-1, channels)
        plain_N, spread_N = self._nearest(vectors_NF, positions_hwP.reshape(-1, positions_hwP.shape[-1]))
        if self.classifier is not None:
            plain_N = plain_N * np.exp(np.float32(self.gain) * self.classifier(vectors_NF))
        return (plain_N / spread_N).reshape(height, width), plain_N.reshape(height, width)

    def distance(self, vectors_NF: np.ndarray, positions_NP: np.ndarray) -> np.ndarray:
        """Distance of patches from their nearest in the memory bank, in units of the local spread; float32 (N,)."""
        plain_N, spread_N = self._nearest(vectors_NF, positions_NP)
        distance_N: np.ndarray = plain_N / spread_N
        return distance_N

    def _nearest(self, vectors_NF: np.ndarray, positions_NP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance of patches from their nearest in the memory bank, and the local spread there; float32 (N,) each."""
        distance_N1, nearest_N1 = self.memory.nearest(self.transform(vectors_NF, positions_NP))
        return distance_N1[:, 0], self.local_M[nearest_N1[:, 0]]

    def with_classifier(
        self, classifier: PatchClassifier, vectors_NF: np.ndarray, positions_NP: np.ndarray
    ) -> AnomalyModel:
        """Add a patch classifier.

        Its gain is set on normal patches so that the spread of its log odds is ``CLASSIFIER_WEIGHT`` times that of the
        logarithm of the distance.
        """
        distance_N = self.distance(vectors_NF, positions_NP)
        usual_N = distance_N > 0.01 * np.median(distance_N)  # without those that are in the memory bank themselves
        deviation = float(np.log(distance_N[usual_N]).std()) if usual_N.any() else 0.0
        gain = CLASSIFIER_WEIGHT * deviation / max(float(classifier(vectors_NF).std()), 1e-6)
        return AnomalyModel(self.mean_F, self.mix_FF, self.memory, self.positions, self.local_M, classifier, gain)

    def residual_moment(self, vectors_NF: np.ndarray, positions_NP: np.ndarray) -> np.ndarray:
        """Second moment of the difference of patches from their nearest in the memory bank, float64 (F, F).

        It is given in the space of the unmapped vectors, so that models of other folds can use it.
        """
        encoded_NF = self.transform(vectors_NF, positions_NP)
        nearest_N = self.memory.nearest(encoded_NF)[1][:, 0]
        width = len(self.mix_FF)
        residual_NF = (encoded_NF - self.memory.vectors_MF[nearest_N])[:, :width].astype(np.float64)
        residual_NF = residual_NF @ np.linalg.inv(self.mix_FF.astype(np.float64))
        moment_FF: np.ndarray = residual_NF.T @ residual_NF / max(1, len(residual_NF))
        return moment_FF

    def updated(self, normal_FF: np.ndarray, defect_FF: np.ndarray, patches: int) -> AnomalyModel:
        """Reweight the directions of the space by how well they separate defective from normal patches.

        Were a residual normally distributed in each direction, with variance g for normal and b for defective patches, the
        log likelihood ratio would weight its square by ``1 / g - 1 / b``. That is the weight, shrunk towards equal weights
        where there are few defective patches.

        Args:
            normal_FF: ``residual_moment`` of normal patches that the model was not fitted to.
            defect_FF: ``residual_moment`` of defective patches.
            patches: Number of defective patches.
        """
        mix_FF = self.mix_FF.astype(np.float64)
        normal_F, defect_F = (np.einsum("fk,fg,gk->k", mix_FF, moment, mix_FF) for moment in (normal_FF, defect_FF))
        normal_F = np.maximum(normal_F, 1e-3 * normal_F.mean())
        weight_F = np.maximum(1 / normal_F - 1 / np.maximum(defect_F, 1e-12), 0)
        weight_F = np.minimum(weight_F / max(weight_F.mean(), 1e-30), MAX_WEIGHT)
        trust = patches / (patches + 10 * len(weight_F))
        scale_F = np.sqrt((1 - trust) + trust * weight_F)
        encoded_F = np.concatenate([scale_F, np.ones(self.memory.width - len(scale_F))]).astype(np.float32)
        memory = MemoryBank(self.memory.vectors_MF * encoded_F, self.memory.search)
        mix_FF = (mix_FF * scale_F).astype(np.float32)
        return AnomalyModel(self.mean_F, mix_FF, memory, self.positions, self.local_M, self.classifier, self.gain)


def fit_whitening(vectors_NF: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Fit the linear map that undoes a share of the covariance.

    In each principal direction of variance v the factor is ``(v + floor) ** (-share / 2)``. The result is scaled so that
    the mean square of a vector is 1, so that distances mean the same whatever the trunk.

    Args:
        vectors_NF: Patch vectors.
        share: 1 gives unit covariance, 0 leaves the vectors up to a common scale.

    Returns:
        (mean_F, mix_FF), float32, to be applied as ``(x - mean) @ mix``.
    """
    mean_F = vectors_NF.mean(axis=0, dtype=np.float64)
    centered_NF = vectors_NF.astype(np.float64) - mean_F
    values_F, axes_FF = np.linalg.eigh(centered_NF.T @ centered_NF / max(1, len(vectors_NF) - 1))
    values_F = np.maximum(values_F, 0)
    floor = VARIANCE_FLOOR * max(float(values_F.mean()), 1e-12)
    factor_F = (values_F + floor) ** (-share / 2)
    factor_F /= math.sqrt(max(float((values_F * factor_F**2).sum()), 1e-30))
    return mean_F.astype(np.float32), (axes_FF * factor_F).astype(np.float32)


def local_spread(memory_MF: np.ndarray, owner_M: np.ndarray, usual_NF: np.ndarray, owner_N: np.ndarray) -> np.ndarray:
    """Measure how far the patches of other images lie around each patch of the memory bank; float32 (M,), median 1.

    It is the mean distance of the ``SPREAD_NEIGHBORS`` nearest, plus ``SPREAD_FLOOR`` of the median, so that no place
    is infinitely strict. Where all of the nearest are of the patch's own image, the farthest of them counts.

    Args:
        memory_MF, owner_M: Patches of the memory bank and the image of each.
        usual_NF, owner_N: Randomly sampled normal patches and the image of each.
    """
    distance_MK, nearest_MK = MemoryBank(usual_NF).nearest(memory_MF, 4 * SPREAD_NEIGHBORS)
    other_MK = owner_N[nearest_MK] != owner_M[:, None]
    counted_MK = other_MK & (np.cumsum(other_MK, axis=1) <= SPREAD_NEIGHBORS)
    total_M = np.where(counted_MK, distance_MK, 0).sum(axis=1)
    mean_M = np.where(counted_MK.any(axis=1), total_M / np.maximum(counted_MK.sum(axis=1), 1), distance_MK[:, -1])
    mean_M = mean_M + SPREAD_FLOOR * np.median(mean_M)
    spread_M: np.ndarray = np.maximum((mean_M / max(float(np.median(mean_M)), 1e-12)).astype(np.float32), 1e-6)
    return spread_M


def typical_distance(vectors_NF: np.ndarray, seed: int, sample: int = 2000) -> float:
    """Median distance from a patch to its nearest other one, in a random sample of at most ``sample`` patches."""
    rng = np.random.default_rng(seed)
    chosen_NF = vectors_NF[rng.choice(len(vectors_NF), min(sample, len(vectors_NF)), replace=False)]
    distance_NK = MemoryBank(chosen_NF).nearest(chosen_NF, 2)[0]
    return max(float(np.median(distance_NK[:, -1])), 1e-6)
