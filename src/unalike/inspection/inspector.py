"""The class Inspector: fit to normal images, inspect, save and load; joins patches, anomaly model and threshold.

As in PatchCore (Roth et al., CVPR 2022), patches are described by a pretrained trunk's middle stages, a coreset of those of normal images is the
memory bank, and the distance to the nearest one is the anomaly map. Here distances count in units of how far normal patches
vary around the nearest one, images are resized to one scale and cut into tiles, and the threshold is set from the scores of
normal images by models that were fitted without them.

Shape letters: h x w a grid of patches, H x W an image.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from unalike import progress
from unalike.data.decode import MAX_PIXELS, ImageInput, is_image, open_image, upright_size
from unalike.data.decoding import Decoding
from unalike.data.decoding_fit import fit_decoding
from unalike.data.ignored import Boxes, find_ignored
from unalike.data.preprocessing import Preprocessing
from unalike.data.tiling import MAX_SIDE, Tiling, choose_fit, choose_scale
from unalike.data.view import View
from unalike.engines.metadata import MapFacts
from unalike.errors import DataError, ModelError, UnreadableImage
from unalike.inference.engine_selection import engine_from_onnx
from unalike.inference.feature_map_model import FeatureMapModel, load_feature_maps
from unalike.inference.model_files import PRETRAINED
from unalike.inspection.anomaly_map import anomaly_maps, find_regions, image_score
from unalike.inspection.anomaly_model import AnomalyModel, AnomalyModelConfig, PositionEncoding
from unalike.inspection.cell_centers import Center, measure_cell_centers
from unalike.inspection.cross_validation import FitData, cross_validate
from unalike.inspection.memory_bank import MemoryBank
from unalike.inspection.normal_images import (
    ReadableImages,
    assign_folds,
    list_images,
    part_labels,
    sample_patches,
)
from unalike.inspection.patch_classifier import BLOCK_PREFIX, PatchClassifier
from unalike.inspection.patch_features import PatchExtractor
from unalike.inspection.result import DEFECTIVE, GOOD, UNDECIDED, Inspection
from unalike.inspection.synthetic_patches import synthesize
from unalike.installation import upgrade_command
from unalike.metrics.false_alarm import AnomalyThreshold, choose_threshold, fit_threshold, require_images
from unalike.storage.blockfile import content_errors, read_blocks, write_blocks
from unalike.storage.stored_values import require_types

MARK, FORMAT_VERSION = b"UNALIKEI", 6
MIN_IMAGES = 2


class Inspector:
    """Fits to images of normal parts, then decides for any image whether and where it differs from them.

    A saved inspector runs without torch.

    Examples:
        >>> inspector = Inspector.fit("good/")                      # doctest: +SKIP
        >>> inspector.save("part.inspector")
        >>> result = Inspector.load("part.inspector").inspect("new.png")
        >>> result.decision, result.score, result.regions

    Args:
        network: Gives the feature maps.
        tiling: How images are resized and cut into tiles.
        config: Hyperparameters of the model.
        model: The anomaly model.
        threshold: None: images are scored, not decided about.
        facts: Plain data about the fit, kept in the file.
        ignored_HW: bool mask of the frame that all images share, True where anomalies are ignored.
        centers: Where the first cell of each feature map lies (``cell_centers``); None for files of earlier versions.
    """

    def __init__(
        self, network: FeatureMapModel, tiling: Tiling, config: AnomalyModelConfig, model: AnomalyModel,
        threshold: AnomalyThreshold | None, facts: dict[str, Any], ignored_HW: np.ndarray | None = None,
        centers: Sequence[Center] | None = None,
    ) -> None:  # fmt: skip
        self.network, self.tiling, self.config, self.model = network, tiling, config, model
        self.threshold, self.facts = threshold, facts
        self.extractor = PatchExtractor(network.engine, tiling, ignored_HW, centers)

    # ---- fitting ----

    @classmethod
    def fit(
        cls, good: str | Path | Iterable[ImageInput], *, model: str | Path | FeatureMapModel = PRETRAINED,
        size: tuple[int, int] | None = None, stages: str | Sequence[int | str] = "auto", fit: str = "auto",
        scale: float | None = None, light: str = "as-is", ground: str | Sequence[int] | None = None,
        range: str | Sequence[float] | None = None, rate: float | None = 0.01,
        defects: str | Path | Iterable[ImageInput] = (), masks: str | Path | None = None,
        parts: Sequence[Hashable] | str | None = None, config: AnomalyModelConfig | None = None, runtime: str = "auto",
        precision: str = "fp32", threads: int | None = None, max_pixels: int = MAX_PIXELS,
        ignore_mask: str | Path | None = None, ignore_boxes: Boxes | None = None,
    ) -> Inspector:  # fmt: skip
        """Fit an inspector to images of normal parts.

        Args:
            good: The images: a folder, an archive, a manifest, or paths, PIL images and arrays.
            model: Source of the feature maps, as in ``inference.feature_map_model.load_feature_maps``.
            size: (height, width) of the network's input, that is of a tile; by default that of the model.
            stages: Which feature maps. Those of strides 8 and 16 together show where a defect is better than those of 16
                alone, at four times the search (docs/experiments/inspection.md, 2026-11-30).
            fit: ``scale`` (tiles), ``whole`` or ``auto``, which chooses by the sizes of the images (``data.tiling``).
            scale: Factor for ``fit="scale"``; by default chosen by the sizes of the images.
            light: ``as-is`` or ``even`` (``data.tiling``).
            ground: The color behind transparent pixels (``data.decoding``); by default chosen from the images.
            range: The lowest and the highest value of images of more than 8 bits; by default chosen from the images.
            rate: Target false-alarm rate: the share of normal images that may be called defective. None: no threshold.
            defects: A few defective images. They measure how many are detected, and from ``few_shot.MIN_IMAGES`` on update
                the model where that helps.
            masks: Folder of the masks of ``defects`` (``few_shot.find_mask``).
            parts: Where several images show the same part: the part of each image, or a regular expression that matches it
                in the paths (``normal_images.part_labels``). No image is then scored by a model that was fitted to another
                image of its part, which would make the threshold too low.
            config: Hyperparameters of the anomaly model.
            runtime, precision, threads: Of the engine, as in ``load_feature_maps``.
            max_pixels: Larger images count as unreadable.
            ignore_mask: Image of the size of the first image that marks where anomalies are ignored, in fitting the threshold
                and in inspecting; images of another size show the same frame.
            ignore_boxes: Boxes (left, top, right, bottom) of the first image in which anomalies are ignored.

        Raises:
            DataError: Too few images, for a rate or at all; a part that does not match; more than 5 % unreadable files.
        """
        images = list_images(good)
        if len(images) < MIN_IMAGES:
            raise DataError(
                f"{len(images)} good image{'' if len(images) == 1 else 's'}",
                expected=f"at least {MIN_IMAGES}, better a hundred",
            )
        labels = part_labels(images, parts)
        if rate is not None:
            require_images(len(images), rate)  # before the work begins
        network = model if isinstance(model, FeatureMapModel) else load_feature_maps(
            model, stages=stages, size=size, vector=False, runtime=runtime, precision=precision, threads=threads
        )  # fmt: skip
        defective = list_images(defects)
        decoding = fit_decoding([*images, *defective], Decoding.from_options(ground, range), max_pixels=max_pixels)
        readable = ReadableImages(images, max_pixels, decoding)
        sizes = readable.sizes()
        ignored_HW = find_ignored(sizes[0], ignore_mask, ignore_boxes)
        tiling = _choose_tiling(sizes, network.engine.input_size, fit, scale, light)
        tiling = replace(tiling, decoding=decoding)
        inspector, data = cls._fit_model(network, tiling, config or AnomalyModelConfig(), readable, rate, ignored_HW)
        inspector.facts["frame"] = list(sizes[0])
        inspector.facts["sizes"] = [[min(sides), max(sides)] for sides in zip(*sizes, strict=True)]
        if rate is not None:
            inspector._fit_threshold(data, readable, labels, rate, defective, None if masks is None else Path(masks))
        return inspector

    @classmethod
    def _fit_model(
        cls, network: FeatureMapModel, tiling: Tiling, config: AnomalyModelConfig, images: ReadableImages,
        rate: float | None, ignored_HW: np.ndarray | None,
    ) -> tuple[Inspector, FitData]:  # fmt: skip
        """An inspector without a threshold, and the patches that its model was fitted to."""
        centers = measure_cell_centers(network.engine)
        extractor = PatchExtractor(network.engine, tiling, ignored_HW, centers)
        normal = sample_patches(images, extractor, config)
        if rate is not None:
            require_images(normal.images, rate)  # some may have been unreadable
        data = FitData(normal, synthesize(images, extractor, config), config)
        facts = {"images": normal.images, "unreadable": len(images.failures), "precision": network.engine.precision}
        return cls(network, tiling, config, data.fit_model(), None, facts, ignored_HW, centers), data

    def _fit_threshold(
        self, data: FitData, images: ReadableImages, labels: Sequence[Hashable], rate: float,
        defects: Sequence[ImageInput], masks: Path | None,
    ) -> None:  # fmt: skip
        """Set the threshold by cross-validation; defective images update the model where that helps."""
        labels = [label for index, label in enumerate(labels) if index not in images.failures]
        folds = assign_folds(labels, self.config.folds, self.config.seed)
        scores = cross_validate(self.model, data, images, folds, self.extractor, defects, masks)
        distinct = len(set(labels)) if len(set(labels)) < len(labels) else 0
        self.model = scores.model
        names = [images.name_of(number) for number in range(len(scores.normal_I))]
        order_I = np.argsort(scores.normal_I, kind="stable")
        self.threshold = fit_threshold(scores.normal_I, rate, defects_M=scores.defect_D, parts=distinct, names=names)
        self.facts["good_scores"] = [round(float(score), 6) for score in scores.normal_I[order_I]]
        self.facts["good_names"] = [names[number] for number in order_I]
        self.facts["taught"] = scores.updated

    # ---- inspecting ----

    def inspect(self, image: ImageInput) -> Inspection:
        """Inspect one image.

        Args:
            image: As in ``data.decode.decode``.

        Raises:
            UnreadableImage: A file that cannot be decoded.
            DataError: An array of another kind.
        """
        opened_image = open_image(image, decoding=self.tiling.decoding)
        (maps,) = anomaly_maps(opened_image, self.extractor, [self.model], self.config.smooth)
        size, score = (opened_image.height, opened_image.width), image_score(maps.score_hw, self.config.top_share)
        map_hw = maps.score_hw if self.config.localize_by == "score" else maps.localize(self.config.top_share)
        height, width = self.tiling.scaled_size(size)
        extent = map_hw.shape[0] * self.extractor.stride / height, map_hw.shape[1] * self.extractor.stride / width
        threshold = math.nan if self.threshold is None else self.threshold.threshold
        decision = UNDECIDED if self.threshold is None else DEFECTIVE if score > threshold else GOOD
        source = str(image) if isinstance(image, str | Path) else ""
        # A mean above the threshold has at least one value above it: an image is defective exactly when it has a region.
        shift = self.extractor.shift
        regions = find_regions(map_hw, threshold, size, extent, shift=shift) if decision == DEFECTIVE else ()
        return Inspection(score, threshold, decision, regions, map_hw, size, extent, source, shift)

    def inspect_many(self, images: Iterable[ImageInput]) -> Iterator[Inspection | UnreadableImage]:
        """Inspect images one by one; an image that cannot be read yields the error instead of raising it."""
        for image in [images] if is_image(images) else images:
            try:
                yield self.inspect(image)  # type: ignore[arg-type]
            except UnreadableImage as error:
                yield error

    @property
    def frame(self) -> tuple[int, int] | None:
        """(H, W) of the first image of the fit, to which ignored boxes belong; None for files of earlier versions."""
        frame = self.facts.get("frame")
        return None if frame is None else (int(frame[0]), int(frame[1]))

    def with_settings(self, threshold: float | None = None, ignore_boxes: Boxes | None = None) -> Inspector:
        """This inspector with another threshold and further ignored regions; network and model are shared.

        Args:
            threshold: None: the threshold of the fit.
            ignore_boxes: Boxes (left, top, right, bottom) of the frame, besides the regions that are ignored already.

        Raises:
            DataError: A box is empty or reaches beyond the frame, or the frame is not known.
        """
        ignored_HW, alarm = self.extractor.ignored_HW, self.threshold
        if ignore_boxes:
            ignored_HW = _with_ignored(ignored_HW, self.frame, "the inspector", None, ignore_boxes)
        if threshold is not None:
            alarm = choose_threshold(threshold, self.facts.get("good_scores", ()))
        centers = self.extractor.centers
        return Inspector(self.network, self.tiling, self.config, self.model, alarm, self.facts, ignored_HW, centers)

    def learn(
        self, images: str | Path | Iterable[ImageInput], *, rate: float | None = None,
        parts: Sequence[Hashable] | str | None = None, max_pixels: int = MAX_PIXELS,
    ) -> Inspector:  # fmt: skip
        """This inspector after it has learned further good images; the images of the fit are not needed.

        Args:
            images: Images of good parts, such as some that were called defective: as ``good`` in ``fit``.
            rate: Target false-alarm rate of the threshold, which is set anew from the scores of all good images; None: that
                of the inspector.
            parts: As in ``fit``, of these images.
            max_pixels: Larger images count as unreadable.

        Returns:
            Another inspector; network and space of patches are shared. ``learned_images.learn_images`` says more.

        Raises:
            DataError: No images, an unreadable one, one that was learned already or is of another size than those of the
                fit; an inspector without the scores that a threshold takes, or too few images for the rate.
        """
        from unalike.inspection.learned_images import learn_images

        return learn_images(self, images, rate=rate, parts=parts, max_pixels=max_pixels).inspector

    # ---- saving and loading ----

    def save(self, path: str | Path) -> Path:
        """Write one checksummed file with network, model and threshold.

        Raises:
            ModelError: The network runs in torch, or was opened from a file that is not ONNX.
        """
        if self.network.content is None:
            raise ModelError(
                f"the network {self.network.source} runs in {self.network.engine.name} and is no ONNX file",
                expected="a network that can be kept", remedy="fit with runtime auto, openvino or onnxruntime",
            )  # fmt: skip
        model, ignored_HW = self.model, self.extractor.ignored_HW
        header = {
            "inspector_version": FORMAT_VERSION, "cells": None if self.extractor.centers is None else [list(center) for center in self.extractor.centers],
            "sight": self.tiling.to_dict(), "recipe": self.config.to_dict(),
            "where": asdict(model.positions), "gain": model.gain,
            "alarm": None if self.threshold is None else self.threshold.to_dict(), "trunk": self.network.trunk,
            "licence": self.network.licence, "facts": self.facts, "maps": [asdict(fact) for fact in self.network.maps],
        }  # fmt: skip
        blocks = {
            "network": [np.frombuffer(self.network.content, np.uint8)], "mean": [model.mean_F], "mix": [model.mix_FF],
            "memory": [model.memory.vectors_MF], "local": [model.local_M],
            **({} if ignored_HW is None else {"ignored": [ignored_HW.astype(np.uint8)]}),
            **({} if model.classifier is None else model.classifier.to_blocks()),
        }  # fmt: skip
        write_blocks(Path(path), header, blocks, magic=MARK)
        return Path(path)

    @classmethod
    def load(
        cls, path: str | Path, *, runtime: str = "auto", precision: str = "auto", threads: int | None = None,
        device: str | None = None, search: str | None = None, ignore_mask: str | Path | None = None,
        ignore_boxes: Boxes | None = None,
    ) -> Inspector:  # fmt: skip
        """Read a saved inspector; torch is not needed.

        Args:
            path: A file that ``save`` wrote.
            runtime, threads, device: Of the engine, as in ``load_feature_maps``.
            precision: ``auto`` is the precision of the fit, so that the threshold holds.
            search: ``exact`` or ``ann``; by default as in the fit.
            ignore_mask, ignore_boxes: Further ignored regions, as in ``fit``; the threshold stays.

        Raises:
            DataError: A missing or damaged file, no inspector, or one of a newer version.
        """
        header, blocks = read_blocks(Path(path), magic=MARK, kind="inspector")
        version = header.get("inspector_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise DataError(f"{path} has inspector version {version}", expected=f"at most {FORMAT_VERSION}",
                            remedy=f"it was written by a newer unalike: {upgrade_command()}")  # fmt: skip
        with content_errors(path):
            config = require_types(AnomalyModelConfig.from_dict(header["recipe"]), "configuration")
            if search is not None:
                config = replace(config, search=search)
            content = blocks["network"].load().tobytes()
            fitted_precision = str(header["facts"].get("precision", "fp32"))
            engine = engine_from_onnx(
                content, runtime, fitted_precision if precision == "auto" else precision, threads, device
            )
            maps = tuple(require_types(MapFacts(**entry), "feature maps") for entry in header["maps"])
            # Of a whole image; inspection itself resizes by the tiling.
            view = View.whole_image(engine.input_size[0], engine.input_size[1])
            preprocessing = Preprocessing(view, engine.facts.mean, engine.facts.std)
            network = FeatureMapModel(
                engine, preprocessing, maps, str(path), header["trunk"], content, header["licence"]
            )
            classifier = PatchClassifier.from_blocks(
                {name: block.load() for name, block in blocks.items() if name.startswith(BLOCK_PREFIX)}
            )
            where = header["where"] if "where" in header else {"place": header["place"]}
            positions = require_types(PositionEncoding(**where), "positions")
            model = AnomalyModel(
                blocks["mean"].load(), blocks["mix"].load(), MemoryBank(blocks["memory"].load(), config.search), positions,
                blocks["local"].load(), classifier, _checked_gain(header.get("gain", 0.0)),
            )  # fmt: skip
            alarm = header["alarm"]
            threshold = None if alarm is None else require_types(AnomalyThreshold.from_dict(alarm), "threshold")
            tiling, facts = require_types(Tiling.from_dict(header["sight"]), "tiling"), _checked_facts(header["facts"])
            ignored_HW = blocks["ignored"].load().astype(bool) if "ignored" in blocks else None
            centers = _checked_centers(header.get("cells"), maps)
        if ignore_mask is not None or ignore_boxes:
            frame = facts.get("frame") or (None if ignore_mask is None else upright_size(ignore_mask))
            ignored_HW = _with_ignored(ignored_HW, frame, path, ignore_mask, ignore_boxes)
        return cls(network, tiling, config, model, threshold, facts, ignored_HW, centers)


def _with_ignored(
    ignored_HW: np.ndarray | None,
    frame: Sequence[int] | None,
    source: str | Path,
    mask: str | Path | None,
    boxes: Boxes | None,
) -> np.ndarray | None:
    """Ignored pixels with further ones. Raises DataError where the size of the images is not known."""
    if frame is None:
        raise DataError(f"{source} does not know the size of its images", expected="an inspector that does",
                        remedy="give a mask instead of boxes, or fit it anew")  # fmt: skip
    more_HW = find_ignored((int(frame[0]), int(frame[1])), mask, boxes)
    return more_HW if ignored_HW is None or more_HW is None else ignored_HW | more_HW


def _checked_gain(gain: Any) -> float:
    if type(gain) not in (int, float) or not math.isfinite(gain):
        raise ValueError("the weight of the patch classifier does not fit")
    return float(gain)


def _checked_centers(cells: Any, maps: Sequence[MapFacts]) -> tuple[Center, ...] | None:
    """Where the first cell of each map lies, as ``save`` wrote it; at most two strides from the corner."""
    if cells is None:
        return None
    fits = type(cells) is list and len(cells) == len(maps) and all(
        type(center) is list and len(center) == 2 and all(type(value) in (int, float) and abs(value) <= 2 * fact.stride for value in center)
        for center, fact in zip(cells, maps, strict=True)
    )  # fmt: skip
    if not fits:
        raise ValueError("the places of the feature maps' cells do not fit")
    return tuple((float(y), float(x)) for y, x in cells)


def _checked_facts(facts: dict[str, Any]) -> dict[str, Any]:
    frame = facts.get("frame")
    if frame is not None and not (len(frame) == 2 and all(type(side) is int and 0 < side < MAX_SIDE for side in frame)):
        raise ValueError("the size of the images does not fit")
    sizes = facts.get("sizes")
    if sizes is not None and not (len(sizes) == 2 and all(
        len(sides) == 2 and all(type(side) is int and 0 < side < MAX_SIDE for side in sides) for sides in sizes
    )):  # fmt: skip
        raise ValueError("the sizes of the images do not fit")
    scores, names = facts.get("good_scores", []), facts.get("good_names")
    if type(scores) is not list or not all(type(score) in (int, float) and math.isfinite(score) for score in scores):
        raise ValueError("the scores of the good images do not fit")
    if names is not None and not (
        type(names) is list and len(names) == len(scores) and all(type(name) is str for name in names)
    ):
        raise ValueError("the names of the good images do not fit")
    digests = facts.get("learned_digests", [])
    if type(digests) is not list or not all(type(digest) is str for digest in digests):
        raise ValueError("the digests of the learned images do not fit")
    if not all(type(facts.get(name, 0)) is int and facts.get(name, 0) >= 0 for name in ("images", "learned")):
        raise ValueError("the number of the good images does not fit")
    return facts


def _choose_tiling(
    sizes: list[tuple[int, int]], network: tuple[int, int], fit: str, scale: float | None, light: str
) -> Tiling:
    """The tiling that the options ask for; what they leave open is chosen by the images' sizes and printed."""
    if fit == "auto":
        fit = "scale" if scale is not None else choose_fit(sizes, network)
    if fit == "scale" and scale is None:
        scale = choose_scale(sizes, network)
    tiling = Tiling(network[0], network[1], fit, scale if scale is not None else 1.0, light)
    size = f"{network[0]} x {network[1]}"
    how = f"to {size}" if fit == "whole" else f"by {tiling.scale:g} and cut into tiles of {size}"
    progress.say(f"images are resized {how}, light {light}")
    return tiling
