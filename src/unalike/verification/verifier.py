"""The class Verifier: opens an approved set with its network; matches, localizes and measures an image against it.

Recognition proposes: the similarity of vectors says which assets an image may show. Measurement decides: each of these is
located in the image, and their differences are measured. Four answers:

- ``same``: it shows the asset, and nothing differs beyond benign transformations (scale, lighting, background,
  compression, a small rotation);
- ``altered``: it shows the asset, and something differs; reasons, boxes and a heat map say what and where;
- ``different``: it resembles an asset (or one was claimed), and shows another thing;
- ``not in the set``: it resembles no asset.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from unalike import progress
from unalike.data.class_names import normalize_class_name
from unalike.data.decode import ImageInput
from unalike.data.decoding import Decoding
from unalike.data.decoding_fit import fit_decoding
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.errors import DataError, ModelError, closest
from unalike.inference.engine_selection import engine_from_onnx
from unalike.inference.feature_map_model import load_feature_maps
from unalike.inference.loaded_model import load_model
from unalike.inference.model_files import PRETRAINED
from unalike.numerics.arguments import check_list
from unalike.recognition.gallery import Gallery
from unalike.recognition.model_identity import ModelIdentity
from unalike.recognition.recognizer import probe_embedding
from unalike.verification.approved_set import ApprovedSet, enrollment_images
from unalike.verification.asset import Asset, asset_sources, open_assets
from unalike.verification.compared_image import ComparedImage, check_box, read_compared
from unalike.verification.localization import MAX_ROTATION
from unalike.verification.matching import AssetMatcher
from unalike.verification.measures import AssetDifference
from unalike.verification.regions import AlteredRegion, find_altered_regions, project_outline
from unalike.verification.result import ABSENT, ALTERED, DIFFERENT, SAME, VerificationResult
from unalike.verification.searched_image import SearchedImage
from unalike.verification.tampering import TAMPERING
from unalike.verification.thresholds import VerificationThresholds
from unalike.verification.trials import measure_asset
from unalike.verification.verifier_calibration import calibrate_thresholds

# Number of the most similar assets that are compared with an image, besides those found by keypoints.
MAX_CANDIDATES = 4
# Least score of a region, as a share of the contrast; the limit of ``parts`` where that is higher.
MIN_REGION_SCORE = 0.15
# Share of the asset's area from which the difference is global.
GLOBAL_AREA = 0.5


class Verifier:
    """Compares images with approved assets. Any number of threads may call ``verify``.

    Args:
        approved: The assets.
        engine: The network that made their vectors.
        view: The evaluation view of its images.

    Raises:
        ModelError: The vectors were made by another network or view.

    Examples:
        >>> verifier = Verifier.build("assets/", "model.onnx")          # doctest: +SKIP
        >>> verifier.calibrate(rate=0.01)
        >>> result = verifier.verify("photo.jpg")
        >>> result.answer, result.asset, result.regions
    """

    def __init__(self, approved_set: ApprovedSet, engine: Engine, view: View) -> None:
        approved_set.gallery.model_identity.check_compatible(_model_identity(engine, view))
        view = replace(view, decoding=view.decoding.completed(approved_set.gallery.model_identity.decoding))
        self.approved, self.engine, self.view = approved_set, engine, view
        self.matcher = AssetMatcher(approved_set.assets, approved_set.gallery, engine, view)

    @classmethod
    def build(
        cls,
        assets: str | Path | Iterable[ImageInput | Asset],
        model: str | Path | None = None,
        *,
        names: Sequence[str] | None = None,
        runtime: str = "auto",
        precision: str = "auto",
        ground: str | Sequence[int] | None = None,
        range: str | Sequence[float] | None = None,
        threads: int | None = None,
    ) -> Verifier:
        """Enroll assets by a model.

        Args:
            assets: A folder with one image per asset, or images.
            model: An exported network or a checkpoint; a pretrained trunk if unset (extra ``train``).
            names: Names of images; file stems if unset.
            runtime: auto, onnxruntime, openvino or torch.
            precision: auto, fp32, bf16, fp16 or int8.
            ground: Color behind transparent pixels of images (``data.decoding``); chosen from the assets if unset.
            range: Lowest and highest value of images of more than 8 bits; chosen from the assets if unset.
            threads: CPU cores that the network may use; the runtime's choice if unset.

        Raises:
            DataError: As ``of``.
            ModelError: The model cannot be opened.
        """
        assets = assets if isinstance(assets, str | Path) else check_list("assets", assets, "an image", ordered=False)
        decoding = fit_decoding(asset_sources(assets), Decoding.from_options(ground, range))
        opened_assets = open_assets(assets, names, decoding)  # before the network, which may take ten seconds to open
        if model is None:
            trunk = load_feature_maps(PRETRAINED, vector=True, runtime=runtime, precision=precision, threads=threads)
            progress.say(f"no model given: the frozen trunk {trunk.trunk} finds the assets")
            view = replace(trunk.view, decoding=decoding)
            return cls.of(
                opened_assets, trunk.engine, view, source=trunk.source, trunk=trunk.trunk, network=trunk.content
            )
        opened_model = load_model(model, runtime=runtime, precision=precision, threads=threads, keep_content=True)
        view = replace(opened_model.view, decoding=opened_model.view.decoding.completed(decoding))
        if (view.decoding.version, view.decoding.range) != (decoding.version, decoding.range):
            opened_assets = open_assets(assets, names, view.decoding)
        return cls.of(
            opened_assets,
            opened_model.engine,
            view,
            source=str(model),
            trunk=opened_model.trunk,
            network=opened_model.content,
        )

    @classmethod
    def load(
        cls, path: str | Path, model: str | Path | None = None, *, runtime: str = "auto", precision: str = "auto",
        threads: int | None = None,
    ) -> Verifier:  # fmt: skip
        """Open a saved set; without torch if its network is an exported one.

        Args:
            path: A file that ``save`` wrote.
            model: The network; the one in the file, or the file it was made with, if unset.
            runtime: auto, onnxruntime, openvino or torch.
            precision: auto, fp32, bf16, fp16 or int8.
            threads: CPU cores that the network may use; the runtime's choice if unset.

        Raises:
            DataError: The file is missing, damaged or of another kind.
            ModelError: The network is missing, or another one.
        """
        approved_set = ApprovedSet.load(path)
        identity = approved_set.gallery.model_identity
        if model is None and approved_set.network is not None:
            engine = engine_from_onnx(approved_set.network, runtime, precision, threads)
            return cls(
                approved_set, engine, View.from_dict(dict(identity.view)) if identity.view else View(*engine.input_size)
            )
        source = model or identity.file
        if not source or not Path(source).is_file():
            raise ModelError(f"{path} holds no network, and its model is not at {source or 'any place'}",
                             remedy="name it with -m FILE")  # fmt: skip
        opened_model = load_model(source, runtime=runtime, precision=precision, threads=threads)
        return cls(approved_set, opened_model.engine, opened_model.view)

    @classmethod
    def of(
        cls,
        assets: str | Path | Iterable[ImageInput | Asset],
        engine: Engine,
        view: View,
        *,
        names: Sequence[str] | None = None,
        source: str = "",
        trunk: str = "",
        network: bytes | None = None,
    ) -> Verifier:
        """Enroll assets by an engine.

        Args:
            assets: A folder with one image per asset, or images.
            engine: Embeds images.
            view: The evaluation view of its images.
            names: Names of images; file stems if unset.
            source: File of the network.
            trunk: Name of its backbone.
            network: Content of the network's ONNX file, to be saved with the set.

        Raises:
            DataError: There are no assets, two share a name, or one shows nothing.
        """
        assets = assets if isinstance(assets, str | Path) else check_list("assets", assets, "an image", ordered=False)
        view = view.fitted(asset_sources(assets))
        opened_assets = open_assets(assets, names, view.decoding)
        gallery = Gallery(engine.dim, _model_identity(engine, view, source, trunk))
        with progress.progress("enrolling assets", len(opened_assets), "assets") as advance:
            for asset in opened_assets:
                images = np.stack([view(image) for image in enrollment_images(asset)])
                gallery.enrol(engine(images), [asset.name] * len(images))
                advance()
        return cls(ApprovedSet(tuple(opened_assets), gallery, None, network), engine, view)

    @property
    def thresholds(self) -> VerificationThresholds | None:
        """The calibrated thresholds; None before calibration."""
        return self.approved.thresholds

    def calibrate(
        self,
        rate: float = 0.01,
        *,
        trials: int | None = None,
        kinds: Collection[str] = TAMPERING,
        confidence: float = 0.95,
        seed: int = 0,
        threads: int | None = None,
    ) -> VerificationThresholds:
        """Set the thresholds for a target rate of false accepts, from the assets alone.

        Args:
            rate: Share of tampered images that may be called the same, 0 to 1.
            trials: Tampered copies of each asset; as many as the rate needs if unset.
            kinds: Kinds of tampering.
            confidence: Confidence of the intervals, 0 to 1.
            seed: Determines the trials.
            threads: CPU cores that the trials may use; all if unset.

        Raises:
            DataError: The trials cannot support the rate.
            SpecError: A setting is out of range, or a kind unknown.
        """
        thresholds, twins = calibrate_thresholds(
            self.matcher, rate, trials=trials, kinds=kinds, confidence=confidence, seed=seed, threads=threads
        )
        self.approved = replace(self.approved, thresholds=thresholds, twins=twins)
        return thresholds

    def save(self, path: str | Path) -> Path:
        """Write assets, vectors, thresholds and network to one file."""
        return self.approved.save(path)

    def asset_number(self, name: str) -> int:
        """Return the number of an asset in the set; raise DataError with close spellings for an unknown name."""
        names = [normalize_class_name(asset_name) for asset_name in self.approved.names]
        if normalize_class_name(name) not in names:
            raise DataError(f"no asset {name!r} in the set", remedy=closest(name, self.approved.names))
        return names.index(normalize_class_name(name))

    def verify(
        self, image: ImageInput, claimed: str | None = None, box: Sequence[int] | None = None
    ) -> VerificationResult:
        """Verify one image.

        Args:
            image: As in ``data.decode.decode``.
            claimed: Name of the asset that it should show; that one alone is compared, and ``not in the set`` is no
                answer. If unset, the most similar assets are compared.
            box: Where the mark is: x, y, width, height in pixels of the upright image. It is looked for there and a little
                around it; in all of the image if unset.

        Raises:
            UnreadableImage: The image cannot be decoded, it or the box is too small, or the box lies outside of it.
            DataError: The verifier is not calibrated, the asset is not in the set, the box is none, or an array has another
                shape or type.
        """
        thresholds = self.thresholds
        if thresholds is None:
            raise DataError("the verifier has no thresholds", remedy="calibrate first")
        claimed_number = None if claimed is None else self.asset_number(claimed)
        compared = read_compared(image, self.view.decoding, None if box is None else check_box(box))
        similarity_A = self.matcher.similarities(self.matcher.embed([compared.pixels_HW3])[0])
        best = self._best_match(compared.pixels_HW3, similarity_A, claimed_number, thresholds)
        if best is None:
            nearest = int(np.argmax(similarity_A)) if claimed_number is None else claimed_number
            return VerificationResult(
                answer=DIFFERENT if claimed_number is not None else ABSENT,
                asset=self.approved.names[nearest],
                score=0.0,
                threshold=thresholds.threshold,
                similarity=float(similarity_A[nearest]),
                size=compared.size,
            )
        number, difference = best
        resembles = claimed_number is not None or float(similarity_A.max()) >= thresholds.min_similarity
        answer = _choose_answer(difference, thresholds, resembles)
        return self._make_result(answer, number, difference, float(similarity_A[number]), thresholds, compared)

    def _best_match(
        self, image_HW3: np.ndarray, similarity_A: np.ndarray, claimed: int | None, thresholds: VerificationThresholds
    ) -> tuple[int, AssetDifference] | None:
        """The asset that the image shows and its differences; None where no asset was found."""
        best: tuple[float, int, AssetDifference] | None = None
        search_image = SearchedImage(image_HW3)
        candidates = [(claimed, False)] if claimed is not None else self._candidates(search_image, similarity_A)
        for number, is_weak in candidates:
            if is_weak and best is not None and best[0] >= 1.0:  # the outlines of another one agree
                break
            difference = measure_asset(self.matcher.template(number), search_image)
            if difference is None:
                continue
            score = thresholds.score(difference.measures)
            # Outlines decide first which asset the image shows; among assets whose outlines agree, the score does.
            rank = score + (1.0 if _outlines_agree(difference, thresholds) else 0.0)
            if best is None or rank > best[0]:
                best = (rank, number, difference)
            if score >= thresholds.threshold:
                break
        return None if best is None else best[1:]

    def _candidates(self, search_image: SearchedImage, similarity_A: np.ndarray) -> Iterator[tuple[int, bool]]:
        """Yield the assets to compare: the most similar one, those found by keypoints, the next most similar ones; then,
        where none of these is in the image, those with few matched keypoints, marked by True."""
        similar = np.argsort(-similarity_A, kind="stable")[:MAX_CANDIDATES].tolist()
        yield similar[0], False
        strong, weak = self.matcher.keypoint_candidates(search_image, similarity_A)
        first = list(dict.fromkeys([similar[0], *strong, *similar]))
        yield from ((number, False) for number in first[1:])
        yield from ((number, True) for number in weak if number not in first)

    def _make_result(
        self, answer: str, number: int, difference: AssetDifference, similarity: float,
        thresholds: VerificationThresholds, compared: ComparedImage,
    ) -> VerificationResult:  # fmt: skip
        """Express a difference in pixels of the original image."""
        asset = self.approved.assets[number]
        to_original = compared.to_original_33
        frame_to_image = to_original @ np.vstack([difference.frame_to_image_23, [0, 0, 1]])
        original = replace(difference, frame_to_image_23=frame_to_image[:2])
        outline = project_outline(difference, asset) @ to_original[:2, :2].T + to_original[:2, 2]
        regions: list[AlteredRegion] = []
        if answer == ALTERED:
            regions = find_altered_regions(original, compared.size, max(thresholds.limits["parts"], MIN_REGION_SCORE))
        relative = sorted(thresholds.relative(difference.measures).items(), key=lambda pair: -pair[1])
        limit = 1 / thresholds.threshold - 1
        return VerificationResult(
            answer=answer,
            asset=asset.name,
            score=thresholds.score(difference.measures),
            threshold=thresholds.threshold,
            similarity=similarity,
            reasons={_reason(name, difference): value for name, value in relative if value > limit},
            regions=tuple(regions),
            outline=tuple((float(x), float(y)) for x, y in outline),
            rotation=difference.pose.rotation,
            scale=difference.pose.scale * compared.scale,
            is_global=difference.measures["area"] > GLOBAL_AREA,
            twins=tuple(b if a == asset.name else a for a, b in self.approved.twins if asset.name in (a, b)),
            size=compared.size,
            difference=original,
        )


def _reason(measure: str, difference: AssetDifference) -> str:
    """The key of a measure among the reasons; a mirror image and a rotation have one of their own."""
    if measure != "distortion":
        return measure
    if difference.pose.is_mirrored:
        return "mirrored"
    return "rotated" if abs(difference.pose.rotation) > MAX_ROTATION else measure


def _outlines_agree(difference: AssetDifference, thresholds: VerificationThresholds) -> bool:
    return difference.pose.correlation >= thresholds.min_correlation


def _choose_answer(difference: AssetDifference, thresholds: VerificationThresholds, resembles: bool) -> str:
    """The answer for an image in which an asset was found; ``resembles``: whether it is claimed or similar enough."""
    if thresholds.score(difference.measures) >= thresholds.threshold:
        return SAME
    if _outlines_agree(difference, thresholds):
        return ALTERED
    return DIFFERENT if resembles else ABSENT


def _model_identity(engine: Engine, view: View, source: str = "", trunk: str = "") -> ModelIdentity:
    """Describe what makes the vectors; the network's key where the engine knows it."""
    facts = getattr(engine, "facts", None)
    return ModelIdentity(probe_embedding(engine), view.to_dict(), source, trunk, getattr(facts, "network", "") or "")
