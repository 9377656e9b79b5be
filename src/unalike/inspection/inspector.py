"""Inspection learnt from good images alone: what does not look like anything among them is suspicious, and where.

PatchCore (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022) in its shape: patches of a
pretrained trunk's middle stages, a coreset of those of good images as memory, the distance to the nearest as heat. What
differs from it: distances count in units of how far good patches vary around the remembered one, images are looked at in
one scale and by tiles, and the threshold is set from good images that their judge had not seen.

Shape letters: N patches, F their width, M remembered ones, h x w a grid of patches, H x W an image.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unalike import progress
from unalike.data.decode import MAX_PIXELS, ImageInput
from unalike.data.preprocessing import Preprocessing
from unalike.data.tiling import Sight, settle_fit, settle_scale
from unalike.data.view import View
from unalike.engines.metadata import MapFacts
from unalike.errors import DataError, ModelError, UnreadableImage
from unalike.inference.feature_map_model import PRETRAINED, FeatureMapModel, engine_from_onnx, load_feature_maps
from unalike.inspection.anomaly_model import Judge, Recipe, Whereabouts
from unalike.inspection.few_shot import LEAST_TO_LEARN, Lesson, helps, study
from unalike.inspection.memory_bank import PatchMemory
from unalike.inspection.normal_images import (
    Pictures,
    Sampled,
    folded,
    listed,
    opened_picture,
    parts_shown,
    places,
    sample,
)
from unalike.inspection.patch_classifier import EYE_BLOCKS, Perceptron
from unalike.inspection.patch_features import Patcher
from unalike.inspection.result import DEFECTIVE, GOOD, UNDECIDED, Inspection, find_spots, hottest
from unalike.inspection.synthetic_patches import Flawed, spoil
from unalike.metrics.false_alarm import Alarm, images_needed, set_alarm
from unalike.metrics.maps import smoothed
from unalike.storage.blockfile import read_blocks, write_blocks

MARK, FORMAT_VERSION = b"UNALIKEI", 3
LEAST_IMAGES = 2


class Inspector:
    """Good images in; then, of any image, whether and where it differs from them. Runs without torch once it was saved.

    >>> inspector = Inspector.fit("good/")                      # doctest: +SKIP
    >>> inspector.save("part.inspector")
    >>> found = Inspector.load("part.inspector").inspect("new.png")
    >>> found.decision, found.score, found.spots
    """

    def __init__(
        self,
        opened: FeatureMapModel,
        sight: Sight,
        recipe: Recipe,
        judge: Judge,
        alarm: Alarm | None,
        facts: dict[str, Any],
    ) -> None:
        self.opened, self.sight, self.recipe, self.judge, self.alarm, self.facts = (
            opened, sight, recipe, judge, alarm, facts
        )  # fmt: skip
        self.patcher = Patcher(opened.engine, sight)

    # ---- learning ----

    @classmethod
    def fit(
        cls,
        good: str | Path | Iterable[ImageInput],
        *,
        model: str | Path | FeatureMapModel = PRETRAINED,
        size: tuple[int, int] | None = None,
        stages: str | Sequence[int | str] = "middle",
        fit: str = "auto",
        scale: float | None = None,
        light: str = "as-is",
        rate: float | None = 0.01,
        defects: str | Path | Iterable[ImageInput] = (),
        masks: str | Path | None = None,
        parts: Sequence[Hashable] | str | None = None,
        recipe: Recipe | None = None,
        runtime: str = "auto",
        precision: str = "fp32",
        threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Inspector:
        """From images of good parts: a folder, or paths, PIL images, arrays.

        ``model``, ``size``, ``stages``, ``runtime``, ``precision``: as ``tasks.dense.load_feature_maps``; the maps of stride 16 alone
        told defects as well as those of 8 and 16, and take a quarter of the search (docs/experiments/inspection.md,
        2026-11-26). ``fit``: ``scale`` or
        ``whole`` (``tasks.sight``), ``scale`` the factor; left out, settled by the images' sizes. ``light``: as-is or even.
        ``rate``: the share of good images that may be called defective (None: no threshold). ``defects``: a few defective
        images, where there are any, ``masks`` the folder of their masks (NAME.png, white where defective): they say how
        many are found, and from four on teach which directions tell, where that helps (``tasks.defects``). ``parts``: where
        several images show the same part, which part each shows (anything that can be compared, one an image), or a regular
        expression that matches it in their paths: no image is then judged by a memory that holds another one of its part,
        by which the threshold would be too low. Raises DataError for too few images, for a rate that they cannot support,
        for a part that is not told, and for unreadable files beyond 5 %.
        """
        recipe = recipe or Recipe()
        pictures = listed(good)
        if len(pictures) < LEAST_IMAGES:
            raise DataError(
                f"{len(pictures)} good image{'' if len(pictures) == 1 else 's'}",
                expected=f"at least {LEAST_IMAGES}, better a hundred",
            )
        shown = parts_shown(pictures, parts)
        if rate is not None and 0 < rate < 1 and len(pictures) < images_needed(rate):
            set_alarm(np.zeros(len(pictures)), rate)  # says what is lacking before the work begins
        opened = model if isinstance(model, FeatureMapModel) else load_feature_maps(
            model, stages=stages, size=size, vector=False, runtime=runtime, precision=precision, threads=threads
        )  # fmt: skip
        held = Pictures(pictures, max_pixels)
        sight = _settled_sight(held.sizes(), opened.engine.input_size, fit, scale, light)
        patcher = Patcher(opened.engine, sight)
        sampled = sample(held, patcher, recipe)
        flaws = spoil(held, patcher, recipe)
        judge = _learnt(sampled, flaws, np.ones(sampled.images, np.bool_), recipe)
        facts = {"images": sampled.images, "unreadable": len(held.failures), "precision": opened.engine.precision}
        made = cls(opened, sight, recipe, judge, None, facts)
        if rate is not None:
            seen = [part for number, part in enumerate(shown) if number not in held.failures]
            made._set_alarm(held, sampled, flaws, rate, seen, listed(defects), None if masks is None else Path(masks))
        return made

    def _set_alarm(
        self, held: Pictures, sampled: Sampled, flaws: Flawed | None, rate: float, parts: Sequence[Hashable],
        defects: list[ImageInput], masks: Path | None,
    ) -> None:  # fmt: skip
        """Judge every good image by a memory of the other folds, then set the threshold."""
        recipe = self.recipe
        if sampled.images < images_needed(rate):
            set_alarm(np.zeros(sampled.images), rate)
        fold_I = folded(parts, recipe.folds, recipe.seed)
        folds = int(fold_I.max()) + 1
        judges = []
        with progress.progress("learning", folds, "folds") as advance:
            for fold in range(folds):
                judges.append([_learnt(sampled, flaws, fold_I != fold, recipe)])
                advance(1)
        finals = [self.judge]
        if len(defects) >= LEAST_TO_LEARN:
            lesson = study(defects, masks, self.patcher, self.judge, self._heat)
            self._teach(judges, finals, sampled, flaws, fold_I, lesson)
        good_IJ = np.empty((sampled.images, len(finals)))
        with progress.progress("judging good images by the others", sampled.images) as advance:
            for number, picture in held:
                good_IJ[number] = [self._score(heat) for heat in self._heats(picture, judges[fold_I[number]])]
                advance(1)
        bad_DJ = np.array(
            [[self._score(heat) for heat in self._heats(p, finals)] for _, p in Pictures(defects)] if defects else []
        )
        column = 0
        if len(finals) > 1:
            kept, plain, taught = helps(good_IJ, bad_DJ)
            column = 3 if kept else 0
            progress.say(
                f"{len(bad_DJ)} defective images: AUROC {plain:.4f} without their lesson, {taught:.4f} with it "
                f"({'kept' if kept else 'not kept'})"
            )
        self.judge = finals[column]
        several = len(set(parts)) if len(set(parts)) < len(parts) else 0
        self.alarm = set_alarm(
            good_IJ[:, column], rate, defects_M=bad_DJ[:, column] if defects else None, parts=several
        )
        scores = [round(float(score), 6) for score in np.sort(good_IJ[:, column])]
        self.facts = {**self.facts, "good_scores": scores, "taught": column > 0}

    def _teach(
        self, judges: list[list[Judge]], finals: list[Judge], sampled: Sampled, flaws: Flawed | None,
        fold_I: np.ndarray, lesson: Lesson,
    ) -> None:  # fmt: skip
        """Put beside every judge those taught by the even defective images, by the odd ones, and by all."""
        shares, moments = [], []
        for fold, (judge, *_) in enumerate(judges):
            unseen = sampled.of((fold_I[sampled.image_N] == fold) & sampled.common_N)
            shares.append(len(unseen.image_N))
            moments.append(judge.leftover(unseen.vectors_NF, unseen.places_NP))
        good_FF = np.average(moments, axis=0, weights=shares)
        with progress.progress("learning from defects", 3) as advance:
            for half in (0, 1, None):
                vectors_NF, places_NP = lesson.half(half)
                bad_FF = self.judge.leftover(vectors_NF, places_NP)
                for fold, some in enumerate((*judges, finals)):
                    among_I = fold_I != fold  # all of them for the last, which is no fold
                    taught = some[0].weighted(good_FF, bad_FF, len(vectors_NF))
                    if flaws is not None:
                        known = sampled.of(among_I[sampled.image_N])
                        taught = flaws.beside(taught, known, among_I, self.recipe, vectors_NF)
                    some.append(taught)
                advance(1)

    # ---- inspecting ----

    def inspect(self, picture: ImageInput) -> Inspection:
        """Of a path, PIL image or uint8 array (H, W, 3 or H, W). Raises UnreadableImage, DataError."""
        opened = opened_picture(picture)
        heat_hw = self._heat(opened, self.judge)
        size, score = (opened.height, opened.width), self._score(heat_hw)
        seen = self.sight.scaled_size(size)
        cover = tuple(cells * self.patcher.stride / side for cells, side in zip(heat_hw.shape, seen, strict=True))
        threshold = math.nan if self.alarm is None else self.alarm.threshold
        decision = UNDECIDED if self.alarm is None else DEFECTIVE if score > threshold else GOOD
        source = str(picture) if isinstance(picture, str | Path) else ""
        # A mean above the threshold has at least one place above it: an image is defective exactly when it has a box.
        spots = find_spots(heat_hw, threshold, size, (cover[0], cover[1])) if decision == DEFECTIVE else ()
        return Inspection(score, threshold, decision, spots, heat_hw, size, (cover[0], cover[1]), source)

    def inspect_many(self, pictures: Iterable[ImageInput]) -> Iterator[Inspection | UnreadableImage]:
        """One after the other; what cannot be read comes back as the error, so that a line goes on."""
        for picture in pictures:
            try:
                yield self.inspect(picture)
            except UnreadableImage as error:
                yield error

    def _score(self, heat_hw: np.ndarray) -> float:
        return hottest(heat_hw, self.recipe.hottest)

    def _heat(self, picture: Image.Image, judge: Judge) -> np.ndarray:
        return self._heats(picture, [judge])[0]

    def _heats(self, picture: Image.Image, judges: Sequence[Judge]) -> list[np.ndarray]:
        """float32 (h, w) a judge, from one pass through the network: the mean over tiles where they overlap, smoothed."""
        grid = self.patcher.grid((picture.height, picture.width))
        total_Jhw, weight_hw = np.zeros((len(judges), *grid), np.float32), np.zeros(grid, np.float32)
        for tile in self.patcher(picture):
            shape = tile.vectors_hwF.shape[:2]
            window = np.s_[tile.top : tile.top + shape[0], tile.left : tile.left + shape[1]]
            where_hwP = places(tile.top, tile.left, shape, grid, self.patcher.stride)
            for number, judge in enumerate(judges):
                total_Jhw[number][window] += judge.heat(tile.vectors_hwF, where_hwP)
            weight_hw[window] += 1
        return [smoothed(total_hw / weight_hw, self.recipe.smooth) for total_hw in total_Jhw]

    # ---- keeping ----

    def save(self, path: str | Path) -> Path:
        """One checksummed file with network, memory and threshold. Raises ModelError for a network that cannot be kept."""
        if self.opened.content is None:
            raise ModelError(
                f"the network {self.opened.source} runs in {self.opened.engine.name} and is no ONNX file",
                expected="a network that can be kept", remedy="fit with runtime auto, openvino or onnxruntime",
            )  # fmt: skip
        said = {
            "inspector_version": FORMAT_VERSION, "sight": self.sight.to_dict(), "recipe": asdict(self.recipe),
            "where": asdict(self.judge.where), "gain": self.judge.gain, "alarm": None if self.alarm is None else self.alarm.to_dict(),
            "trunk": self.opened.trunk, "licence": self.opened.licence, "facts": self.facts,
            "maps": [asdict(fact) for fact in self.opened.maps],
        }  # fmt: skip
        blocks = {
            "network": [np.frombuffer(self.opened.content, np.uint8)], "mean": [self.judge.mean_F],
            "mix": [self.judge.mix_FF], "memory": [self.judge.memory.vectors_MF],
            "local": [self.judge.local_M], **({} if self.judge.eye is None else self.judge.eye.blocks()),
        }  # fmt: skip
        write_blocks(Path(path), said, blocks, mark=MARK)
        return Path(path)

    @classmethod
    def load(
        cls, path: str | Path, *, runtime: str = "auto", precision: str = "auto", threads: int | None = None,
        device: str | None = None, search: str | None = None,
    ) -> Inspector:  # fmt: skip
        """From a saved file, without torch. ``precision``: ``auto`` is that of fitting, so that the threshold holds.

        Raises DataError: missing, damaged, no inspector, of a newer version.
        """
        said, blocks = read_blocks(Path(path), mark=MARK, what="inspector")
        version = said.get("inspector_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise DataError(f"{path} has inspector version {version}", expected=f"at most {FORMAT_VERSION}",
                            remedy="it was written by a newer unalike: pip install -U unalike")  # fmt: skip
        # Version 1 knew the hottest place alone and no made-up flaws; neither it nor 2 knew borders.
        recipe = Recipe(**{"hottest": 0.0, "flaws": 0, "border": 0.0, **said["recipe"]})
        if search is not None:
            recipe = replace(recipe, search=search)
        content = blocks["network"].check().tobytes()
        fitted = str(said["facts"].get("precision", "fp32"))
        engine = engine_from_onnx(content, runtime, fitted if precision == "auto" else precision, threads, device)
        sight = Sight.from_dict(said["sight"])
        maps = tuple(MapFacts(**entry) for entry in said["maps"])
        opened = FeatureMapModel(
            engine, _preprocessing(engine), maps, str(path), said["trunk"], content, said["licence"]
        )
        memory = PatchMemory(blocks["memory"].check(), recipe.search)
        eye = Perceptron.of_blocks(
            {name: block.check() for name, block in blocks.items() if name.startswith(EYE_BLOCKS)}
        )
        where = Whereabouts(**said["where"]) if "where" in said else Whereabouts(float(said["place"]))
        judge = Judge(blocks["mean"].check(), blocks["mix"].check(), memory, where, blocks["local"].check(), eye,
                      float(said.get("gain", 0.0)))  # fmt: skip
        alarm = None if said["alarm"] is None else Alarm.from_dict(said["alarm"])
        return cls(opened, sight, recipe, judge, alarm, said["facts"])


def _learnt(sampled: Sampled, flaws: Flawed | None, among_I: np.ndarray, recipe: Recipe) -> Judge:
    """What the images of ``among_I`` (bool, one an image) teach."""
    known = sampled.of(among_I[sampled.image_N])
    judge = known.judge(recipe)
    return judge if flaws is None else flaws.beside(judge, known, among_I, recipe)


def _settled_sight(
    sizes: list[tuple[int, int]], network: tuple[int, int], fit: str, scale: float | None, light: str
) -> Sight:
    """What was asked for; where nothing was, what the images' sizes suggest. It is said."""
    if fit == "auto":
        fit = "scale" if scale is not None else settle_fit(sizes, network)
    if fit == "scale" and scale is None:
        scale = settle_scale(sizes, network)
    sight = Sight(network[0], network[1], fit, scale if scale is not None else 1.0, light)
    how = "whole" if fit == "whole" else f"at {sight.scale:g} of their size, in tiles"
    progress.say(f"images are looked at {how}, {network[0]} x {network[1]}, light {light}")
    return sight


def _preprocessing(engine: Any) -> Preprocessing:
    """Of a whole image, by an engine of a network in memory."""
    return Preprocessing(View(engine.input_size[0], engine.input_size[1], 1.0), engine.facts.mean, engine.facts.std)
