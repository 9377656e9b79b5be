import numpy as np
import pytest
from PIL import Image

from tests.support.marks import mark
from unalike.errors import DataError, SpecError, UnreadableImage
from unalike.verification.asset import Asset, box_mean, open_asset, spread_colors
from unalike.verification.benign import BENIGN, render_benign, warp_layer
from unalike.verification.distractors import draw_distractor
from unalike.verification.tampering import (
    MIN_CHANGED_SHARE,
    TAMPERING,
    compute_changed_share,
    find_parts,
    tamper,
    tamper_randomly,
)


def test_an_asset_keeps_its_transparency_and_is_cut_to_what_it_shows(tmp_path):
    pixels = np.zeros((60, 80, 4), np.uint8)
    pixels[10:30, 20:60] = (200, 10, 20, 255)
    Image.fromarray(pixels).save(tmp_path / "logo.png")
    asset = open_asset(tmp_path / "logo.png")
    assert (asset.name, asset.size, asset.background) == ("logo", (20, 40), "transparent")
    assert (asset.color_HW3 == (200, 10, 20)).all() and (asset.alpha_HW == 1).all()


def test_an_asset_on_a_plain_ground_is_lifted_off_it():
    pixels = np.full((60, 80, 3), (250, 245, 240), np.uint8)
    pixels[20:40, 30:70] = (10, 60, 200)
    asset = open_asset(pixels, "plate")
    assert asset.background == "plain" and asset.background_color == (250, 245, 240) and asset.size == (20, 40)
    assert np.abs(asset.composite(margin=0.0).astype(int) - (10, 60, 200)).max() <= 1


def test_an_asset_that_fills_its_rectangle_stays_whole():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    asset = open_asset(pixels, "photo")
    assert asset.background == "none" and asset.size == (40, 50) and (asset.composite() == pixels).all()


def test_what_shows_nothing_is_refused(tmp_path):
    for blank in (np.full((30, 30, 3), 255, np.uint8), np.zeros((30, 30, 4), np.uint8)):
        with pytest.raises(DataError, match="shows nothing"):
            open_asset(blank, "blank")
    with pytest.raises(DataError, match="uint8 of shape"):
        open_asset(np.zeros((4, 4, 2), np.uint8))
    (tmp_path / "no.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableImage):
        open_asset(tmp_path / "no.png")


def test_a_mean_of_squares_is_the_slow_one():
    values = np.random.default_rng(1).random((9, 7))
    padded = np.pad(values, 2, mode="edge")
    slow = [[padded[y : y + 5, x : x + 5].mean() for x in range(7)] for y in range(9)]
    assert np.allclose(box_mean(values, 2), slow)


def test_colours_spread_from_known_pixels_alone():
    colours = np.zeros((5, 5, 3), np.float32)
    known = np.zeros((5, 5), bool)
    colours[2, 2], known[2, 2] = (90, 60, 30), True
    spread = spread_colors(colours, known, reach=1)
    assert np.allclose(spread[1:4, 1:4], (90, 60, 30)) and (spread[0] == 0).all()


def test_a_layer_lands_where_its_place_says():
    layer = np.full((10, 20, 4), 255, np.uint8)
    colour, alpha = warp_layer(layer, np.array([[2.0, 0, 5], [0, 2.0, 7]]), (40, 60))
    rows, columns = np.flatnonzero((alpha > 0.5).any(1)), np.flatnonzero((alpha > 0.5).any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (7, 26, 5, 44)
    assert np.abs(colour[alpha > 0.9] - 255).max() < 1


def test_a_harmless_picture_is_its_seed_and_kinds_leave_one_another_alone():
    asset = mark(1)
    first, again = (render_benign(asset, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first.image_HW3, again.image_HW3)
    still = render_benign(asset, np.random.default_rng(5), kinds=("scale", "background", "lighting", "compression"))
    assert np.allclose(still.pose_23[0, 1], 0) and not np.allclose(first.pose_23[0, 1], 0)
    scale = [np.sqrt(np.linalg.det(one.pose_23[:, :2])) for one in (first, still)]
    assert scale[0] == pytest.approx(scale[1])
    plain = render_benign(asset, np.random.default_rng(5), kinds=("rotation",))
    assert np.sqrt(np.linalg.det(plain.pose_23[:, :2])) == pytest.approx(1)
    assert tuple(plain.image_HW3[0, 0]) == asset.background_color
    with pytest.raises(SpecError, match="did you mean 'scale'"):
        render_benign(asset, np.random.default_rng(5), kinds=("scales",))
    assert len(BENIGN) == 5


@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_changes_what_it_says(kind):
    asset = mark(2)
    made = tamper(asset, kind, np.random.default_rng(3))
    again = tamper(asset, kind, np.random.default_rng(3))
    assert made.kind == kind and np.array_equal(made.layer_HW4, again.layer_HW4)
    assert made.mask_HW.shape == asset.size and made.mask_HW.any()
    if kind == "stretched":
        before, after = (np.divide(*layer.shape[:2]) for layer in (asset.layer_HW4, made.layer_HW4))
        assert 1.07 < max(before / after, after / before) < 1.4
    elif kind != "slanted":
        shown = [layer[..., :3] * (layer[..., 3:] / 255.0) for layer in (asset.layer_HW4, made.layer_HW4)]
        solid = [layer[..., 3:].astype(float) for layer in (asset.layer_HW4, made.layer_HW4)]
        changed = np.abs(np.concatenate([shown[0] - shown[1], solid[0] - solid[1]], axis=2)).max(axis=2) > 60
        # What changed lies in the mask (its soft rim aside), and is as large as promised.
        grown = box_mean(made.mask_HW.astype(float), 3) > 0
        assert not (changed & ~grown).any()
        assert changed.sum() >= 0.5 * MIN_CHANGED_SHARE * (asset.alpha_HW > 0.5).sum()


def test_what_an_asset_does_not_offer_is_an_error_or_passed_over():
    disc = np.zeros((64, 64, 4), np.uint8)
    y, x = np.mgrid[0:64, 0:64]
    disc[(y - 32) ** 2 + (x - 32) ** 2 < 900] = (20, 90, 40, 255)
    asset = open_asset(disc, "disc")
    for kind in ("part-moved", "mirrored"):
        with pytest.raises(DataError, match="disc: no visible change"):
            tamper(asset, kind, np.random.default_rng(0))
    assert tamper_randomly(asset, np.random.default_rng(0), ("part-moved", "stretched")).kind == "stretched"
    with pytest.raises(DataError, match="none of"):
        tamper_randomly(asset, np.random.default_rng(0), ("part-moved", "mirrored"))
    with pytest.raises(SpecError, match="kind of tampering"):
        tamper_randomly(asset, np.random.default_rng(0), ("stretch",))


def test_what_cannot_be_seen_in_a_small_picture_is_no_tampering():
    block = np.zeros((300, 300, 4), np.uint8)
    block[40:260, 40:260] = (20, 90, 40, 255)
    speckled, gone, recoloured = block.copy(), block.copy(), block.copy()
    speckled[40:260:8, 40:260:8, 3] = 0  # 1.6 % of the ink, spread so thin that nothing is to be seen
    gone[40:80, 40:80, 3] = 0
    recoloured[40:80, 40:80, :3] = (160, 90, 40)
    assert compute_changed_share(block, block) == compute_changed_share(block, speckled) == 0
    for changed in (gone, recoloured):
        assert compute_changed_share(block, changed) == pytest.approx(1600 / 220**2, rel=0.35)  # its rim too
    for pale in (0, 255):  # black ink goes on black, white on white: the other ground shows it
        block[40:260, 40:260, :3] = gone[40:260, 40:260, :3] = pale
        assert compute_changed_share(block, gone) > MIN_CHANGED_SHARE


def test_pieces_are_those_that_touch_and_share_a_colour():
    layer = np.zeros((40, 60, 4), np.uint8)
    layer[5:35, 5:20] = (200, 0, 0, 255)
    layer[5:35, 20:30] = (0, 0, 200, 255)  # touches, another colour
    layer[5:35, 40:55] = (200, 0, 0, 255)  # apart
    masks = find_parts(Asset("three", layer))
    assert len(masks) == 3
    assert [int(mask.sum()) for mask in masks] == pytest.approx([450, 450, 300], rel=0.2)


def test_strangers_differ_from_one_another():
    drawn = [draw_distractor(0, number) for number in range(4)]
    assert np.array_equal(drawn[0].layer_HW4, draw_distractor(0, 0).layer_HW4)
    small = [np.asarray(Image.fromarray(one.composite()).resize((16, 16)), float).ravel() for one in drawn]
    assert all(np.abs(small[i] - small[j]).mean() > 5 for i in range(4) for j in range(i))
