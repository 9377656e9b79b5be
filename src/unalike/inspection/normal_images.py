"""The normal images that an inspector is fitted to: listing, reading, grouping by part, sampling of patches.

Shape letters: I images, N patches, F their width, P values of a position (``patch_features.patch_positions``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from unalike import progress
from unalike.data.decode import DEFAULT, MAX_PIXELS, ImageInput, is_image, name_of, open_image, upright_size
from unalike.data.decoding import Decoding
from unalike.errors import DataError, SpecError, UnreadableImage
from unalike.inspection.anomaly_model import AnomalyModel, AnomalyModelConfig
from unalike.inspection.coreset import greedy_coreset
from unalike.inspection.patch_features import PatchExtractor, patch_positions
from unalike.numerics.arguments import check_list
from unalike.source_names import source_name

# Share of the files that may be unreadable; one of several always may.
MAX_UNREADABLE = 0.05
# Share of the patches sampled from an image that is sampled at random.
RANDOM_SHARE = 0.3


def list_images(source: str | Path | Iterable[ImageInput]) -> list[ImageInput]:
    """List the images of a folder (any depth), an archive, a manifest, or those given one by one."""
    if isinstance(source, str | Path):
        from unalike.data.imageset import load_images

        return [str(path) for path in load_images(source, labeled=False).paths]
    if is_image(source) and not (isinstance(source, np.ndarray) and source.ndim == 4):
        raise DataError(f"one image ({name_of(source)})", expected="a list of images, or a folder")  # type: ignore[arg-type]
    return check_list("images", source, "an image", ordered=False)


class ReadableImages:
    """Iterates over the images that can be read, as (number, RGB image); every pass gives the same numbers.

    Args:
        images: The images.
        max_pixels: Larger images count as unreadable.
        decoding: How they become 8-bit RGB.

    Attributes:
        failures: Index in ``images`` -> reason, for the images that cannot be read; complete after the first pass.
    """

    def __init__(
        self, images: Sequence[ImageInput], max_pixels: int = MAX_PIXELS, decoding: Decoding = DEFAULT
    ) -> None:
        self._images, self._max_pixels, self._decoding = list(images), max_pixels, decoding
        self.failures: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._images)

    def index_of(self, number: int) -> int:
        """Index among all images of readable image ``number``, which must have been reached."""
        return [index for index in range(len(self)) if index not in self.failures][number]

    def name_of(self, number: int) -> str:
        """The path of readable image ``number``, or its place among all images where it is no file."""
        index = self.index_of(number)
        image = self._images[index]
        return source_name(image) if isinstance(image, str | Path) else f"image {index}"

    def sizes(self) -> list[tuple[int, int]]:
        """(H, W) of each image with a readable header, without decoding it."""
        sizes = []
        for image in self._images:
            try:
                sizes.append(upright_size(image))
            except UnreadableImage:
                continue
        if not sizes:
            raise DataError(f"none of {len(self)} images can be read", expected="images of good parts")
        return sizes

    def __iter__(self) -> Iterator[tuple[int, Image.Image]]:
        """Raises DataError where more than ``MAX_UNREADABLE`` of the images cannot be read."""
        number = 0
        limit = max(1, int(MAX_UNREADABLE * len(self)))
        for index, image in enumerate(self._images):
            if index in self.failures:
                continue
            try:
                opened_image = open_image(image, decoding=self._decoding, max_pixels=self._max_pixels)
            except UnreadableImage as error:
                self.failures[index] = str(error)
                if len(self.failures) > limit or len(self.failures) == len(self):
                    raise DataError(
                        f"{len(self.failures)} or more of {len(self)} images cannot be read (the first: "
                        f"{next(iter(self.failures.values()))})",
                        expected=f"at most {limit}", remedy="repair or remove them",
                    ) from error  # fmt: skip
                continue
            yield number, opened_image
            number += 1


# ---- images of the same part ----


def part_labels(images: Sequence[ImageInput], parts: Sequence[Hashable] | str | None, least: int = 2) -> list[Hashable]:
    """Name the part that each image shows.

    Args:
        images: The images.
        parts: One hashable value an image; or a regular expression that matches the part in an image's path (its groups,
            or all of the match where it has none); None: each image shows its own part.
        least: How many parts there must be; two, for each image to be scored without its own.

    Raises:
        SpecError: Not a regular expression.
        DataError: Another number of values than of images, a path that does not match, or fewer parts than ``least``.
    """
    if isinstance(parts, str):
        labels = _match_parts(images, parts)
    else:
        labels = check_list("parts", range(len(images)) if parts is None else parts, "the part of an image")
    if len(labels) != len(images):
        raise DataError(f"the parts of {len(labels)} images", expected=f"one for each of {len(images)}")
    if len(set(labels)) < least:
        raise DataError("all good images show one part", expected="at least two, so that each is scored without itself")
    return labels


def _match_parts(images: Sequence[ImageInput], pattern: str) -> list[Hashable]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise SpecError(
            f"part {pattern!r}: {error}", expected="a regular expression, such as 'part_([0-9]+)'"
        ) from error
    matches = [expression.search(str(image)) if isinstance(image, str | Path) else None for image in images]
    if None in matches:
        first = images[matches.index(None)]
        raise DataError(
            f"{matches.count(None)} of {len(images)} images do not match {pattern!r}, such as "
            f"{first if isinstance(first, str | Path) else 'one without a name'}",
            expected="a pattern that matches the part in every path",
        )
    return [match.groups() or match.group() for match in matches if match is not None]


def assign_folds(parts: Sequence[Hashable], folds: int, seed: int) -> np.ndarray:
    """Assign each image to a fold so that all images of one part are in one fold and folds are nearly equal in size.

    Parts are taken in random order, those with most images first, each into the smallest fold.

    Args:
        parts: The part that each image shows.
        folds: Number of folds; fewer are used where there are fewer parts.
        seed: Seed of the order.

    Returns:
        The fold of each image, int64 (I,).
    """
    counts = Counter(parts)
    names = list(counts)
    shuffled = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    sizes = np.zeros(min(folds, len(names)), np.int64)
    fold_of = {}
    for name in sorted(shuffled, key=lambda name: -counts[name]):
        fold_of[name] = int(sizes.argmin())
        sizes[fold_of[name]] += counts[name]
    return np.array([fold_of[name] for name in parts])


# ---- sampling of patches ----


@dataclass(frozen=True)
class PatchSample:
    """Patches sampled from normal images.

    Attributes:
        vectors_NF: float32 patch vectors.
        positions_NP: Their positions.
        image_N: Number of the image that each comes from.
        random_N: bool, True for those sampled at random; the others were chosen because they are rare in their image.
        images: Number of images (I).
    """

    vectors_NF: np.ndarray
    positions_NP: np.ndarray
    image_N: np.ndarray
    random_N: np.ndarray
    images: int

    def subset(self, chosen_N: np.ndarray) -> PatchSample:
        """The patches at these indices, or where a boolean mask is True."""
        return PatchSample(
            self.vectors_NF[chosen_N], self.positions_NP[chosen_N], self.image_N[chosen_N], self.random_N[chosen_N],
            self.images,
        )  # fmt: skip

    def fit_model(self, config: AnomalyModelConfig) -> AnomalyModel:
        """Fit an anomaly model to these patches."""
        return AnomalyModel.fit(self.vectors_NF, self.positions_NP, config, self.random_N, self.image_N)


def sample_patches(images: ReadableImages, extractor: PatchExtractor, config: AnomalyModelConfig) -> PatchSample:
    """Sample about ``config.patches`` patches, the same number from each image.

    A share ``RANDOM_SHARE`` is sampled at random, the rest because they are rare in their image: patches of edges and
    corners are few, random sampling alone would miss them, and an image that shows them again must not look anomalous.
    Memory holds no more than the sample and one tile.
    """
    rng = np.random.default_rng(config.seed)
    quota = max(2, config.patches // max(1, len(images)))
    scale_F: np.ndarray | None = None
    vectors, positions, owners, random, count = [], [], [], [], 0
    with progress.progress("sampling patches of good images", len(images)) as advance:
        for number, image in images:
            grid = extractor.grid_size((image.height, image.width))
            for tile in extractor(image):
                size = tile.vectors_hwF.shape[:2]
                tile_NF = tile.vectors_hwF.reshape(-1, extractor.width)
                if scale_F is None:  # for the distances that rarity is measured by; any tile's deviations will do
                    scale_F = 1 / (tile_NF.std(axis=0) + 1e-6 + 0.1 * tile_NF.std(axis=0).mean())
                share = min(len(tile_NF), max(2, round(quota * len(tile_NF) / (grid[0] * grid[1]))))
                position_NP = patch_positions(tile.top, tile.left, size, grid, extractor.stride).reshape(
                    len(tile_NF), -1
                )
                for rows, is_random in _choose_patches(tile_NF, scale_F, share, rng):
                    vectors.append(tile_NF[rows])
                    positions.append(position_NP[rows])
                    owners.append(np.full(len(rows), number))
                    random.append(np.full(len(rows), is_random))
            count += 1
            advance(1)
    if images.failures:
        first = next(iter(images.failures.values()))
        progress.say(f"{len(images.failures)} unreadable images were skipped, the first: {first}")
    return PatchSample(
        np.concatenate(vectors), np.concatenate(positions), np.concatenate(owners), np.concatenate(random), count
    )


def _choose_patches(
    tile_NF: np.ndarray, scale_F: np.ndarray, count: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, bool]]:
    """Choose patches of one tile; (indices, whether at random) of the random and of the rare ones."""
    random = rng.permutation(len(tile_NF))[: max(1, round(RANDOM_SHARE * count))]
    rest = np.setdiff1d(np.arange(len(tile_NF)), random)
    seed = int(rng.integers(2**31))
    rare = rest[greedy_coreset(tile_NF[rest] * scale_F, count - len(random), seed=seed)]
    return [(random, True), (rare, False)]
