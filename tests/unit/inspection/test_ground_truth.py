"""Listing of test images without their masks; the metrics are tested through tests/unit/actions/test_inspect.py."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.support.inspected_parts import draw_part, write_images
from unalike.inspection.ground_truth import GroundTruth, list_test_images


def test_masks_beside_the_images_are_not_inspected(tmp_path):
    write_images(tmp_path / "set" / "bad", [draw_part(1)], "{:02d}.jpg")
    write_images(tmp_path / "set" / "bad", [draw_part(1)[..., 0]], "{:02d}.png")
    paths = list_test_images([tmp_path / "set"], GroundTruth("good", tmp_path / "set"))
    assert [path[-6:] for path in paths] == ["00.jpg"]


@pytest.mark.parametrize("name", ["bad/07_mask.png", "bad/07.png", "07_mask.tif", "bad/07.jpg"])
def test_masks_of_other_formats_are_found(tmp_path, name):
    write_images(tmp_path / "set" / "bad", [draw_part(1)], "07.jpg")
    (tmp_path / "masks" / name).parent.mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "masks" / name)
    truth = GroundTruth("good", tmp_path / "masks")
    assert truth.mask_of(str(tmp_path / "set" / "bad" / "07.jpg")) == tmp_path / "masks" / name
