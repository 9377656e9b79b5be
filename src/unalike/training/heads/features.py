"""Compute the features of a frozen trunk and cache them on disk by file content.

An image's row is looked up by the digest of its file, so another run, another split or a few new images cost only what is
new. Shape letters: N images, F features, B batch, H height, W width, C channels.
"""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.data.regions import ContentDigests
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.errors import DataError
from unalike.inference.embedding import embed_files
from unalike.inference.engine_selection import create_engine, move_to_gpu
from unalike.model.backbones import PretrainedConfig
from unalike.model.frozen_trunk import FrozenTrunk, build_starting_trunk
from unalike.progress import say, warn
from unalike.storage.atomic import atomic_write
from unalike.storage.cache import default_cache_dir
from unalike.storage.file_lock import file_lock

if TYPE_CHECKING:
    from unalike.spec import Experiment

FORMAT_VERSION = 1
MIN_TIMED_IMAGES = 128  # fewer images do not measure the engine's rate
DIGESTS_AT_ONCE = 256  # files that are read between two looks at the clock
CACHE_LIMIT_BYTES = 1 << 30  # of one trunk's features on disk


@dataclass(frozen=True)
class TrunkFeatures:
    """Pooled features of a trunk for a set of images.

    Attributes:
        backbone: the trunk's name.
        view: the evaluation view of the images.
        facts: source and license of the trunk; mean and std by which its images are normalized.
        vectors_NF: float32 features, one row per readable image.
        kept_N: the index of each row's image in the image set.
        rate: images per second of the engine, measured now or when the cached rows were computed.
        mirrored_NF: features of a second view of each image, or None: mirrored left to right, or augmented.
        tried: number of images that were to be embedded, unreadable ones included; None for all.
        setup_seconds: time that it took to create the engine; 0 where all features were cached.
    """

    backbone: str
    view: View
    facts: PretrainedConfig
    vectors_NF: np.ndarray
    kept_N: np.ndarray
    rate: float
    mirrored_NF: np.ndarray | None = None
    tried: int | None = None
    setup_seconds: float = 0.0

    @property
    def preprocessing(self) -> Preprocessing:
        """What lies between the image files and the trunk."""
        return Preprocessing(self.view, self.facts.mean, self.facts.std)

    def training_rows(self, rows: np.ndarray, labels_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the features and labels to fit a head to.

        Args:
            rows: the images to fit to.
            labels_N: an integer label per row of ``vectors_NF``.

        Returns:
            Features and labels of ``rows``, followed by those of the mirror images where there are any.
        """
        if self.mirrored_NF is None:
            return self.vectors_NF[rows], labels_N[rows]
        return np.concatenate([self.vectors_NF[rows], self.mirrored_NF[rows]]), np.tile(labels_N[rows], 2)


class FeatureLimit(Protocol):
    """Says when to stop reading and embedding images (``automatic.sampling.EmbeddingLimit``)."""

    def expected_images(self) -> int:
        """Return about how many images will be embedded."""
        ...

    def begin(self) -> None:
        """Called before the first image is embedded."""
        ...

    def stop_digests(self, count: int, total: int) -> bool:
        """Return whether to stop after ``count`` of ``total`` files were read to look them up in the cache."""
        ...

    def stop(self, count: int, total: int) -> bool:
        """Return whether to stop after ``count`` of ``total`` images were embedded."""
        ...


class MirroringEngine:
    """An engine that embeds each image and its mirror image: vectors of twice the width, the image's own first."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.dim = engine, 2 * engine.dim

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        mirrored_BHWC = np.ascontiguousarray(images_BHWC[:, :, ::-1])
        return np.concatenate([self.engine(images_BHWC), self.engine(mirrored_BHWC)], axis=1)


def compute_features(
    backbone: str, images: ImageSet, view: View, notices: Notices, spec: Experiment, *, mirrored: bool = False,
    trunk: FrozenTrunk | None = None, limit: FeatureLimit | None = None, order_N: np.ndarray | None = None,
    expected_images: int | None = None,
) -> TrunkFeatures:  # fmt: skip
    """Compute the features of every readable image, or read them from the cache.

    Args:
        backbone: the trunk's name.
        images: the images.
        view: how the images are resized and cropped.
        notices: collects unreadable images.
        spec: ``spec.dataset`` holds the number of workers and the limits on unreadable images.
        mirrored: whether to compute the features of the mirror images too.
        trunk: the network, where it is not the one that training starts from.
        limit: says when to stop, so that only the first images of ``order_N`` have features.
        order_N: all rows of the images, in the order in which they are embedded; by default their own.
        expected_images: how many images will be embedded with this trunk in all, where these are but some of them; the engine is
            chosen by it.

    Raises:
        WeightsError: the trunk has no pretrained weights.
        DataError: too many files cannot be read.
    """
    trunk = trunk or build_starting_trunk(spec, backbone, (view.height, view.width))
    facts = normalization_facts(spec, trunk.trunk.facts)
    cache = _FeatureCache(default_cache_dir() / "features" / f"{_cache_key(trunk, view, facts, mirrored)}.npz")
    rows = np.arange(len(images)) if order_N is None else order_N
    digests = _file_digests(images, rows, limit)
    features, rate = cache.load()
    missing = [i for i, digest in digests.items() if digest is not None and digest not in features]
    unreadable = [i for i, digest in digests.items() if digest is None]
    attempts, setup_seconds = set(digests), 0.0
    if missing or unreadable:
        move_to_gpu(trunk, "auto")
        views = 2 if mirrored else 1
        start = time.monotonic()
        expected_count = views * max(len(missing), expected_images or 0)
        if limit is not None:
            expected_count = min(expected_count, limit.expected_images())
        engine = create_engine(trunk, Preprocessing(view, facts.mean, facts.std), images=expected_count)
        setup_seconds = time.monotonic() - start
        start = time.monotonic()
        # Files that could not be opened are tried again here, where unreadable images are counted and named.
        remaining = [i for i in digests if digests[i] is None or digests[i] not in features]
        if limit is not None:
            limit.begin()
        embedded = embed_files(
            MirroringEngine(engine) if mirrored else engine, [images.paths[i] for i in remaining], view,
            workers=spec.dataset.workers, notices=notices, max_unreadable=spec.dataset.max_unreadable,
            max_pixels=spec.dataset.max_pixels, describe=f"features of {backbone}",
            stop=None if limit is None else limit.stop,
        )  # fmt: skip
        count = len(embedded.attempt_N)
        if not rate or count >= MIN_TIMED_IMAGES:
            rate = views * count / max(time.monotonic() - start, 1e-9)
        attempts -= set(remaining) - {remaining[n] for n in embedded.attempt_N.tolist()}
        for row, n in enumerate(embedded.kept_N.tolist()):
            digest = digests[remaining[n]]
            if digest is not None:
                features[digest] = embedded.vectors_ND[row]
    else:
        say(f"features of {backbone}: all {len(digests)} read from the cache", level=2)
    readable_rows = sorted(i for i in attempts if digests[i] in features)
    width = trunk.dim * (2 if mirrored else 1)
    vectors = np.zeros((0, width), np.float32)
    if readable_rows:
        vectors = np.stack([features[digests[i]] for i in readable_rows])  # type: ignore[index]
    if missing:
        of_images = {digest: vectors[row] for row, i in enumerate(readable_rows) if (digest := digests[i]) is not None}
        cache.save(of_images | {d: row for d, row in features.items() if d not in of_images}, rate)
    vectors_NF, mirrored_NF = vectors[:, : trunk.dim], vectors[:, trunk.dim :] if mirrored else None
    rows_N = np.array(readable_rows, np.int64)
    return TrunkFeatures(backbone, view, facts, vectors_NF, rows_N, rate, mirrored_NF, len(attempts), setup_seconds)


def normalization_facts(spec: Experiment, facts: PretrainedConfig) -> PretrainedConfig:
    """Return a trunk's facts with the mean and std that its network will use: the user's own where the spec sets them.

    Args:
        spec: the spec.
        facts: mean and std of the trunk's pretraining.
    """
    dataset = spec.dataset
    mean = tuple(dataset.pixel_mean) if spec.is_set("dataset.pixel_mean") else facts.mean
    std = tuple(dataset.pixel_std) if spec.is_set("dataset.pixel_std") else facts.std
    return replace(facts, mean=mean, std=std)


def _cache_key(trunk: FrozenTrunk, view: View, facts: PretrainedConfig, mirrored: bool) -> str:
    """Name the cache file by everything that determines a row: weights, view, normalization, mirrored or not."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(trunk.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(repr((sorted(view.to_dict().items()), facts.mean, facts.std, mirrored, FORMAT_VERSION)).encode())
    return f"{trunk.trunk.name.replace('/', '_')}-{digest.hexdigest()}"


def _file_digests(images: ImageSet, rows: np.ndarray, limit: FeatureLimit | None) -> dict[int, bytes | None]:
    """Digest the content of every file, by row in the order of ``rows``; None for one that cannot be opened."""
    digests: dict[int, bytes | None] = {}
    digest_of = ContentDigests()
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(rows), DIGESTS_AT_ONCE):
            part = rows[start : start + DIGESTS_AT_ONCE].tolist()
            digests.update(zip(part, pool.map(digest_of, (images.paths[i] for i in part)), strict=True))
            if limit is not None and limit.stop_digests(len(digests), len(rows)):
                break
    return digests


class _FeatureCache:
    """A file of features by digest, those of the latest image set first. An unreadable file counts as empty."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> tuple[dict[bytes, np.ndarray], float]:
        """Return features by digest, and the images per second at which they were computed."""
        try:
            with np.load(self.path) as content:
                digests, vectors, rate = content["digests"], content["vectors"], float(content["rate"])
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
            return {}, 0.0
        if digests.shape != (len(vectors), 16) or not rate > 0:
            return {}, 0.0
        return {digest.tobytes(): row for digest, row in zip(digests, vectors, strict=True)}, rate

    def save(self, features: Mapping[bytes, np.ndarray], rate: float) -> None:
        """Add features to those of the file, atomically; a cache that cannot be written is a warning."""
        width = len(next(iter(features.values())))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(self.path):
                features = {**features, **{d: row for d, row in self.load()[0].items() if d not in features}}
                keys = list(features)[: max(1, CACHE_LIMIT_BYTES // (4 * width))]
                digests = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)
                with atomic_write(self.path) as partial:
                    np.savez(partial, digests=digests, vectors=np.stack([features[d] for d in keys]), rate=rate)
        except (OSError, DataError) as error:
            warn(f"features are not kept for the next run: {error}")
