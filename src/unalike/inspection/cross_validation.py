"""Cross-validation of an anomaly model: out-of-fold scores, and whether a few-shot update helps.

Shape letters: I normal images, D defective images, J models (the plain one and the updated ones), F width of a patch vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unalike import progress
from unalike.data.decode import ImageInput
from unalike.inspection.anomaly_map import anomaly_maps, image_score
from unalike.inspection.anomaly_model import AnomalyModel, AnomalyModelConfig
from unalike.inspection.few_shot import MIN_IMAGES, FewShotUpdate, defect_patches, fit_few_shot, update_helps
from unalike.inspection.normal_images import PatchSample, ReadableImages
from unalike.inspection.patch_features import PatchExtractor
from unalike.inspection.synthetic_patches import SyntheticDefects


@dataclass(frozen=True)
class FitData:
    """Everything that models are fitted to, and how.

    Attributes:
        normal: Patches of normal images.
        synthetic: Patches of the same images with synthetic defects; None: models have no classifier.
        config: Hyperparameters.
    """

    normal: PatchSample
    synthetic: SyntheticDefects | None
    config: AnomalyModelConfig

    def fit_model(self, among_I: np.ndarray | None = None) -> AnomalyModel:
        """Fit a model to the images where ``among_I`` (bool) is True, or to all."""
        among_I = self._all_images() if among_I is None else among_I
        normal = self.normal.subset(among_I[self.normal.image_N])
        model = normal.fit_model(self.config)
        if self.synthetic is None:
            return model
        return self.synthetic.add_classifier(model, normal, among_I, self.config.seed)

    def update_model(self, model: AnomalyModel, update: FewShotUpdate, among_I: np.ndarray) -> AnomalyModel:
        """Apply a few-shot update to a model that was fitted to the images where ``among_I`` is True."""
        model = update.apply(model)
        if self.synthetic is None:
            return model
        normal = self.normal.subset(among_I[self.normal.image_N])
        return self.synthetic.add_classifier(model, normal, among_I, self.config.seed, update.defect_NF)

    def _all_images(self) -> np.ndarray:
        return np.ones(self.normal.images, np.bool_)


@dataclass(frozen=True)
class CrossValidation:
    """The result of cross-validation.

    Attributes:
        model: The model of all normal images, updated where that helps.
        normal_I: Score of each normal image by a model that was fitted without its fold.
        defect_D: Score of each defective image by ``model``; None where none were given.
        updated: Whether ``model`` is a few-shot updated one.
    """

    model: AnomalyModel
    normal_I: np.ndarray
    defect_D: np.ndarray | None
    updated: bool


def cross_validate(
    model: AnomalyModel, data: FitData, images: ReadableImages, fold_I: np.ndarray, extractor: PatchExtractor,
    defects: Sequence[ImageInput] = (), masks: Path | None = None,
) -> CrossValidation:  # fmt: skip
    """Score every normal image by a model that was fitted without its fold, and defective images by the model of all.

    From ``few_shot.MIN_IMAGES`` defective images on, an update is fitted to them and kept where it helps.

    Args:
        model: The model of all normal images.
        data: What models are fitted to.
        images: The normal images (I of them readable).
        fold_I: The fold of each.
        extractor: Extracts patches.
        defects: Defective images.
        masks: Folder of their masks.
    """
    config = data.config
    folds = int(fold_I.max()) + 1
    fold_models = []
    with progress.progress("fitting folds", folds, "folds") as advance:
        for fold in range(folds):
            fold_models.append([data.fit_model(fold_I != fold)])
            advance(1)
    final_models = [model]
    if len(defects) >= MIN_IMAGES:
        _append_updated(fold_models, final_models, data, fold_I, extractor, defects, masks)
    normal_IJ = np.empty((data.normal.images, len(final_models)))
    with progress.progress("scoring good images", data.normal.images) as advance:
        for number, image in images:
            maps = anomaly_maps(image, extractor, fold_models[fold_I[number]], config.smooth)
            normal_IJ[number] = [image_score(one.score_hw, config.top_share) for one in maps]
            advance(1)
    defect_scores = []
    if defects:
        for _, image in ReadableImages(defects, decoding=extractor.tiling.decoding):
            maps = anomaly_maps(image, extractor, final_models, config.smooth)
            defect_scores.append([image_score(one.score_hw, config.top_share) for one in maps])
    defect_DJ = np.array(defect_scores)
    column = 0
    if len(final_models) > 1:
        helps, plain, updated_score = update_helps(normal_IJ, defect_DJ)
        column = 3 if helps else 0
        progress.say(
            f"{len(defect_DJ)} defective images: AUROC {plain:.4f} without the few-shot update, {updated_score:.4f} "
            f"with it ({'kept' if helps else 'not kept'})"
        )
    return CrossValidation(
        final_models[column], normal_IJ[:, column], defect_DJ[:, column] if defects else None, column > 0
    )


def _append_updated(
    fold_models: list[list[AnomalyModel]], final_models: list[AnomalyModel], data: FitData, fold_I: np.ndarray,
    extractor: PatchExtractor, defects: Sequence[ImageInput], masks: Path | None,
) -> None:  # fmt: skip
    """Append to the models of each fold and to the final ones those updated with the even defects, the odd ones, and all."""
    model, normal = final_models[0], data.normal
    patches = defect_patches(defects, masks, extractor, model, data.config.smooth)
    counts, moments = [], []
    for fold, (fold_model,) in enumerate(fold_models):
        left_out = normal.subset((fold_I[normal.image_N] == fold) & normal.random_N)
        counts.append(len(left_out.image_N))
        moments.append(fold_model.residual_moment(left_out.vectors_NF, left_out.positions_NP))
    normal_FF = np.average(moments, axis=0, weights=counts)
    with progress.progress("fitting few-shot updates", 3) as advance:
        for fitted in (patches.half(0), patches.half(1), patches):
            update = fit_few_shot(model, fitted, normal_FF)
            for fold, models in enumerate((*fold_models, final_models)):
                # The final models come last: no image is in that fold, so all are among those that they were fitted to.
                models.append(data.update_model(models[0], update, fold_I != fold))
            advance(1)
