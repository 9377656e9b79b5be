"""The augmented view: uint8 images of the view's size that depend on seed and index alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from unalike.data.view import View
from unalike.errors import UnreadableImage
from unalike.training.automatic.augmented_view import AugmentedView


def test_a_view_depends_on_seed_and_index_alone(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(path)
    view = View(48, 32)
    augmented = AugmentedView(paths, view, 5)
    first = [augmented(path) for path in paths]
    assert all(image.shape == (48, 32, 3) and image.dtype == np.uint8 for image in first)
    again = AugmentedView(paths, view, 5)
    assert all(np.array_equal(again(path), image) for path, image in zip(reversed(paths), reversed(first), strict=True))
    assert not np.array_equal(AugmentedView(paths, view, 6)(paths[0]), first[0])
    assert not np.array_equal(AugmentedView(paths[::-1], view, 5)(paths[0]), first[0])
    assert np.abs(first[0].astype(float).mean() - 127) < 80


def test_an_unreadable_file_is_an_error(tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    with pytest.raises(UnreadableImage):
        AugmentedView([path], View(16, 16), 0)(path)
