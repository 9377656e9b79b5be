"""The images that an inspector learns from: listed, opened one by one, and a sample of their patches.

Shape letters: N patches, F their width, P what is known of where they lie (``places``), h x w a grid of patches.
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
from unalike.data.decode import MAX_PIXELS, ImageInput, open_image, upright_rgb
from unalike.errors import DataError, SpecError, UnreadableImage
from unalike.inspection.anomaly_model import Judge, Recipe
from unalike.inspection.coreset import greedy_coreset
from unalike.inspection.patch_features import Patcher

# Unreadable files that are passed over, as a share of all; yet always one of several.
MAX_UNREADABLE = 0.05
# Of the patches that are drawn from an image, the share that is drawn by chance.
COMMON = 0.3


def listed(source: str | Path | Iterable[ImageInput]) -> list[ImageInput]:
    """The images of a folder (any depth), an archive, a manifest, or those given one by one."""
    if isinstance(source, str | Path):
        from unalike.data.imageset import load_images

        return [str(path) for path in load_images(source, labelled=False).paths]
    if isinstance(source, np.ndarray) and source.ndim in (2, 3):
        raise DataError(f"one array of shape {source.shape}", expected="a list of images, or a folder")
    return list(source)


def opened_picture(picture: ImageInput, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Upright RGB. Raises UnreadableImage for a file, DataError for an array of another kind."""
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or 0 in picture.shape:
            raise DataError(f"an array {picture.dtype} of shape {picture.shape}", expected="uint8 (H, W) or (H, W, 3)")
        picture = Image.fromarray(np.ascontiguousarray(picture))
    if isinstance(picture, Image.Image):
        return upright_rgb(picture)
    return open_image(picture, max_pixels=max_pixels)


class Pictures:
    """Iterating gives (number, RGB image) of those that can be read, twice in the same order.

    What cannot be read stands in ``failures`` after the first pass; beyond MAX_UNREADABLE it is a DataError.
    """

    def __init__(self, pictures: Sequence[ImageInput], max_pixels: int = MAX_PIXELS) -> None:
        self._pictures, self._max_pixels = list(pictures), max_pixels
        self.failures: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._pictures)

    def index_of(self, number: int) -> int:
        """Which of the images given is number ``number`` of those that can be read; known once it was reached."""
        return [index for index in range(len(self)) if index not in self.failures][number]

    def sizes(self) -> list[tuple[int, int]]:
        """(H, W) of each image that has a readable head, without decoding it."""
        found = []
        for picture in self._pictures:
            if isinstance(picture, np.ndarray):
                found.append((picture.shape[0], picture.shape[1]))
            elif isinstance(picture, Image.Image):
                found.append((picture.height, picture.width))
            else:
                try:
                    with Image.open(picture) as image:
                        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
                        found.append((image.width, image.height) if turned else (image.height, image.width))
                except Exception:  # noqa: BLE001, S112  Pillow's readers raise nearly anything; the first pass names the file
                    continue
        if not found:
            raise DataError(f"none of {len(self)} images can be read", expected="images of good parts")
        return found

    def __iter__(self) -> Iterator[tuple[int, Image.Image]]:
        number = 0
        allowed = max(1, int(MAX_UNREADABLE * len(self)))
        for index, picture in enumerate(self._pictures):
            if index in self.failures:
                continue
            try:
                opened = opened_picture(picture, self._max_pixels)
            except UnreadableImage as error:
                self.failures[index] = str(error)
                if len(self.failures) > allowed or len(self.failures) == len(self):
                    raise DataError(
                        f"{len(self.failures)} or more of {len(self)} images cannot be read (the first: "
                        f"{next(iter(self.failures.values()))})",
                        expected=f"at most {allowed}", remedy="repair or remove them",
                    ) from error  # fmt: skip
                continue
            yield number, opened
            number += 1


def parts_shown(pictures: Sequence[ImageInput], parts: Sequence[Hashable] | str | None) -> list[Hashable]:
    """Which part each image shows: as told, or each its own, or by a regular expression, whose groups (all of it, where it
    has none) match the part in an image's path.

    Raises SpecError for an expression that is none, DataError for images that it does not match, and for a single part.
    """
    if isinstance(parts, str):
        shown = _named(pictures, parts)
    else:
        shown = list(range(len(pictures)) if parts is None else parts)
    if len(shown) != len(pictures):
        raise DataError(f"the parts of {len(shown)} images", expected=f"one for each of {len(pictures)}")
    if len(set(shown)) < 2:
        raise DataError("all good images show one part", expected="at least two, so that one is judged by the others")
    return shown


def _named(pictures: Sequence[ImageInput], pattern: str) -> list[Hashable]:
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise SpecError(
            f"part {pattern!r}: {error}", expected="a regular expression, such as 'part_([0-9]+)'"
        ) from error
    matches = [found.search(str(p)) if isinstance(p, str | Path) else None for p in pictures]
    if None in matches:
        first = pictures[matches.index(None)]
        raise DataError(
            f"{matches.count(None)} of {len(pictures)} images do not match {pattern!r}, such as "
            f"{first if isinstance(first, str | Path) else 'one without a name'}",
            expected="a pattern that tells the part of every image",
        )
    return [match.groups() or match.group() for match in matches if match is not None]


def folded(parts: Sequence[Hashable], folds: int, seed: int) -> np.ndarray:
    """int64, a fold an image, near equal in size: the images of one part are in one fold.

    Parts are dealt in drawn order, those with most images first, each to the smallest fold.
    """
    counts = Counter(parts)
    names = list(counts)
    drawn = [names[place] for place in np.random.default_rng(seed).permutation(len(names))]
    sizes = np.zeros(min(folds, len(names)), np.int64)
    fold_of = {}
    for name in sorted(drawn, key=lambda name: -counts[name]):
        fold_of[name] = int(sizes.argmin())
        sizes[fold_of[name]] += counts[name]
    return np.array([fold_of[name] for name in parts])


@dataclass(frozen=True)
class Sampled:
    """Patches drawn from good images: where each stood (``places``) and of which image it is.

    Those of ``common_N`` were drawn by chance and say what is usual; the others are the rarest of their image.
    """

    vectors_NF: np.ndarray
    places_NP: np.ndarray
    image_N: np.ndarray
    common_N: np.ndarray
    images: int

    def of(self, chosen_N: np.ndarray) -> Sampled:
        """Some of them."""
        return Sampled(
            self.vectors_NF[chosen_N], self.places_NP[chosen_N], self.image_N[chosen_N], self.common_N[chosen_N], self.images
        )  # fmt: skip

    def judge(self, recipe: Recipe) -> Judge:
        """What is learnt from them."""
        return Judge.learn(self.vectors_NF, self.places_NP, recipe, self.common_N, self.image_N)


def sample(pictures: Pictures, patcher: Patcher, recipe: Recipe) -> Sampled:
    """About ``recipe.patches`` patches, as many from each image; a share COMMON of them by chance, the rest by being rare.

    Patches of edges and corners are few, and an image that shows them again must not look strange: a draw by chance alone
    would miss them. Memory holds no more than what is drawn and one tile.
    """
    draws = np.random.default_rng(recipe.seed)
    quota = max(2, recipe.patches // max(1, len(pictures)))
    scale_F: np.ndarray | None = None
    vectors, positions, owners, common, images = [], [], [], [], 0
    with progress.progress("looking at good images", len(pictures)) as advance:
        for number, picture in pictures:
            grid = patcher.grid((picture.height, picture.width))
            for tile in patcher(picture):
                shape = tile.vectors_hwF.shape[:2]
                tile_NF = tile.vectors_hwF.reshape(-1, patcher.width)
                if scale_F is None:  # by which rarity is judged: that of the first tile is as good as any
                    scale_F = 1 / (tile_NF.std(axis=0) + 1e-6 + 0.1 * tile_NF.std(axis=0).mean())
                share = min(len(tile_NF), max(2, round(quota * len(tile_NF) / (grid[0] * grid[1]))))
                usual = draws.permutation(len(tile_NF))[: max(1, round(COMMON * share))]
                rest = np.setdiff1d(np.arange(len(tile_NF)), usual)
                seed = int(draws.integers(2**31))
                rare = rest[greedy_coreset(tile_NF[rest] * scale_F, share - len(usual), seed=seed)]
                for chosen, is_common in ((usual, True), (rare, False)):
                    vectors.append(tile_NF[chosen])
                    positions.append(
                        places(tile.top, tile.left, shape, grid, patcher.stride).reshape(len(tile_NF), -1)[chosen]
                    )
                    owners.append(np.full(len(chosen), number))
                    common.append(np.full(len(chosen), is_common))
            images += 1
            advance(1)
    if pictures.failures:
        first = next(iter(pictures.failures.values()))
        progress.say(f"{len(pictures.failures)} unreadable images were passed over, the first: {first}")
    return Sampled(
        np.concatenate(vectors), np.concatenate(positions), np.concatenate(owners), np.concatenate(common), images
    )


def places(top: int, left: int, size: tuple[int, int], grid: tuple[int, int], stride: int) -> np.ndarray:
    """float32 (h, w, 6): where the patches of a tile that begins at (``top``, ``left``) lie on the ``grid`` of the picture.

    Row and column of their middles, 0..1 of the grid's longer side; then how many pixels they are from its upper, lower,
    left and right border, ``stride`` pixels a patch.
    """
    rows_h1, columns_1w = np.arange(top, top + size[0])[:, None] + 0.5, np.arange(left, left + size[1])[None] + 0.5
    far = (rows_h1, grid[0] - rows_h1, columns_1w, grid[1] - columns_1w)
    known = (rows_h1 / max(grid), columns_1w / max(grid), *(cells * stride for cells in far))
    return np.stack(np.broadcast_arrays(*known), axis=-1).astype(np.float32)
