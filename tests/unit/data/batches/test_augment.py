"""Training augmentation beside slow oracles: PIL for geometry, plain numpy for color, blur and erasing."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from unalike.data.batches import augment, counter_rng
from unalike.data.batches.augment import Augmentation, crop_box, erase_box
from unalike.errors import SpecError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
COLOR = {"brightness": 0.5, "contrast": 0.3, "saturation": 0.4, "hue": 0.1}


def photo(height, width, seed=0):
    """Smooth structure plus noise, so that every step has something to change."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 7 + seed), np.cos(y / 5), np.sin((x + y) / 9)], -1) * 70 + 120
    return np.clip(waves + rng.normal(0, 25, waves.shape), 0, 255).astype(np.uint8)


def batch(count, height=24, width=20):
    return torch.from_numpy(np.stack([photo(height, width, i) for i in range(count)]))


def finish_row(augmentation, epoch, index):
    key = counter_rng.keys((augmentation.seed, augment._BATCH, epoch), np.array([index]), np.array([0]))
    return counter_rng.uniforms(key, augment._BATCH_COLUMNS)[0]


# ---- oracles


def slow_color(image, row):
    """The four steps one after another on numbers in [0, 1], pixel by pixel of the formula; one clamp at the end."""
    x = image.astype(np.float64) / 255
    factor = [max(0, 1 - a) + u * (1 + a - max(0, 1 - a)) for a, u in zip((0.5, 0.3, 0.4), row, strict=False)]
    gray_of = lambda v: 0.299 * v[..., 0] + 0.587 * v[..., 1] + 0.114 * v[..., 2]
    x = factor[0] * x
    x = factor[1] * x + (1 - factor[1]) * gray_of(x).mean()
    x = factor[2] * x + (1 - factor[2]) * gray_of(x)[..., None]
    to_yiq = np.array(
        [[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]], np.float64
    )
    yiq = x @ to_yiq.T
    angle = 2 * math.pi * 0.1 * (2 * row[3] - 1)
    chroma = (yiq[..., 1] + 1j * yiq[..., 2]) * np.exp(1j * angle)
    x = np.stack([yiq[..., 0], chroma.real, chroma.imag], -1) @ np.linalg.inv(to_yiq).T
    return np.clip(x, 0, 1)


def slow_blur(x, kernel, sigma):
    """Every tap of the kernel, reflected edges, one pixel after another."""
    height, width = x.shape[:2]
    weights = []
    for size in kernel:
        w = np.array([math.exp(-0.5 * (i / sigma) ** 2) for i in range(-(size // 2), size // 2 + 1)])
        weights.append(w / w.sum())
    wide = np.pad(x, [(kernel[0] // 2,) * 2, (kernel[1] // 2,) * 2, (0, 0)], mode="reflect")
    out = np.zeros_like(x)
    for i in range(height):
        for j in range(width):
            window = wide[i : i + kernel[0], j : j + kernel[1]]
            out[i, j] = np.einsum("h,w,hwc->c", weights[0], weights[1], window)
    return out


# ---- crop


@pytest.mark.parametrize("size", [(40, 64), (64, 40), (7, 90), (33, 33)])
def test_crop_is_pils_crop_and_resize(size):
    image = photo(*size)
    augmentation = Augmentation(32, 24, seed=5)
    flips = 0
    for index in range(30):
        row = augmentation.draw_crops(2, np.array([index]))[0].tolist()
        top, left, h, w = crop_box(*size, augmentation.crop_scale, augmentation.crop_ratio, row)
        assert 0 <= top <= size[0] - h and 0 <= left <= size[1] - w and h > 0 and w > 0
        view = Image.fromarray(image).crop((left, top, left + w, top + h)).resize((24, 32), Image.Resampling.BILINEAR)
        if row[-2] < 0.5:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            flips += 1
        got = augmentation.crop(image, 2, index)
        assert got.shape == (32, 24, 3) and got.dtype == np.uint8 and got.flags["C_CONTIGUOUS"]
        difference = np.abs(got.astype(int) - np.asarray(view).astype(int))
        assert difference.max() <= 2 and difference.mean() < 0.1, "torch rounds its weights to fewer bits than PIL"
    assert 5 < flips < 25


def test_crop_boxes_follow_scale_and_ratio():
    table = counter_rng.uniforms(counter_rng.keys((0,), np.arange(4000)), 24)
    boxes = np.array([crop_box(300, 300, (0.2, 0.9), (0.75, 4 / 3), row) for row in table.tolist()])
    share, ratio = boxes[:, 2] * boxes[:, 3] / 300**2, boxes[:, 3] / boxes[:, 2]
    assert share.min() > 0.195 and share.max() < 0.905 and abs(np.median(share) - 0.53) < 0.04
    assert ratio.min() > 0.74 and ratio.max() < 1.345 and abs(np.log(ratio).mean()) < 0.02
    centre = boxes[:, 0] + boxes[:, 2] / 2
    assert abs(centre.mean() - 150) < 3


def test_crop_that_never_fits_falls_back_to_the_centre():
    row = [1.0 - 1e-9] * 24
    assert crop_box(10, 400, (1.0, 1.0), (0.75, 4 / 3), row) == (0, 193, 10, 13)
    assert crop_box(400, 10, (1.0, 1.0), (0.75, 4 / 3), row) == (193, 0, 13, 10)
    assert crop_box(1, 1, (0.08, 1.0), (0.75, 4 / 3), row)[2:] == (1, 1)


def test_rotation_turns_about_the_centre_and_fills_with_the_mean():
    image = np.full((64, 64, 3), 255, np.uint8)
    plain = {"crop_scale": (1, 1), "crop_ratio": (1, 1), "mean": MEAN, "std": STD}
    augmentation = Augmentation(32, 32, rotation=True, **plain)
    views = np.stack([augmentation.crop(image, 0, i) for i in range(12)])
    assert (views[:, 14:18, 14:18] == 255).all()
    fill = np.array([128, 102, 76])
    corners = views[:, [0, 0, -1, -1], [0, -1, 0, -1]].reshape(-1, 3)
    assert (np.abs(corners - fill).max(1) <= 1).mean() > 0.7
    assert not np.array_equal(views[0], Augmentation(32, 32, **plain).crop(image, 0, 0))


# ---- finish


def test_without_color_and_blur_finish_normalises():
    images = batch(3)
    got = Augmentation(24, 20, mean=MEAN, std=STD).augment_batch(images, 0, np.arange(3))
    expected = (images.numpy() / 255 - np.array(MEAN)) / np.array(STD)
    assert got.dtype == torch.float32 and got.shape == (3, 3, 24, 20)
    assert got.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(got.permute(0, 2, 3, 1).numpy(), expected, atol=2e-6)


def test_color_blur_and_normalisation_equal_the_slow_way():
    images = batch(8)
    blur = {"kernel": [7, 5], "sigma": [0.3, 1.1]}
    augmentation = Augmentation(24, 20, color=COLOR, blur=blur, mean=MEAN, std=STD, seed=9)
    got = augmentation.augment_batch(images, 3, np.arange(8)).permute(0, 2, 3, 1).numpy()
    for i in range(8):
        row = finish_row(augmentation, 3, i)
        x = slow_blur(slow_color(images[i].numpy(), row), (7, 5), 0.3 + row[4] * 0.8)
        error = np.abs(got[i] * np.array(STD) + np.array(MEAN) - x).max()
        assert error < 0.5 / 255, "half a step of 8 bits is all that left-out taps may cost"


def test_color_alone_equals_the_formula_to_rounding():
    images = batch(6)
    augmentation = Augmentation(24, 20, color=COLOR, mean=MEAN, std=STD, seed=1)
    got = augmentation.augment_batch(images, 0, np.arange(6)).permute(0, 2, 3, 1).numpy()
    for i in range(6):
        expected = (slow_color(images[i].numpy(), finish_row(augmentation, 0, i)) - np.array(MEAN)) / np.array(STD)
        np.testing.assert_allclose(got[i], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "column", "enhancer"),
    [
        ("brightness", 0, ImageEnhance.Brightness),
        ("contrast", 1, ImageEnhance.Contrast),
        ("saturation", 2, ImageEnhance.Color),
    ],
)
def test_factors_mean_what_they_mean_to_pil(name, column, enhancer):
    image = photo(24, 20)
    augmentation = Augmentation(24, 20, color={name: 0.6}, mean=(0, 0, 0), std=(1, 1, 1))
    factor = 0.4 + finish_row(augmentation, 0, 3)[column] * 1.2
    expected = np.asarray(enhancer(Image.fromarray(image)).enhance(factor)).astype(float)
    got = augmentation.augment_batch(torch.from_numpy(image)[None], 0, np.array([3]))[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(got - expected).max() < 2.0


def test_a_tiny_image_under_a_wide_blur():
    augmentation = Augmentation(3, 2, blur={"kernel": [15, 15], "sigma": [2.0, 2.0]}, mean=(0, 0, 0), std=(1, 1, 1))
    flat = torch.full((1, 3, 2, 3), 51, dtype=torch.uint8)
    np.testing.assert_allclose(augmentation.augment_batch(flat, 0, np.array([0])).numpy(), 0.2, atol=1e-6)


def test_erasing_fills_one_rectangle_with_the_mean_as_often_as_asked():
    images = torch.full((400, 32, 48, 3), 255, dtype=torch.uint8)
    got = Augmentation(32, 48, erase_prob=0.3, mean=MEAN, std=STD).augment_batch(images, 0, np.arange(400))
    erased = (got == 0).all(1).numpy()
    share = erased.reshape(400, -1).mean(1)
    assert 0.22 < (share > 0).mean() < 0.38
    assert share.max() < 0.36 and share[share > 0].min() > 0.01
    for mask in erased[share > 0]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert erase_box(1, 1, [0.5] * 22) is None


# ---- independence, shapes, refusals


def full(height=24, width=20, **changes):
    options = {"color": COLOR, "blur": {"kernel": [5, 5], "sigma": [0.3, 0.7]}, "erase_prob": 0.5, "seed": 4}
    return Augmentation(height, width, **{**options, **changes})


def test_an_image_does_not_depend_on_its_batch():
    images, order = batch(7), np.array([3, 0, 6, 2])
    complete = full().augment_batch(images, 1, np.arange(7))
    assert torch.equal(full().augment_batch(images[order], 1, torch.from_numpy(order)), complete[order])
    out = torch.empty((7, 3, 24, 20)).contiguous(memory_format=torch.channels_last)
    full().augment_batch(images[:3], 1, np.arange(3), out=out[:3])
    full().augment_batch(images[3:], 1, np.arange(3, 7), out=out[3:])
    assert torch.equal(out, complete)


def test_the_number_of_threads_changes_nothing():
    images = batch(2, 150, 150)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = full(150, 150).augment_batch(images, 0, np.arange(2))
        torch.set_num_threads(2)
        assert torch.equal(full(150, 150).augment_batch(images, 0, np.arange(2)), alone)
    finally:
        torch.set_num_threads(before)


def test_seed_epoch_index_and_occurrence_all_change_the_view():
    image, one = photo(60, 60), np.array([1])
    base = full().crop(image, 0, 1)
    assert np.array_equal(base, full().crop(image, 0, 1))
    for other in (full(seed=5).crop(image, 0, 1), full().crop(image, 1, 1), full().crop(image, 0, 2)):
        assert not np.array_equal(base, other)
    assert not np.array_equal(base, full().crop(image, 0, 1, occurrence=1))
    images = batch(1)
    assert not torch.equal(full().augment_batch(images, 0, one), full().augment_batch(images, 0, one, np.array([1])))


def test_d19_height_and_width_keep_their_places_at_320_x_160():
    image = np.zeros((400, 200, 3), np.uint8)
    image[:200] = 255  # upper half white: a view of the whole must be white above, black below
    augmentation = Augmentation(320, 160, crop_scale=(1, 1), crop_ratio=(0.5, 0.5), mean=MEAN, std=STD,
                                blur={"kernel": [9, 3], "sigma": [2.0, 2.0]}, color=COLOR)  # fmt: skip
    view = augmentation.crop(image, 0, 0)
    assert view.shape == (320, 160, 3) and (view[:150] == 255).all() and (view[170:] == 0).all()
    got = augmentation.augment_batch(torch.from_numpy(view)[None], 0, np.array([0]))
    assert got.shape == (1, 3, 320, 160)
    assert augmentation.radius == (4, 1), "kernel is height, then width"
    assert got[0, :, 0].mean() > got[0, :, -1].mean() and got[0].std(2).max() < 1e-5


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"crop_scale": (0, 1)}, "dataset.crop.scale"),
        ({"crop_ratio": (2, 1)}, "dataset.crop.ratio"),
        ({"color": {"gamma": 1}}, "gamma"),
        ({"blur": {"kernel": [4, 5], "sigma": [1, 1]}}, "kernel 4"),
        ({"blur": {"kernel": [5, 5], "sigma": [2, 1]}}, "sigma"),
        ({"std": (0, 1, 1)}, "std above 0"),
    ],
)
def test_wrong_settings_are_named(options, word):
    with pytest.raises(SpecError, match=word):
        Augmentation(8, 8, **options)
