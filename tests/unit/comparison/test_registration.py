"""Registration finds motions that were applied, and refuses images that do not fit each other."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.drawings import board, shapes, similarity_matrix
from unalike.comparison import registration
from unalike.comparison.registration import (
    IN_PLACE,
    MIN_QUALITY,
    Registration,
    band_pass,
    correlate,
    refine_perspective,
    register,
    scale_matrix,
)
from unalike.errors import MissingExtra, NotComparable, SpecError

cv2 = pytest.importorskip("cv2")


def gray_shapes(seed: int = 0, height: int = 240, width: int = 320) -> np.ndarray:
    return cv2.cvtColor(shapes(seed, height, width), cv2.COLOR_RGB2GRAY)


def warp(reference: np.ndarray, matrix: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """The image whose pixel p shows the reference at ``matrix @ p``."""
    width, height = size or reference.shape[::-1]
    return cv2.warpPerspective(reference, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                               borderMode=cv2.BORDER_REPLICATE)  # fmt: skip


def alignment_error(found: np.ndarray, expected: np.ndarray, width: int, height: int) -> float:
    """The largest distance in pixels between where two matrices put a grid of points."""
    x, y = np.meshgrid(np.linspace(0.2, 0.8, 5) * width, np.linspace(0.2, 0.8, 5) * height)
    points = np.stack([x.ravel(), y.ravel(), np.ones(25)])
    places = [(m @ points)[:2] / (m @ points)[2] for m in (found, expected)]
    return float(np.linalg.norm(places[0] - places[1], axis=0).max())


@pytest.mark.parametrize(
    ("matrix", "most"),
    [
        (similarity_matrix(0, 1, (0.4, -0.7), 320, 240), 0.3),
        (similarity_matrix(1.5, 1, (5, -3), 320, 240), 0.5),
        (similarity_matrix(0, 1, (43, 21), 320, 240), 0.5),
        (similarity_matrix(90, 1, (0, 0), 320, 240), 1.0),
        (similarity_matrix(37, 0.8, (6, 4), 320, 240), 1.0),
        (similarity_matrix(180, 1, (0, 0), 320, 240) + np.array([[0, 0, 0], [0, 0, 0], [2e-4, -1e-4, 0]]), 1.5),
    ],
    ids=["sub-pixel", "a little", "far", "quarter", "turned and scaled", "perspective"],
)
def test_a_motion_is_found(matrix: np.ndarray, most: float) -> None:
    reference = gray_shapes()
    image = np.clip(warp(reference, matrix) * np.linspace(0.6, 1.0, 320)[None] + 20, 0, 255).astype(np.uint8)
    found = register(reference, image)
    assert alignment_error(found.matrix_33, matrix, 320, 240) < most
    assert found.quality > 0.7 and 0.25 <= found.overlap <= 1


def test_another_size_is_found() -> None:
    reference = gray_shapes(3, 360, 480)
    for width, height in ((240, 180), (960, 720)):
        image = cv2.resize(reference, (width, height), interpolation=cv2.INTER_AREA)
        found = register(reference, image)
        assert alignment_error(found.matrix_33, scale_matrix(480 / width, 360 / height), width, height) < 0.8
        assert found.scale == pytest.approx(480 / width, rel=0.01) and found.overlap > 0.98


def test_a_part_of_the_reference_is_found() -> None:
    reference = gray_shapes(4, 360, 480)
    found = register(reference, reference[100:300, 150:450])
    shift = np.array([[1, 0, 150], [0, 1, 100], [0, 0, 1.0]])
    assert alignment_error(found.matrix_33, shift, 300, 200) < 0.8 and found.overlap > 0.97


def test_images_of_different_things_are_refused() -> None:
    for one, other in ((gray_shapes(0), gray_shapes(1)), (board(0), board(7)), (gray_shapes(2), board(2, 240, 320))):
        with pytest.raises(NotComparable, match="cannot be aligned"):
            register(one, other)


def test_the_least_quality_separates_same_from_other() -> None:
    same, other = [], []
    for seed in range(4):
        image = warp(board(seed), similarity_matrix(0.5, 1, (2, 1), 320, 320))
        same.append(register(board(seed), image, min_quality=-1).quality)
        other.append(register(board(seed), board(seed + 20), min_quality=-1).quality)
    assert min(same) > MIN_QUALITY + 0.2 and max(other) < MIN_QUALITY - 0.05


def test_a_mirrored_copy_is_refused_unless_accepted() -> None:
    reference = gray_shapes(5)
    image = np.ascontiguousarray(reference[:, ::-1])
    with pytest.raises(NotComparable, match="mirrored copy"):
        register(reference, image)
    found = register(reference, image, mirror=True)
    expected = np.array([[-1.0, 0, 319], [0, 1, 0], [0, 0, 1]])
    assert alignment_error(found.matrix_33, expected, 320, 240) < 0.5 and found.to_dict()["mirrored"]


def test_blank_images_and_few_things_on_a_plain_ground_are_left_as_they_lie() -> None:
    blank = np.full((240, 320), 200, np.uint8)
    spot, other_spot = blank.copy(), blank.copy()
    cv2.circle(spot, (60, 60), 25, 90, -1)
    cv2.rectangle(other_spot, (200, 120), (300, 160), 30, -1)
    for one, other in (
        (blank, gray_shapes()),
        (gray_shapes(), blank),
        (blank, board(2, 240, 320)),
        (spot, other_spot),
    ):
        found = register(one, other)
        assert found.method == IN_PLACE and np.array_equal(found.matrix_33, np.eye(3)) and np.isnan(found.quality)


def test_tiny_images_are_refused() -> None:
    with pytest.raises(NotComparable, match="4 x 5 pixels"):
        register(gray_shapes(), gray_shapes()[:5, :4])
    with pytest.raises(SpecError, match="rigid"):
        register(gray_shapes(), gray_shapes(), align="rigit")


def test_quality_does_not_depend_on_lighting() -> None:
    reference = gray_shapes(6)
    lit = np.clip(reference * np.linspace(0.4, 1.1, 320)[None] + 10, 0, 255).astype(np.uint8)
    assert correlate(band_pass(reference), band_pass(lit), np.eye(3))[0] > 0.95


def test_without_opencv_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(MissingExtra, match=r"install .*\[vision\]'"):
        registration.import_opencv()


def test_a_perspective_is_found_from_a_rigid_motion() -> None:
    reference = gray_shapes(4, 300, 400)
    corners = np.array([[0, 0], [399, 0], [399, 299], [0, 299]], np.float32)
    tilted = np.array([[10, 7], [392, 3], [399, 295], [2, 299]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, tilted)
    image = warp(reference, matrix)
    rigid = Registration(np.eye(3), 0.5, 1.0, "ecc")
    result = refine_perspective(reference, image, rigid)
    assert result.quality > 0.98 and alignment_error(result.matrix_33, matrix, 400, 300) < 1
    assert refine_perspective(reference, reference, Registration(np.eye(3), 1.0, 1.0, "ecc")).quality == 1.0
