"""Listing of test images without their masks; the metrics are tested through tests/unit/actions/test_inspect.py."""

from __future__ import annotations

from tests.support.inspected_parts import draw_part, write_images
from unalike.inspection.ground_truth import GroundTruth, list_test_images


def test_masks_beside_the_images_are_not_inspected(tmp_path):
    write_images(tmp_path / "set" / "bad", [draw_part(1)], "{:02d}.jpg")
    write_images(tmp_path / "set" / "bad", [draw_part(1)[..., 0]], "{:02d}.png")
    paths = list_test_images([tmp_path / "set"], GroundTruth("good", tmp_path / "set"))
    assert [path[-6:] for path in paths] == ["00.jpg"]
