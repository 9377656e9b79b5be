"""Matching an image with the approved assets: similarity of vectors, and templates for localization.

Shape letters: A assets, D width of a vector, H, W of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.numerics.normalization import l2_normalize
from unalike.recognition.gallery import Gallery
from unalike.verification.asset import Asset
from unalike.verification.asset_template import AssetTemplate
from unalike.verification.localization import match_keypoints
from unalike.verification.searched_image import SearchedImage

# Assets whose keypoints are matched with an image: the most similar ones, at most so many; and the least number of matches
# that agree for an asset to be a candidate by them, and the most candidates.
MAX_MATCHED, MIN_VOTES, MAX_VOTED = 32, 7, 4
# The same for assets that are compared where none of the others is in the image: another drawing reaches so many matches too.
MIN_WEAK_VOTES, MAX_WEAK = 4, 6


class AssetMatcher:
    """Assets, their vectors and the network that embeds images; any number of threads may call it.

    Args:
        assets: The assets.
        gallery: Their vectors; the labels are asset names.
        engine: The network that made the vectors.
        view: The evaluation view of its images.
    """

    def __init__(self, assets: Sequence[Asset], gallery: Gallery, engine: Engine, view: View) -> None:
        self.assets, self.gallery, self.engine, self.view = tuple(assets), gallery, engine, view
        self._templates: dict[int, AssetTemplate] = {}

    def template(self, number: int) -> AssetTemplate:
        """Return the template of an asset, computed when it is first needed."""
        if number not in self._templates:
            self._templates[number] = AssetTemplate(self.assets[number])
        return self._templates[number]

    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Embed images (uint8 (H, W, 3), any sizes); float32 (N, D)."""
        return self.engine(np.stack([self.view(image) for image in images]))

    def similarities(self, vector_D: np.ndarray) -> np.ndarray:
        """Return the cosine similarity to the nearest vector of each asset, (A,)."""
        snapshot = self.gallery.snapshot
        cosine_N = self.gallery.vectors_ND @ l2_normalize(vector_D[None])[0]
        best = np.full(len(snapshot.classes), -1.0)
        np.maximum.at(best, snapshot.codes_N, cosine_N)
        code_of = {name: code for code, name in enumerate(snapshot.classes)}
        return best[[code_of[asset.name] for asset in self.assets]]

    def keypoint_candidates(self, search_image: SearchedImage, similarity_A: np.ndarray) -> tuple[list[int], list[int]]:
        """Return the numbers of the assets whose keypoints the image shows, the best first, and of those with few matches.

        The network sees all of an image: it does not find an asset that a photograph surrounds, and keypoints do, mirrored
        or not.
        """
        nearest = np.argsort(-similarity_A, kind="stable")[:MAX_MATCHED].tolist()
        votes: dict[int, int] = {}
        for number in nearest:
            template = self.template(number)
            votes[number] = max(match_keypoints(template, search_image, mirrored)[1] for mirrored in (False, True))
        ordered = sorted(nearest, key=lambda number: -votes[number])
        strong = [number for number in ordered if votes[number] >= MIN_VOTES][:MAX_VOTED]
        weak = [number for number in ordered if votes[number] >= MIN_WEAK_VOTES and number not in strong]
        return strong, weak[:MAX_WEAK]

    def asset_similarities(self) -> np.ndarray:
        """Return the cosine similarities of the assets' first vectors, (A, A)."""
        vectors_ND, snapshot = l2_normalize(self.gallery.vectors_ND), self.gallery.snapshot
        first_A = [int(np.flatnonzero(snapshot.codes_N == code)[0]) for code in range(len(snapshot.classes))]
        return np.asarray(vectors_ND[first_A] @ vectors_ND[first_A].T)
