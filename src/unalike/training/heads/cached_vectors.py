"""Compute the vectors of images with a network, and cache them on disk by file content.

An image's row is looked up by the digest of its file, so another run, another split or a few new images cost only what is
new. Shape letters: N images, D width of a vector.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.regions import ContentDigests
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.errors import DataError
from unalike.inference.embedding import embed_files
from unalike.progress import say, warn
from unalike.storage.atomic import atomic_write
from unalike.storage.cache import default_cache_dir
from unalike.storage.file_lock import file_lock

if TYPE_CHECKING:
    from unalike.spec.dataset import Dataset

MIN_TIMED_IMAGES = 128  # fewer images do not measure the engine's rate
DIGESTS_AT_ONCE = 256  # files that are read between two looks at the clock
CACHE_LIMIT_BYTES = 1 << 30  # of one network's vectors on disk


class VectorLimit(Protocol):
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


@dataclass(frozen=True)
class CachedVectors:
    """Vectors of the readable images of a set.

    Attributes:
        vectors_ND: float32, one row per readable image.
        kept_N: the index of each row's image in the image set.
        rate: images per second of the engine, measured now or when the cached rows were computed.
        tried: number of images that were to be embedded, unreadable ones included.
        setup_seconds: time that it took to create the engine; 0 where all vectors were cached.
    """

    vectors_ND: np.ndarray
    kept_N: np.ndarray
    rate: float
    tried: int
    setup_seconds: float


def compute_vectors(
    key: str, create: Callable[[int], Engine], images: ImageSet, view: View, notices: Notices, dataset: Dataset, *,
    describe: str, dim: int, views: int = 1, limit: VectorLimit | None = None, order_N: np.ndarray | None = None,
    expected_images: int | None = None,
) -> CachedVectors:  # fmt: skip
    """Compute the vectors of every readable image, or read them from the cache.

    Args:
        key: names the network and the view of its images; vectors of another key are others.
        create: called with the number of images; returns the engine. Not called where all vectors are cached.
        images: the images.
        view: how the images are resized and cropped.
        notices: collects unreadable images.
        dataset: number of workers and limits on unreadable images.
        describe: what the progress bar says.
        dim: width D of a vector.
        views: images that the engine computes for each one of the set.
        limit: says when to stop, so that only the first images of ``order_N`` have vectors.
        order_N: all rows of the images, in the order in which they are embedded; by default their own.
        expected_images: how many images will be embedded with this network in all, where these are but some of them.

    Raises:
        DataError: too many files cannot be read.
    """
    cache = _VectorCache(default_cache_dir() / "features" / f"{key}.npz")
    digests = _file_digests(images, np.arange(len(images)) if order_N is None else order_N, limit)
    features, rate = cache.load()
    missing = [i for i, digest in digests.items() if digest is not None and digest not in features]
    unreadable = [i for i, digest in digests.items() if digest is None]
    attempts, setup_seconds = set(digests), 0.0
    if missing or unreadable:
        start = time.monotonic()
        expected_count = views * max(len(missing), expected_images or 0)
        if limit is not None:
            expected_count = min(expected_count, limit.expected_images())
        engine = create(expected_count)
        setup_seconds = time.monotonic() - start
        start = time.monotonic()
        # Files that could not be opened are tried again here, where unreadable images are counted and named.
        remaining = [i for i in digests if digests[i] is None or digests[i] not in features]
        if limit is not None:
            limit.begin()
        embedded = embed_files(
            engine, [images.paths[i] for i in remaining], view, workers=dataset.workers, notices=notices,
            max_unreadable=dataset.max_unreadable, max_pixels=dataset.max_pixels, describe=describe,
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
        say(f"{describe}: all {len(digests)} read from the cache", level=2)
    readable_rows = sorted(i for i in attempts if digests[i] in features)
    vectors_ND = np.zeros((0, dim), np.float32)
    if readable_rows:
        vectors_ND = np.stack([features[digests[i]] for i in readable_rows])  # type: ignore[index]
    if missing:
        of_images = {
            digest: vectors_ND[row] for row, i in enumerate(readable_rows) if (digest := digests[i]) is not None
        }
        cache.save(of_images | {d: row for d, row in features.items() if d not in of_images}, rate)
    return CachedVectors(vectors_ND, np.array(readable_rows, np.int64), rate, len(attempts), setup_seconds)


def _file_digests(images: ImageSet, rows: np.ndarray, limit: VectorLimit | None) -> dict[int, bytes | None]:
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


class _VectorCache:
    """A file of vectors by digest, those of the latest image set first. An unreadable file counts as empty."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> tuple[dict[bytes, np.ndarray], float]:
        """Return vectors by digest, and the images per second at which they were computed."""
        try:
            with np.load(self.path) as content:
                digests, vectors, rate = content["digests"], content["vectors"], float(content["rate"])
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
            return {}, 0.0
        if digests.shape != (len(vectors), 16) or not rate > 0:
            return {}, 0.0
        return {digest.tobytes(): row for digest, row in zip(digests, vectors, strict=True)}, rate

    def save(self, features: Mapping[bytes, np.ndarray], rate: float) -> None:
        """Add vectors to those of the file, atomically; a cache that cannot be written is a warning."""
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
            warn(f"vectors are not kept for the next run: {error}")
