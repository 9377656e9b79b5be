"""Answers: what makes two aligned images different or incomplete, on matrices and on drawn pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from tests.support.drawings import as_jpeg, shapes, similarity_matrix
from unalike.comparison.answer import PoseLimits, find_pose_reasons, measure_rotation
from unalike.comparison.comparer import Comparer
from unalike.comparison.registration import Registration, scale_matrix

pytest.importorskip("cv2")
WIDTH, HEIGHT = 360, 270
Change = Callable[[Image.Image], Image.Image]


@pytest.mark.parametrize(
    ("matrix", "image_shape", "expected"),
    [
        (similarity_matrix(14, 1, (0, 0), 400, 300), (300, 400), []),
        (similarity_matrix(20, 1, (0, 0), 400, 300), (300, 400), ["rotated by 20 degrees"]),
        (similarity_matrix(0, 1, (60, 0), 400, 300), (300, 400), []),
        (similarity_matrix(0, 1, (90, 0), 400, 300), (300, 400), ["shifted by 18%"]),
        (similarity_matrix(0, 2, (0, 0), 400, 300), (300, 400), ["2.00 times smaller"]),
        (similarity_matrix(0, 0.6, (0, 0), 400, 300), (300, 400), ["1.67 times larger"]),
        (scale_matrix(4), (75, 100), []),  # the same view at another resolution
        (scale_matrix(0.25), (1200, 1600), []),
        (np.array([[1, 0, 300], [0, 1, 200], [0, 0, 1.0]]), (100, 100), []),  # a crop that keeps a corner
        (np.diag([2.0, 1, 1]), (300, 400), ["2.00 times smaller"]),  # stretched
        (np.diag([1 / 1.7, 1, 1]), (300, 680), ["stretched 1.70 times"]),
    ],
)
def test_limits_of_the_pose(matrix: np.ndarray, image_shape: tuple[int, int], expected: list[str]) -> None:
    reasons = find_pose_reasons(Registration(matrix, 1.0, 1.0, "features"), (300, 400), image_shape, PoseLimits())
    assert len(reasons) == len(expected) and all(want in got for want, got in zip(expected, reasons, strict=True))


def test_rotation_of_a_mirrored_matrix() -> None:
    assert measure_rotation(np.diag([-1.0, 1.0])) == pytest.approx(0)
    assert measure_rotation(np.array([[0.0, -2], [2, 0]])) == pytest.approx(90)


def moved(image: Image.Image, x: float, y: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, (1, 0, x, 0, 1, y), fillcolor="white")


def extended(image: Image.Image, right: int, below: int, content: str | None) -> Image.Image:
    canvas = Image.new("RGB", (image.width + right, image.height + below), "white")
    canvas.paste(image)
    if content:
        area = (image.width + 8 if right else 8, image.height + 8 if below else 8, canvas.width - 8, canvas.height - 8)
        ImageDraw.Draw(canvas).ellipse(area, fill=content)
    return canvas


HARMLESS: dict[str, Change] = {
    "shifted": lambda image: moved(image, 4, -3),
    "rotated": lambda image: image.rotate(4, Image.Resampling.BICUBIC, fillcolor="white"),
    "trimmed": lambda image: image.crop((3, 2, image.width - 2, image.height - 3)),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "compressed": lambda image: Image.fromarray(as_jpeg(np.asarray(image), 30)),
    "smaller": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
}
DIFFERENT: dict[str, Change] = {
    "cut off below": lambda image: image.crop((0, 0, image.width, round(image.height * 0.6))),
    "cut off at the right": lambda image: image.crop((0, 0, round(image.width * 0.9), image.height)),
    "turned by 180": lambda image: image.rotate(180),
    "turned by 90": lambda image: image.rotate(90, expand=True),
    "turned by 25": lambda image: image.rotate(25, Image.Resampling.BICUBIC, fillcolor="white"),
    "extended below": lambda image: extended(image, 0, 80, "red"),
    "extended beside": lambda image: extended(image, 150, 0, "blue"),
    "scrolled": lambda image: moved(image, 0, 40),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_harmless_changes_are_the_same(change: Change) -> None:
    image = Image.fromarray(shapes(11, HEIGHT, WIDTH))
    result = Comparer().compare(image, change(image))
    assert result.answer == "same" and not result.reasons, result.reasons


@pytest.mark.parametrize("change", DIFFERENT.values(), ids=DIFFERENT)
def test_what_was_cut_added_or_turned_is_different(change: Change) -> None:
    image = Image.fromarray(shapes(11, HEIGHT, WIDTH))
    for one, other in ((image, change(image)), (change(image), image)):
        result = Comparer().compare(one, other)
        assert result.answer == "different" and result.reasons and not result.same


def scene(*things: tuple[int, int, str]) -> np.ndarray:
    """Disks on a plain, noisy ground."""
    noise = np.random.default_rng(len(things)).normal(150, 3, (HEIGHT, WIDTH, 3)).clip(0, 255).astype(np.uint8)
    canvas = Image.fromarray(noise)
    for x, y, color in things:
        ImageDraw.Draw(canvas).ellipse((x - 30, y - 30, x + 30, y + 30), fill=color)
    return np.asarray(canvas)


@pytest.mark.parametrize("light", [1.0, 0.6])
def test_presence_on_a_plain_ground(light: float) -> None:
    none, one, two = scene(), scene((90, 90, "darkred")), scene((90, 90, "darkred"), (260, 170, "navy"))
    far = scene((290, 210, "darkred"))
    large = scene().copy()
    large[20:250, 30:330] = (40, 45, 50)
    for reference, image in ((none, one), (one, two), (one, far), (none, two), (none, large)):
        for a, b in ((reference, image), (image, reference)):
            result = Comparer().compare(a, (b * light).astype(np.uint8))
            assert result.answer == "different", (result.registration.method, result.reasons)
    for a, b in ((none, scene()), (one, scene((90, 90, "darkred")))):
        assert Comparer().compare(a, (b * light).astype(np.uint8)).same


def test_ignored_regions() -> None:
    reference, image = shapes(12, HEIGHT, WIDTH), shapes(12, HEIGHT, WIDTH)
    image[20:40, 30:90] = (255, 0, 255)
    assert not Comparer().compare(reference, image).same
    result = Comparer(ignore_boxes=[(24, 14, 96, 46)]).compare(reference, image)
    assert result.same and result.coverage.least == 1
    image[200:220, 100:130] = (255, 0, 255)
    (region,) = Comparer(ignore_boxes=[(24, 14, 96, 46)]).compare(reference, image).regions
    assert np.abs(np.subtract(region.extent, (100, 200, 130, 220))).max() <= 4
    # The boxes are those of the reference, wherever the image shows them.
    shifted = np.asarray(moved(Image.fromarray(image), 5, 3))
    assert len(Comparer(ignore_boxes=[(24, 14, 96, 46)]).compare(reference, shifted).regions) == 1


def darker_at_the_right(image: Image.Image) -> Image.Image:
    light = np.clip(1.6 - 1.5 * np.arange(image.width) / image.width, 0.12, 1)[None, :, None]
    return Image.fromarray((np.asarray(image) * light).astype(np.uint8))


HIDDEN: dict[str, tuple[Change, str]] = {
    "dark": (lambda image: ImageEnhance.Brightness(image).enhance(0.3), "too dark or faint"),
    "a deep shadow": (darker_at_the_right, "too dark or faint"),
    "noise": (lambda image: noisy(image, 50), "so noisy"),
}


def noisy(image: Image.Image, deviation: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, deviation, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(("change", "reason"), HIDDEN.values(), ids=HIDDEN)
def test_what_hides_differences_is_not_the_same(change: Change, reason: str) -> None:
    parts = Image.fromarray(scene((90, 90, "darkred"), (260, 170, "navy"), (200, 60, "white")))
    result = Comparer().compare(parts, change(parts))
    assert result.answer == "incomplete" and reason in result.reasons[1], result.reasons
    fewer = change(Image.fromarray(scene((90, 90, "darkred"), (200, 60, "white"))))
    assert not Comparer().compare(parts, fewer).same
