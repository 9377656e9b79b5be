"""Features of frozen trunks: computed once through the fastest engine, kept on disk by content.

An image's row is found again by the digest of its file, so that another run, another split or a few new images cost what
is new and no more. Shape letters: N images, F features.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.inference.embedding import embed_files
from unalike.inference.engine_selection import create_engine, move_to_gpu
from unalike.model.backbones import PretrainedConfig
from unalike.model.frozen import FrozenTrunk, build_frozen_trunk
from unalike.progress import say, warn
from unalike.storage.atomic import atomic_write
from unalike.storage.cache import default_cache_dir

FORMAT_VERSION = 1
ENOUGH_TO_TIME = 128  # images whose pace says something
LIMIT_BYTES = 1 << 30  # of one trunk's rows on disk


@dataclass(frozen=True)
class Features:
    """``vectors_NF`` (float32, the trunk's pooled features) of the images ``kept_N`` of the set that was asked for.

    ``mirrored_NF``: those of the same images turned left to right, or None where they were not computed. ``rate``: images
    a second that the engine took, now or when the rows that were found on disk were computed.
    """

    backbone: str
    view: View
    facts: PretrainedConfig
    vectors_NF: np.ndarray
    kept_N: np.ndarray
    rate: float
    mirrored_NF: np.ndarray | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """What lies between the image files and the trunk."""
        return Preprocessing(self.view, self.facts.mean, self.facts.std)

    def both(self, rows: np.ndarray, labels_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What a head is fitted to: features and labels of ``rows``, of both views where there are two."""
        if self.mirrored_NF is None:
            return self.vectors_NF[rows], labels_N[rows]
        return np.concatenate([self.vectors_NF[rows], self.mirrored_NF[rows]]), np.tile(labels_N[rows], 2)


class BothViews:
    """An engine that also sees each image turned left to right: twice as many columns, its own first."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.dim = engine, 2 * engine.dim

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        turned_BHWC = np.ascontiguousarray(images_BHWC[:, :, ::-1])
        return np.concatenate([self.engine(images_BHWC), self.engine(turned_BHWC)], axis=1)


def trunk_features(
    backbone: str, images: ImageSet, view: View, notices: Notices, spec: Any, *, mirrored: bool = False,
    trunk: FrozenTrunk | None = None,
) -> Features:  # fmt: skip
    """The features of every readable image under ``view``, and with ``mirrored`` of its mirror image.

    ``trunk``: the network, where it is not that of the name as it came. ``spec.dataset`` gives workers and the limits of unreadable images. Raises WeightsError where the trunk has no
    weights, DataError when too many files cannot be read.
    """
    trunk = trunk or build_frozen_trunk(backbone, (view.height, view.width))
    facts: PretrainedConfig = trunk.trunk.facts
    shelf = _Shelf(default_cache_dir() / "features" / f"{_identity(trunk, view, facts, mirrored)}.npz")
    digests = _digests(images)
    found, rate = shelf.rows()
    missing = [i for i, digest in enumerate(digests) if digest is not None and digest not in found]
    failed = {i for i, digest in enumerate(digests) if digest is None}
    if missing or failed:
        move_to_gpu(trunk, "auto")
        views = 2 if mirrored else 1
        engine = create_engine(trunk, Preprocessing(view, facts.mean, facts.std), images=views * len(missing))
        start = time.monotonic()
        wanted = sorted(
            [*missing, *failed]
        )  # a file that could not even be opened is counted and named like the others
        done = embed_files(
            BothViews(engine) if mirrored else engine, [images.paths[i] for i in wanted], view,
            workers=spec.dataset.workers, notices=notices, max_unreadable=spec.dataset.max_unreadable,
            max_pixels=spec.dataset.max_pixels, describe=f"features of {backbone}",
        )  # fmt: skip
        if not rate or len(wanted) >= ENOUGH_TO_TIME:
            rate = views * len(wanted) / max(time.monotonic() - start, 1e-9)
        for row, n in enumerate(done.kept_N.tolist()):
            digest = digests[wanted[n]]
            if digest is not None:
                found[digest] = done.vectors_ND[row]
    else:
        say(f"features of {backbone}: all {len(images)} found on disk", level=2)
    kept = [i for i, digest in enumerate(digests) if digest is not None and digest in found]
    width = trunk.dim * (2 if mirrored else 1)
    rows = np.stack([found[digests[i]] for i in kept]) if kept else np.zeros((0, width), np.float32)  # type: ignore[index]
    if missing:
        own: dict[Any, np.ndarray] = {digests[i]: rows[row] for row, i in enumerate(kept)}
        shelf.keep(own | {d: row for d, row in found.items() if d not in own}, rate)
    vectors_NF, turned_NF = rows[:, : trunk.dim], rows[:, trunk.dim :] if mirrored else None
    return Features(backbone, view, facts, vectors_NF, np.array(kept, np.int64), rate, turned_NF)


def _identity(trunk: Any, view: View, facts: PretrainedConfig, mirrored: bool) -> str:
    """What must be equal for a row to be the same: weights, view, normalisation, one view or two."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(trunk.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    digest.update(repr((sorted(view.to_dict().items()), facts.mean, facts.std, mirrored, FORMAT_VERSION)).encode())
    return f"{trunk.trunk.name.replace('/', '_')}-{digest.hexdigest()}"


def _digests(images: ImageSet) -> list[bytes | None]:
    """A digest of every file's content; None for one that cannot be opened."""

    def digest(path: Path) -> bytes | None:
        try:
            with open(path, "rb") as file:
                return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
        except OSError:
            return None

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(digest, images.paths))


class _Shelf:
    """One file of rows by digest, those of the latest set first. A file that cannot be read is as none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> tuple[dict[bytes, np.ndarray], float]:
        """Rows by digest, and the images a second at which they were computed."""
        try:
            with np.load(self.path) as content:
                digests, vectors, rate = content["digests"], content["vectors"], float(content["rate"])
        except (OSError, ValueError, KeyError, EOFError, TypeError):
            return {}, 0.0
        if digests.shape != (len(vectors), 16) or not rate > 0:
            return {}, 0.0
        return {digest.tobytes(): row for digest, row in zip(digests, vectors, strict=True)}, rate

    def keep(self, rows: Mapping[bytes, np.ndarray], rate: float) -> None:
        """Written whole or not at all; a cache that cannot be written costs time, nothing else."""
        width = len(next(iter(rows.values())))
        kept = list(rows)[: max(1, LIMIT_BYTES // (4 * width))]
        digests = np.frombuffer(b"".join(kept), np.uint8).reshape(-1, 16)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path) as partial:
                np.savez(partial, digests=digests, vectors=np.stack([rows[d] for d in kept]), rate=rate)
        except OSError as error:
            warn(f"features are not kept for the next run: {error}")
