"""Learning further good images without those of the fit: patches join the memory bank, scores set the threshold anew.

A new batch or another varnish makes good parts look different, and an inspector calls them defective. Some of them, confirmed
as good, are enough to change that. Each is scored by a model that learned the others (leave-one-out, or in folds), so that
no image is scored by a model that holds it, as in the fit. The threshold is then set from these scores together with those of
the fit's images, as the fit stored them. The latter are not computed again: with further patches in the memory bank they
would mostly be lower, so that the threshold is rather too high than too low for images like those of the fit.

The rate of the threshold is that of all good images together. A few further images hardly move it, and more of the parts like
them than that may still be called defective: ``LearnedImages.expected_rate``. A threshold at the highest of the few scores kept
such alarms away and missed half of the defects (docs/experiments/inspection.md, 2026-12-01).

Shape letters: I the further images, N all good images.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike import progress
from unalike.data.decode import MAX_PIXELS, ImageInput
from unalike.errors import DataError
from unalike.inspection.anomaly_map import anomaly_maps, image_score
from unalike.inspection.anomaly_model import AnomalyModel
from unalike.inspection.normal_images import (
    PatchSample,
    ReadableImages,
    assign_folds,
    list_images,
    part_labels,
    sample_patches,
)
from unalike.metrics.false_alarm import OUTLIER_RATIO, AnomalyThreshold, fit_threshold, require_images
from unalike.metrics.intervals import clopper_pearson
from unalike.storage.digests import content_sha256

if TYPE_CHECKING:
    from unalike.inspection.inspector import Inspector

# Up to so many images each is scored by a model of all others; beyond, in as many folds.
MAX_FOLDS = 20
# A side of an image may be this many times as long as the longest of the fit, or the shortest this many times as long as it.
MAX_SIZE_RATIO = 1.5
DIGEST_DIGITS = 32


@dataclass(frozen=True)
class LearnedImages:
    """An inspector that has learned further good images, and what that changed.

    Attributes:
        inspector: The inspector.
        images: Number of images that it learned.
        before: How many of them were above the threshold.
        held_out: How many of them a model that learned only the others finds above the new threshold: what to expect of further
            images like them.
        after: How many of them are above the new threshold.
        expected_rate: The false-alarm rate to expect at most of further images like them, by ``held_out`` and the rank of one
            score more (``metrics.false_alarm``), 0..1; NaN without a threshold.
        low, high: The interval of that rate at 95 %.
        unlike: Names of those that are far from all other good images: perhaps defective ones.
    """

    inspector: Inspector
    images: int
    before: int = 0
    held_out: int = 0
    after: int = 0
    expected_rate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    unlike: tuple[str, ...] = ()


def learn_images(
    inspector: Inspector, images: str | Path | Iterable[ImageInput], *, rate: float | None = None,
    parts: Sequence[Hashable] | str | None = None, max_pixels: int = MAX_PIXELS,
) -> LearnedImages:  # fmt: skip
    """Learn further good images; arguments and errors are those of ``Inspector.learn``. ``inspector`` stays as it is."""
    further = list_images(images)
    if not further:
        raise DataError("no images to learn", expected="images of good parts")
    labels = part_labels(further, parts, least=1)
    scores = list(inspector.facts.get("good_scores", ()))
    rate = _target_rate(inspector, rate, scores)
    if rate is not None:
        require_images(len(scores) + len(further), rate)
    readable = ReadableImages(further, max_pixels, inspector.tiling.decoding)
    digests = _check_images(readable, inspector.facts)
    count = int(inspector.facts["images"])
    sample = sample_patches(readable, inspector.extractor, inspector.config)
    model = _extend(inspector, sample)
    facts = {
        **inspector.facts, "images": count + len(further), "learned": inspector.facts.get("learned", 0) + len(further),
        "learned_digests": [*inspector.facts.get("learned_digests", ()), *digests],
    }  # fmt: skip
    if rate is None:
        return LearnedImages(_changed(inspector, model, None, facts), len(further))
    held_out_I, before_I, after_I = _score(inspector, sample, readable, labels, model)
    names = [readable.name_of(number) for number in range(len(further))]
    unlike = _find_unlike(held_out_I, max(scores))
    all_N = np.concatenate([np.array(scores), held_out_I.round(6)])
    all_names = [*_old_names(inspector.facts, inspector.threshold, scores), *_new_names(names, further, count)]
    parts_shown = _count_parts(inspector.threshold, len(scores), labels)
    threshold = fit_threshold(all_N, rate, parts=parts_shown, names=all_names)
    order_N = np.argsort(all_N, kind="stable")
    facts |= {"good_scores": all_N[order_N].tolist(), "good_names": [all_names[number] for number in order_N]}
    former = inspector.threshold.threshold if inspector.threshold is not None else threshold.threshold
    held_out = int((held_out_I.round(6) > threshold.threshold).sum())
    interval = clopper_pearson(held_out, len(further))
    return LearnedImages(
        _changed(inspector, model, threshold, facts), len(further), int((before_I > former).sum()), held_out,
        int((after_I > threshold.threshold).sum()), (held_out + 1) / (len(further) + 1), interval.low, interval.high,
        tuple(names[number] for number in unlike),
    )  # fmt: skip


def _target_rate(inspector: Inspector, rate: float | None, scores: Sequence[float]) -> float | None:
    """The false-alarm rate of the threshold to be set; None where none is set."""
    if rate is None and inspector.threshold is None:
        return None
    if not scores:
        raise DataError("the inspector holds no scores of the good images that it was fitted to, which a threshold takes",
                        expected="an inspector that was fitted with a rate", remedy="fit it anew, with all images")  # fmt: skip
    if rate is not None:
        return rate
    assert inspector.threshold is not None
    if not 0 < inspector.threshold.target_rate < 1:
        raise DataError("the inspector's threshold was chosen by hand", expected="a rate of false alarms",
                        remedy="give the rate (on the command line --rate)")  # fmt: skip
    return inspector.threshold.target_rate


def _check_images(images: ReadableImages, facts: dict[str, Any]) -> list[str]:
    """Check that all images can be read, are new and of the sizes of the fit; their digests."""
    reasons = {digest: "was learned already" for digest in facts.get("learned_digests", ())}
    frame = facts.get("frame")
    ranges = facts.get("sizes") or (None if frame is None else [[side, side] for side in frame])
    digests = []
    for number, image in images:
        name, size = images.name_of(number), (image.height, image.width)
        digest = content_sha256(repr(size).encode() + image.tobytes())[:DIGEST_DIGITS]
        if digest in reasons:
            raise DataError(f"{name} {reasons[digest]}", expected="images that were not learned: one that was is no measure of "
                            "false alarms", remedy="leave it out")  # fmt: skip
        reasons[digest] = f"is the same image as {name}"
        digests.append(digest)
        if ranges is not None and not all(
            low / MAX_SIZE_RATIO <= side <= high * MAX_SIZE_RATIO
            for side, (low, high) in zip(size, ranges, strict=True)
        ):
            (low_height, high_height), (low_width, high_width) = ranges
            raise DataError(
                f"{name} is {size[1]} x {size[0]} pixels (width x height)",
                expected=f"about the size of the fit's images, {_span(low_width, high_width)} x {_span(low_height, high_height)}",
                remedy="take it as those were taken, or fit anew",
            )
    if images.failures:
        raise DataError(
            f"{len(images.failures)} of {len(images)} images cannot be read (the first: {next(iter(images.failures.values()))})",
            expected="images that can be read", remedy="repair or leave out; nothing was learned",
        )  # fmt: skip
    return digests


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _extend(inspector: Inspector, sample: PatchSample) -> AnomalyModel:
    config = inspector.config
    return inspector.model.extended(sample.vectors_NF, sample.positions_NP, config.memory, config.seed)


def _score(
    inspector: Inspector, sample: PatchSample, images: ReadableImages, labels: Sequence[Hashable], model: AnomalyModel
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of the images by models that learned the others, by the inspector as it was, and by ``model``; float64 (I,)."""
    config = inspector.config
    fold_I = assign_folds(labels, MAX_FOLDS, config.seed)
    fold_models = []
    with progress.progress("fitting folds", int(fold_I.max()) + 1, "folds") as advance:
        for fold in range(int(fold_I.max()) + 1):
            fold_models.append(_extend(inspector, sample.subset(fold_I[sample.image_N] != fold)))
            advance(1)
    scores = []
    with progress.progress("scoring good images", len(images)) as advance:
        for number, image in images:
            models = [fold_models[fold_I[number]], inspector.model, model]
            maps = anomaly_maps(image, inspector.extractor, models, config.smooth)
            scores.append([image_score(one.score_hw, config.top_share) for one in maps])
            advance(1)
    held_out_I, before_I, after_I = np.array(scores, np.float64).T
    return held_out_I, before_I, after_I


def _find_unlike(held_out_I: np.ndarray, highest: float) -> list[int]:
    """The images whose score is far above those of the other further images and of the fit's images.

    Args:
        held_out_I: Score of each by a model that learned the others.
        highest: The highest score of the fit's images.
    """
    unlike = []
    for number, score in enumerate(held_out_I):
        others = np.delete(held_out_I, number)
        usual = max(highest, float(np.median(others))) if len(others) else highest
        if score > OUTLIER_RATIO * usual:
            unlike.append(number)
    return unlike


def _old_names(facts: dict[str, Any], threshold: AnomalyThreshold | None, scores: Sequence[float]) -> list[str]:
    """The names of the images of the fit, in ascending order of their scores; files of earlier versions know few of them."""
    if "good_names" in facts:
        return list(facts["good_names"])
    names = ["a good image of the fit"] * len(scores)
    if threshold is not None:
        for place, name in enumerate(threshold.outliers):
            names[-1 - place] = name
        if threshold.set_by:
            names[int(np.argmin(np.abs(np.array(scores) - threshold.threshold)))] = threshold.set_by
    return names


def _new_names(names: Sequence[str], images: Sequence[ImageInput], count: int) -> list[str]:
    """Names that are not those of the fit's images: an image that is no file is named by its place among all."""
    return [
        name if isinstance(image, str | Path) else f"image {count + number}"
        for number, (name, image) in enumerate(zip(names, images, strict=True))
    ]


def _count_parts(threshold: AnomalyThreshold | None, count: int, labels: Sequence[Hashable]) -> int:
    """Number of parts that all good images show; 0 where each shows its own."""
    former, distinct = 0 if threshold is None else threshold.parts, len(set(labels))
    return (former or count) + distinct if former or distinct < len(labels) else 0


def _changed(
    inspector: Inspector, model: AnomalyModel, threshold: AnomalyThreshold | None, facts: dict[str, Any]
) -> Inspector:
    extractor = inspector.extractor
    return type(inspector)(
        inspector.network,
        inspector.tiling,
        inspector.config,
        model,
        threshold,
        facts,
        extractor.ignored_HW,
        extractor.centers,
    )
