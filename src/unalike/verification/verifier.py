"""A verifier in a user's program: does this picture show the approved asset, unaltered?

Recognition proposes: the network's vector says which assets a picture may show. The comparison decides: each of these is
laid over the picture, and what differs is measured. Four answers:

- ``same``: it shows the asset, and nothing differs beyond what scale, light, ground, compression and a small turn do;
- ``altered``: it shows the asset, and something differs; reasons, boxes and a heat map say what and where;
- ``different``: it resembles an asset (or one was claimed), yet shows another thing;
- ``not in the set``: it resembles none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unalike import progress
from unalike.data.decode import MAX_PIXELS, ImageInput, open_image, upright_rgb, upright_size
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.errors import DataError, ModelError, UnreadableImage, closest
from unalike.inference.feature_map_model import PRETRAINED, engine_from_onnx, load_feature_maps
from unalike.inference.loaded_model import load_model
from unalike.metrics.knn import unit
from unalike.metrics.roc import trials_needed
from unalike.recognition.gallery import Gallery, ModelIdentity
from unalike.recognition.recogniser import probe_embedding
from unalike.storage.processes import usable_cores
from unalike.verification.approved_set import ApprovedSet, faces
from unalike.verification.asset import Asset, open_asset
from unalike.verification.localization import Template, shrink
from unalike.verification.measures import Difference
from unalike.verification.regions import Spot, outline_of, spots_of
from unalike.verification.tampering import TAMPERING
from unalike.verification.thresholds import Limits, check_rate, settle_limits
from unalike.verification.trials import Trial, draw_trials, gather, measure, measured

SAME, ALTERED, DIFFERENT, ABSENT = "same", "altered", "different", "not in the set"
ANSWERS = (SAME, ALTERED, DIFFERENT, ABSENT)
# Pictures are compared at no more than this many pixels a side: bounded memory, and more than an asset is compared at.
LONGEST = 1024
LEAST_SIDE = 16
# So many of the nearest assets are laid over a picture.
PROPOSED = 4
# Trials an asset at least, and others; more where the rate asks for more.
GENUINE, LEAST_TRIALS, MOST_TRIALS = 6, 8, 400
# A spot is told from this share of the contrast on, or from the limit of ``parts`` where that is higher.
CLEAR = 0.15
# From this share of it on, the asset differs as a whole.
WHOLE = 0.5
REASONS = {
    "edges": "its outlines do not agree",
    "distortion": "it is stretched or slanted",
    "colour": "it is recoloured",
    "parts": "parts differ",
    "balance": "its strokes are heavier or lighter",
}


@dataclass(frozen=True)
class Verdict:
    """The answer for one picture.

    ``asset`` is the nearest asset whatever the answer (None for a blank), ``score`` (0..1) how unaltered it is: ``same`` from
    ``threshold`` on. ``likeness``: cosine of the vectors. ``reasons``: the measures beyond their limits, largest first, in
    units of the limit. ``spots``: where it differs, boxes in pixels of the picture; ``outline``: the asset's four corners
    there. ``whole``: most of it differs. ``turn`` (degrees), ``scale`` (picture pixels an asset pixel). ``found`` holds heat map and frames; it is not part
    of ``to_dict``.
    """

    answer: str
    asset: str | None
    score: float
    threshold: float
    likeness: float
    reasons: dict[str, float] = field(default_factory=dict)
    spots: tuple[Spot, ...] = ()
    outline: tuple[tuple[float, float], ...] = ()
    turn: float = 0.0
    scale: float = 0.0
    whole: bool = False
    twins: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    found: Difference | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return spoken(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "answer": self.answer, "asset": self.asset, "score": round(self.score, 4), "threshold": round(self.threshold, 4),
            "likeness": round(self.likeness, 4), "reasons": {k: round(v, 3) for k, v in self.reasons.items()},
            "spots": [spot.to_dict() for spot in self.spots], "outline": [[round(x, 1), round(y, 1)] for x, y in self.outline],
            "whole": self.whole, "turn": round(self.turn, 2), "scale": round(self.scale, 4), "twins": list(self.twins), "size": list(self.size),
        }  # fmt: skip


def spoken(verdict: Mapping[str, Any]) -> str:
    """One line of a verdict's plain data."""
    told, asset, score = verdict["answer"], verdict["asset"], verdict["score"]
    if told == SAME:
        return f"same as {asset} (score {score:.3f})"
    if told == ABSENT:
        return f"{told} (nearest {asset})"
    if told == DIFFERENT:
        return f"different from {asset}"
    return f"altered {asset}: {_why(verdict['reasons'], verdict['whole'])} (score {score:.3f}, same from {verdict['threshold']:.3f})"


def _why(reasons: Mapping[str, float], whole: bool) -> str:
    """What differs, in words: the cause before its consequences."""
    if "distortion" in reasons:
        return REASONS["distortion"]
    if whole and "edges" not in reasons:  # all of it differs, and its outlines agree
        return REASONS["colour"]
    return next(
        (REASONS[name] for name in ("parts", "colour", "balance", "edges") if name in reasons), "it differs a little"
    )


class Verifier:
    """Approved assets and what compares pictures with them. Any number of threads may call ``verify``.

    >>> verifier = Verifier.build("assets/", "model.onnx")          # doctest: +SKIP
    >>> verifier.calibrate(rate=0.01)
    >>> verdict = verifier.verify("picture.jpg")
    >>> verdict.answer, verdict.asset, verdict.spots
    """

    def __init__(self, approved: ApprovedSet, engine: Engine, view: View) -> None:
        approved.gallery.model_identity.check_compatible(_maker(engine, view))
        self.approved, self.engine, self.view = approved, engine, view
        self._templates: dict[int, Template] = {}

    @classmethod
    def build(
        cls,
        assets: str | Path | Iterable[ImageInput | bytes | Asset],
        model: str | Path | None = None,
        *,
        names: Sequence[str] | None = None,
        runtime: str = "auto",
        precision: str = "auto",
    ) -> Verifier:
        """Enrol assets (a folder, one image an asset; or pictures with ``names``) by a model, exported or a checkpoint.

        Without one the frozen trunk that is installed finds the assets (extra ``train``). Raises as ``of``, and ModelError.
        """
        held = _opened(assets, names)  # before the network, which may take ten seconds to open
        if model is None:
            opened = load_feature_maps(PRETRAINED, vector=True, runtime=runtime, precision=precision)
            progress.say(f"no model given: the frozen trunk {opened.trunk} finds the assets")
            return cls.of(
                held, opened.engine, opened.view, source=opened.source, trunk=opened.trunk, network=opened.content
            )
        found = load_model(model, runtime=runtime, precision=precision)
        content = found.source.read_bytes() if found.source.suffix == ".onnx" else None
        return cls.of(held, found.engine, found.view, source=str(model), trunk=found.trunk, network=content)

    @classmethod
    def load(
        cls, path: str | Path, model: str | Path | None = None, *, runtime: str = "auto", precision: str = "auto"
    ) -> Verifier:
        """A saved set, with the network that lies in it, or the one named; no torch for an exported network.

        Raises DataError for a file that is missing, damaged or another thing, ModelError without its network.
        """
        held = ApprovedSet.load(path)
        maker = held.gallery.model_identity
        if model is None and held.network is not None:
            engine = engine_from_onnx(held.network, runtime, precision)
            return cls(held, engine, View.from_dict(dict(maker.view)) if maker.view else View(*engine.input_size))
        source = model or maker.file
        if not source or not Path(source).is_file():
            raise ModelError(f"{path} holds no network, and its model is not at {source or 'any place'}",
                             remedy="name it with -m FILE")  # fmt: skip
        found = load_model(source, runtime=runtime, precision=precision)
        return cls(held, found.engine, found.view)

    @classmethod
    def of(
        cls,
        assets: str | Path | Iterable[ImageInput | bytes | Asset],
        engine: Engine,
        view: View,
        *,
        names: Sequence[str] | None = None,
        source: str = "",
        trunk: str = "",
        network: bytes | None = None,
    ) -> Verifier:
        """The same with an engine in hand; ``network`` is an ONNX file's content, kept in the saved set.

        Raises DataError where there is none, a name stands twice, or nothing is to be seen on one.
        """
        opened = _opened(assets, names)
        gallery = Gallery(engine.dim, _maker(engine, view, source, trunk))
        with progress.progress("enrolling assets", len(opened), "assets") as advance:
            for asset in opened:
                shown = np.stack([view(face) for face in faces(asset)])
                gallery.enrol(engine(shown), [asset.name] * len(shown))
                advance()
        return cls(ApprovedSet(tuple(opened), gallery, None, network), engine, view)

    @property
    def limits(self) -> Limits | None:
        return self.approved.limits

    def template(self, number: int) -> Template:
        """The asset's edge maps, made when first needed."""
        if number not in self._templates:
            self._templates[number] = Template(self.approved.assets[number])
        return self._templates[number]

    # ---- calibration ----

    def calibrate(
        self,
        rate: float = 0.01,
        *,
        trials: int | None = None,
        kinds: Collection[str] = TAMPERING,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> Limits:
        """Set the limits for a share ``rate`` of false accepts, from the assets alone (``verify.trials``).

        ``trials``: tampered copies an asset; left out, as many as the rate asks for. Raises DataError where they cannot
        support it.
        """
        check_rate(rate, confidence)
        assets = self.approved.assets
        twins = self._twins()
        if trials is None:
            needed = int(np.ceil(1.1 * trials_needed(rate, confidence) / len(assets)))
            trials = int(np.clip(needed, LEAST_TRIALS, MOST_TRIALS))
        cosine_AA = self._cosines_of_assets()
        same = {
            name: {b for a, b in twins if a == name} | {a for a, b in twins if b == name}
            for name in self.approved.names
        }

        def rivals(number: int) -> list[int]:
            order = np.argsort(-cosine_AA[number], kind="stable").tolist()
            return [i for i in order if i != number and assets[i].name not in same[assets[number].name]]

        genuine = max(GENUINE, trials // 2)
        drawn = draw_trials(
            assets, genuine=genuine, tampered=trials, others=trials, kinds=kinds, rivals=rivals, seed=seed
        )
        rows = self._measured(drawn, len(assets) * (2 * trials + genuine))
        limits = settle_limits(gather(rows), rate, confidence)
        self.approved = replace(self.approved, limits=limits, twins=twins)
        return limits

    def _measured(self, drawn: Iterable[Trial], total: int) -> list[tuple[list[float], int, str, float]]:
        """Each trial's measures and its cosine to the asset it is held against; a few at a time, by threads."""
        rows: list[tuple[list[float], int, str, float]] = []
        trials = iter(drawn)
        with ThreadPoolExecutor(usable_cores()) as pool, progress.progress("calibrating", total, "trials") as advance:
            while part := list(islice(trials, max(8, self.engine.batch))):
                found = list(pool.map(lambda trial: measure(self.template(trial.asset), trial.picture_HW3), part))
                vectors_ND = self.engine(np.stack([self.view(trial.picture_HW3) for trial in part]))
                for trial, one, vector_D in zip(part, found, vectors_ND, strict=True):
                    rows.append((measured(one), trial.asset, trial.kind, float(self._cosines(vector_D)[trial.asset])))
                advance(len(part))
        return rows

    def _twins(self) -> tuple[tuple[str, str], ...]:
        """Pairs of assets that are one drawing: a clean picture of the one differs from the other in nothing."""
        cosine_AA, assets = self._cosines_of_assets(), self.approved.assets
        pairs = []
        for first, second in np.argwhere(np.triu(cosine_AA, 1) > 0.97).tolist():
            found = measure(self.template(first), assets[second].on())
            told = found.measures if found is not None else None
            if (
                told
                and told["parts"] < 0.12
                and told["colour"] < 0.1
                and told["distortion"] < 0.02
                and told["area"] < 0.01
            ):
                pairs.append((assets[first].name, assets[second].name))
        if pairs:
            shown = ", ".join(f"{a} and {b}" for a, b in pairs[:3])
            progress.say(f"{len(pairs)} pairs of assets cannot be told apart: {shown}")
        return tuple(pairs)

    def _cosines_of_assets(self) -> np.ndarray:
        vectors_ND, held = unit(self.approved.gallery.vectors_ND), self.approved.gallery.snapshot
        firsts = [int(np.flatnonzero(held.codes_N == code)[0]) for code in range(len(held.classes))]
        return np.asarray(vectors_ND[firsts] @ vectors_ND[firsts].T)

    # ---- verification ----

    def verify(self, image: ImageInput | bytes, claimed: str | None = None) -> Verdict:
        """The answer for one picture: a path, file content, PIL image or uint8 array.

        ``claimed`` names the asset that it should show; it alone is compared then, and ``not in the set`` is not an answer.
        Raises UnreadableImage, DataError for an asset that is not in the set or a verifier that was never calibrated.
        """
        if self.limits is None:
            raise DataError("the limits are not set", remedy="calibrate first")
        number = None if claimed is None else self.number(claimed)
        return self._judge(*_pixels(image), number)

    def number(self, name: str) -> int:
        """The place of an asset in the set. Raises DataError with close spellings."""
        if name not in self.approved.names:
            raise DataError(f"no asset {name!r} in the set", remedy=closest(name, self.approved.names))
        return self.approved.names.index(name)

    def _judge(self, picture_HW3: np.ndarray, size: tuple[int, int], claimed: int | None) -> Verdict:
        limits = self.limits
        assert limits is not None
        cosine_A = self._cosines(self._vector(picture_HW3))
        order = np.argsort(-cosine_A, kind="stable")[:PROPOSED].tolist() if claimed is None else [claimed]
        best: tuple[float, int, Difference] | None = None
        for number in order:
            found = measure(self.template(number), picture_HW3)
            if found is None:
                continue
            score = limits.score(found.measures)
            # Which asset it shows is told by its outlines first; among those that agree, by how little differs.
            rank = score + (1.0 if 1 - found.measures["edges"] >= limits.shown else 0.0)
            if best is None or rank > best[0]:
                best = (rank, number, found)
            if score >= limits.threshold:
                break
        shrunk = picture_HW3.shape[1] / size[1]
        if best is None:
            nearest = int(np.argmax(cosine_A)) if claimed is None else claimed
            return Verdict(DIFFERENT if claimed is not None else ABSENT, self.approved.names[nearest], 0.0, limits.threshold,
                           float(cosine_A[nearest]), size=size)  # fmt: skip
        _, number, found = best
        return self._told(
            number, found, float(cosine_A[number]), float(cosine_A.max()), claimed is not None, size, shrunk
        )

    def _told(
        self, number: int, found: Difference, likeness: float, highest: float, claimed: bool, size: tuple[int, int],
        shrunk: float,
    ) -> Verdict:  # fmt: skip
        limits, asset = self.limits, self.approved.assets[number]
        assert limits is not None
        score, shares = limits.score(found.measures), limits.shares(found.measures)
        shown = 1 - found.measures["edges"] >= limits.shown
        if score >= limits.threshold:
            answer = SAME
        elif shown:
            answer = ALTERED
        else:
            answer = DIFFERENT if claimed or highest >= limits.known else ABSENT
        full = replace(found, to_picture_23=np.asarray(found.to_picture_23) / shrunk)
        limit = 1 / limits.threshold - 1
        reasons = {name: share for name, share in sorted(shares.items(), key=lambda pair: -pair[1]) if share > limit}
        spots = spots_of(full, size, max(limits.limits["parts"], CLEAR)) if answer == ALTERED else []
        corners = outline_of(found, asset) / shrunk
        twins = [b if a == asset.name else a for a, b in self.approved.twins if asset.name in (a, b)]
        return Verdict(answer, asset.name, score, limits.threshold, likeness, reasons, tuple(spots),
                       tuple((float(x), float(y)) for x, y in corners), found.place.turn, found.place.scale / shrunk,
                       found.measures["area"] > WHOLE, tuple(twins), size, full)  # fmt: skip

    def _vector(self, picture_HW3: np.ndarray) -> np.ndarray:
        vector_1D: np.ndarray = self.engine(self.view(picture_HW3)[None])
        return vector_1D[0]

    def _cosines(self, vector_D: np.ndarray) -> np.ndarray:
        """The cosine to each asset's nearest face, in the order of the assets."""
        held = self.approved.gallery.snapshot
        cosine_N = self.approved.gallery.vectors_ND @ unit(vector_D[None])[0]
        best = np.full(len(held.classes), -1.0)
        np.maximum.at(best, held.codes_N, cosine_N)
        place = {name: code for code, name in enumerate(held.classes)}
        return best[[place[name] for name in self.approved.names]]

    def save(self, path: str | Path) -> Path:
        """Assets, vectors, limits and network as one file."""
        return self.approved.save(path)


def _opened(assets: Any, names: Sequence[str] | None) -> list[Asset]:
    from unalike.data.imageset import load_images

    if isinstance(assets, (str, Path)):
        paths = list(load_images(assets, labeled=False).paths)
        stems = [path.stem for path in paths]
        named = [path.name if stems.count(path.stem) > 1 else path.stem for path in paths]
        if len(set(named)) != len(named):
            named = [str(path) for path in paths]
        opened = [open_asset(path, name) for path, name in zip(paths, named, strict=True)]
    else:
        given = list(assets)
        told = list(names) if names is not None else [_name(picture, i) for i, picture in enumerate(given)]
        if len(told) != len(given):
            raise DataError(f"{len(given)} assets and {len(told)} names", expected="as many each")
        opened = [
            replace(picture, name=name) if isinstance(picture, Asset) else open_asset(picture, name)
            for picture, name in zip(given, told, strict=True)
        ]
    if not opened:
        raise DataError("no assets", expected="a folder that holds some images")
    every = [asset.name for asset in opened]
    twice = sorted({name for name in every if every.count(name) > 1})
    if twice:
        raise DataError(f"two assets are named {twice[0]!r}", expected="a name each")
    return opened


def _maker(engine: Any, view: View, source: str = "", trunk: str = "") -> ModelIdentity:
    """What the vectors come from; the network's key where the engine knows it."""
    facts = getattr(engine, "facts", None)
    return ModelIdentity(probe_embedding(engine), view.to_dict(), source, trunk, getattr(facts, "network", "") or "")


def _name(picture: Any, number: int) -> str:
    if isinstance(picture, Asset):
        return picture.name
    return Path(picture).stem if isinstance(picture, (str, Path)) else f"asset {number}"


def _pixels(image: ImageInput | bytes) -> tuple[np.ndarray, tuple[int, int]]:
    """(uint8 RGB of at most LONGEST a side, height and width of the original)."""
    if isinstance(image, np.ndarray):
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,), (4,)):
            raise DataError(
                f"an array {image.dtype} of shape {image.shape}", expected="uint8, (H, W), (H, W, 3) or (H, W, 4)"
            )
        image = Image.fromarray(np.ascontiguousarray(image))
    if isinstance(image, Image.Image):
        picture = upright_rgb(image)
        size = (picture.height, picture.width)
    else:
        size = upright_size(image)
        picture = open_image(image, min_size=(LONGEST, LONGEST), max_pixels=MAX_PIXELS)
    if min(picture.size) < LEAST_SIDE:
        raise UnreadableImage(
            f"a picture of {picture.width} x {picture.height} pixels", expected=f"at least {LEAST_SIDE} a side"
        )
    pixels, _ = shrink(np.asarray(picture), LONGEST)
    return np.ascontiguousarray(pixels), size
