"""Motions that were applied are found again; what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.drawings import board, shapes
from unalike.comparison import registration
from unalike.comparison.deformation import fit_deformation, map_coordinates
from unalike.comparison.registration import MIN_QUALITY, band_pass, correlate, register, scale_matrix
from unalike.errors import MissingExtra, NotComparable, SpecError

cv2 = pytest.importorskip("cv2")


def grey(seed: int = 0, height: int = 240, width: int = 320) -> np.ndarray:
    return cv2.cvtColor(shapes(seed, height, width), cv2.COLOR_RGB2GRAY)


def moved(reference: np.ndarray, matrix: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """The image whose pixel p shows the reference's pixel ``matrix @ p``."""
    width, height = size or reference.shape[::-1]
    return cv2.warpPerspective(reference, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                               borderMode=cv2.BORDER_REPLICATE)  # fmt: skip


def error_of(found: np.ndarray, told: np.ndarray, width: int, height: int) -> float:
    """The largest distance in pixels between where two matrices put a grid of points."""
    x, y = np.meshgrid(np.linspace(0.2, 0.8, 5) * width, np.linspace(0.2, 0.8, 5) * height)
    points = np.stack([x.ravel(), y.ravel(), np.ones(25)])
    places = [(m @ points)[:2] / (m @ points)[2] for m in (found, told)]
    return float(np.linalg.norm(places[0] - places[1], axis=0).max())


def turned(degrees: float, scale: float, shift: tuple[float, float], width: int, height: int) -> np.ndarray:
    a = np.deg2rad(degrees)
    inner = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    centre = np.array([width, height]) / 2
    return np.vstack([np.column_stack([inner, centre - inner @ centre + shift]), [0, 0, 1]])


@pytest.mark.parametrize(
    ("matrix", "most"),
    [
        (turned(0, 1, (0.4, -0.7), 320, 240), 0.3),
        (turned(1.5, 1, (5, -3), 320, 240), 0.5),
        (turned(0, 1, (43, 21), 320, 240), 0.5),
        (turned(90, 1, (0, 0), 320, 240), 1.0),
        (turned(37, 0.8, (6, 4), 320, 240), 1.0),
        (turned(180, 1, (0, 0), 320, 240) + np.array([[0, 0, 0], [0, 0, 0], [2e-4, -1e-4, 0]]), 1.5),
    ],
    ids=["sub-pixel", "a little", "far", "quarter", "turned and scaled", "perspective"],
)
def test_a_motion_is_found(matrix: np.ndarray, most: float) -> None:
    reference = grey()
    image = np.clip(moved(reference, matrix) * np.linspace(0.6, 1.0, 320)[None] + 20, 0, 255).astype(np.uint8)
    found = register(reference, image)
    assert error_of(found.matrix_33, matrix, 320, 240) < most
    assert found.quality > 0.7 and 0.25 <= found.overlap <= 1


def test_another_size_is_found() -> None:
    reference = grey(3, 360, 480)
    for width, height in ((240, 180), (960, 720)):
        image = cv2.resize(reference, (width, height), interpolation=cv2.INTER_AREA)
        found = register(reference, image)
        assert error_of(found.matrix_33, scale_matrix(480 / width, 360 / height), width, height) < 0.8
        assert found.scale == pytest.approx(480 / width, rel=0.01) and found.overlap > 0.98


def test_a_part_of_the_reference_is_found() -> None:
    reference = grey(4, 360, 480)
    found = register(reference, reference[100:300, 150:450])
    shift = np.array([[1, 0, 150], [0, 1, 100], [0, 0, 1.0]])
    assert error_of(found.matrix_33, shift, 300, 200) < 0.8 and found.overlap > 0.97


def test_other_things_are_refused() -> None:
    for one, other in ((grey(0), grey(1)), (board(0), board(7)), (grey(2), board(2, 240, 320))):
        with pytest.raises(NotComparable, match="cannot be aligned"):
            register(one, other)


def test_the_floor_lies_between_same_and_other() -> None:
    same, other = [], []
    for seed in range(4):
        image = moved(board(seed), turned(0.5, 1, (2, 1), 320, 320))
        same.append(register(board(seed), image, min_quality=-1).quality)
        other.append(register(board(seed), board(seed + 20), min_quality=-1).quality)
    assert min(same) > MIN_QUALITY + 0.2 and max(other) < MIN_QUALITY - 0.05


def test_a_mirrored_copy_is_named_and_may_be_admitted() -> None:
    reference = grey(5)
    image = np.ascontiguousarray(reference[:, ::-1])
    with pytest.raises(NotComparable, match="mirrored copy"):
        register(reference, image)
    found = register(reference, image, mirror=True)
    told = np.array([[-1.0, 0, 319], [0, 1, 0], [0, 0, 1]])
    assert error_of(found.matrix_33, told, 320, 240) < 0.5 and found.to_dict()["mirrored"]


def test_blanks_and_specks_are_refused() -> None:
    blank = np.full((240, 320), 200, np.uint8)
    with pytest.raises(NotComparable, match="the reference is blank"):
        register(blank, grey())
    with pytest.raises(NotComparable, match="the image is blank"):
        register(grey(), blank)
    with pytest.raises(NotComparable, match="4 x 5 pixels"):
        register(grey(), grey()[:5, :4])
    with pytest.raises(SpecError, match="rigid"):
        register(grey(), grey(), align="rigit")


def test_a_smooth_bend_is_taken_out() -> None:
    reference = board(1, 480, 480)
    y, x = np.mgrid[0:480, 0:480].astype(np.float32)
    bent_x, bent_y = x + 3 * np.sin(y / 90), y + 2 * np.cos(x / 110)
    image = cv2.remap(reference, bent_x, bent_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    straight = register(reference, image)
    found = fit_deformation(reference, image, straight)
    place = map_coordinates(found.matrix_33, found.flow_GhGw2, (480, 480))
    # Judged where there is an edge across the direction: along an edge nothing can be said.
    steep = np.abs(cv2.Sobel(image, cv2.CV_32F, 1, 0)) > 400
    before = map_coordinates(straight.matrix_33, None, (480, 480))
    errors = [np.abs(p[..., 0] - bent_x)[steep].mean() for p in (before, place)]
    assert errors[1] < 0.7 and errors[0] > 1.3
    assert found.quality >= straight.quality


def test_a_defect_is_not_bent_away() -> None:
    reference = board(2, 480, 480)
    image = reference.copy()
    image[200:230, 100:110] = 255 - image[200:230, 100:110]
    found = fit_deformation(reference, image, register(reference, image))
    assert found.flow_GhGw2 is None or np.abs(found.flow_GhGw2).max() < 1.0


def test_coordinates_of_a_window_are_those_of_the_whole() -> None:
    flow = np.random.default_rng(0).normal(0, 2, (5, 7, 2)).astype(np.float32)
    matrix = turned(10, 1.2, (3, 4), 100, 80) + np.array([[0, 0, 0], [0, 0, 0], [1e-4, 2e-4, 0]])
    whole = map_coordinates(matrix, flow, (80, 100))
    part = map_coordinates(matrix, flow, (80, 100), (20, 10, 60, 50))
    assert np.allclose(whole[10:50, 20:60], part, atol=1e-4)
    # The oracle: one pixel by hand, at the centre of a cell where the flow is that cell's.
    column, row = 3, 2
    x, y = (column + 0.5) * 100 / 7 - 0.5 + flow[row, column, 0], (row + 0.5) * 80 / 5 - 0.5 + flow[row, column, 1]
    u, v, w = matrix @ (x, y, 1)
    near = whole[round((row + 0.5) * 80 / 5 - 0.5), round((column + 0.5) * 100 / 7 - 0.5)]
    assert np.abs(near - (u / w, v / w)).max() < 1.5


def test_lighting_does_not_enter_the_quality() -> None:
    reference = grey(6)
    lit = np.clip(reference * np.linspace(0.4, 1.1, 320)[None] + 10, 0, 255).astype(np.uint8)
    assert correlate(band_pass(reference), band_pass(lit), np.eye(3))[0] > 0.95


def test_without_opencv_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(MissingExtra, match=r"pip install 'unalike\[vision\]'"):
        registration.import_opencv()
