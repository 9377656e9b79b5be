import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.support.marks import VIEW, ThumbnailEngine, mark
from unalike.errors import DataError, SpecError, UnreadableImage
from unalike.recognition.gallery import Gallery
from unalike.verification.approved_set import ApprovedSet
from unalike.verification.asset import open_asset, spread_colors
from unalike.verification.benign import render_benign
from unalike.verification.expected_image import fit_background, fit_lighting
from unalike.verification.localization import AssetTemplate, locate_asset
from unalike.verification.measures import MEASURES, measure_difference
from unalike.verification.report import write_report
from unalike.verification.tampering import tamper
from unalike.verification.thresholds import TrialMeasurements, VerificationThresholds, compute_scores, fit_thresholds
from unalike.verification.verifier import MAX_SIDE, Verifier

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def verifier():
    """Three marks, calibrated with what a test can afford."""
    made = Verifier.of([mark(i) for i in range(3)], ThumbnailEngine(), VIEW)
    made.calibrate(0.2, trials=5, seed=1)
    return made


def shown(number, seed, layer=None):
    return render_benign(mark(number), np.random.default_rng([seed, 50]), layer_HW4=layer).image_HW3


# ---- laying and measuring ----


@pytest.mark.parametrize("seed", range(4))
def test_an_asset_is_found_where_it_was_put(seed):
    asset = mark(seed)
    told = render_benign(asset, np.random.default_rng(seed))
    place = locate_asset(AssetTemplate(asset), told.image_HW3)
    height, width = asset.size
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    apart = np.abs(place.matrix_23 @ corners - told.pose_23 @ corners).max()
    assert apart < 0.02 * max(height, width) * place.scale + 0.7
    assert place.distortion < 0.02
    assert place.rotation == pytest.approx(-np.degrees(np.arctan2(told.pose_23[1, 0], told.pose_23[0, 0])), abs=1)


def test_a_stretch_shows_in_the_place():
    asset = mark(1)
    made = tamper(asset, "stretched", np.random.default_rng(4))
    place = locate_asset(AssetTemplate(asset), shown(1, 3, made.layer_HW4))
    ratio = np.divide(*made.layer_HW4.shape[:2]) / np.divide(*asset.size)
    assert place.distortion == pytest.approx(abs(np.log(ratio)), abs=0.02)


def test_a_picture_without_edges_has_no_place():
    template = AssetTemplate(mark(0))
    assert locate_asset(template, np.full((80, 90, 3), 200, np.uint8)) is None


def test_light_is_one_gain_and_one_veil_and_cannot_recolour():
    colours = np.random.default_rng(0).uniform(20, 220, (30, 40, 3)).astype(np.float32)
    ink = np.ones((30, 40), bool)
    darker = fit_lighting(colours, colours * 0.8 + 6, ink)
    assert np.abs(darker - (colours * 0.8 + 6)).max() < 3
    red = np.zeros((30, 40, 3), np.float32) + (200, 20, 20)
    blue = np.zeros((30, 40, 3), np.float32) + (20, 20, 200)
    assert np.abs(fit_lighting(red, blue, ink) - blue).max() > 80
    black = np.zeros((30, 40, 3), np.float32)
    assert np.abs(fit_lighting(black, black + 255, ink) - 255).min() > 200


def test_the_ground_is_fitted_past_what_does_not_belong():
    y, x = np.mgrid[0:60, 0:80].astype(np.float32)
    ground = np.stack([100 + x / 2, 120 + y / 3, 90 + x / 4], axis=-1)
    seen = ground.copy()
    seen[5:15, 5:20] = (0, 0, 0)
    free = np.ones((60, 80), bool)
    free[20:40, 30:50] = False
    fitted, spread = fit_background(seen, free)
    assert np.abs(fitted - ground).max() < 4 and spread < 2


def test_a_missing_part_is_measured_and_pointed_at():
    asset = mark(2)
    made = tamper(asset, "part-missing", np.random.default_rng(8))
    told = render_benign(asset, np.random.default_rng(6), layer_HW4=made.layer_HW4)
    template = AssetTemplate(asset)
    found = measure_difference(template, told.image_HW3, locate_asset(template, told.image_HW3))
    clean = render_benign(asset, np.random.default_rng(6)).image_HW3
    same = measure_difference(template, clean, locate_asset(template, clean))
    assert found.measures["parts"] > 0.4 > 4 * same.measures["parts"]
    assert set(MEASURES) < set(found.measures)


def test_heavier_strokes_are_out_of_balance_and_blur_is_not():
    """Strokes thicker by a pixel or so of the picture: within what ``parts`` allows an edge, and yet too much ink."""
    asset = mark(2)
    template, heavier = AssetTemplate(asset), asset.layer_HW4.copy()
    heavier = np.array(Image.fromarray(heavier).filter(ImageFilter.MaxFilter(3)))
    heavier[..., :3] = spread_colors(asset.color_HW3.astype(np.float32), asset.alpha_HW > 0.5)
    found = {}
    for name, layer, blur in (("clean", asset.layer_HW4, 0), ("soft", asset.layer_HW4, 1.2), ("heavy", heavier, 0)):
        picture = Image.fromarray(render_benign(asset, np.random.default_rng(6), layer_HW4=layer).image_HW3)
        pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(blur)))
        found[name] = measure_difference(template, pixels, locate_asset(template, pixels)).measures["balance"]
    assert found["heavy"] > 2 * max(found["clean"], found["soft"])


@pytest.mark.parametrize("seed", range(4))
def test_the_place_is_settled_to_a_fraction_of_a_pixel(seed):
    asset = mark(seed)
    told = render_benign(asset, np.random.default_rng(seed), kinds=("scale", "rotation", "background"))
    template = AssetTemplate(asset)
    place = measure_difference(template, told.image_HW3, locate_asset(template, told.image_HW3)).pose
    height, width = asset.size
    corners = np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    # A place maps pixel centres of the layer, what is drawn its corners: half a pixel apart on both sides.
    shift = 0.5 * place.scale - 0.5
    assert np.abs(place.matrix_23 @ corners - told.pose_23 @ corners - shift).max() < 0.5


# ---- limits ----


def made_trials(genuine=60, tampered=400, other=400, assets=20, seed=0):
    rng = np.random.default_rng(seed)
    kinds = ["genuine"] * genuine + ["part-missing"] * tampered + ["other"] * other
    level = np.repeat([0.01, 0.5, 1.0], [genuine, tampered, other])
    measures = level[:, None] * rng.lognormal(0, 0.5, (len(kinds), len(MEASURES)))
    return TrialMeasurements(
        measures, rng.integers(0, assets, len(kinds)), np.array(kinds, object), rng.uniform(0, 1, len(kinds))
    )


def test_limits_keep_the_rate_on_the_trials_they_were_made_of():
    trials = made_trials()
    limits = fit_thresholds(trials, 0.02)
    score = compute_scores(trials, limits.limits)
    for kind in ("part-missing", "other"):
        assert np.mean(score[trials.kind_N == kind] >= limits.threshold) <= 0.02
    assert limits.false_accept.trials == 400 and limits.false_accept.classes == 20
    assert limits.false_accept.low <= limits.false_accept.rate <= limits.false_accept.high
    told = dict(zip(MEASURES, trials.measures_NM[0], strict=True))
    assert limits.score(told) == pytest.approx(score[0])
    assert limits.false_accept_unseen is None  # one kind says nothing of others
    assert VerificationThresholds.from_dict(limits.to_dict()) == limits
    with pytest.raises(DataError, match="limits of version 1"):
        VerificationThresholds.from_dict({**limits.to_dict(), "format_version": 1})


def test_the_rate_holds_on_other_assets_as_often_as_the_interval_says():
    """Trials whose difficulty differs by asset: calibrated on some assets, judged on as many others."""
    inside = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)

        def trials(first, rng=rng):
            asset = np.repeat(np.arange(first, first + 30), 20)
            hard = np.repeat(rng.lognormal(0, 0.6, 30), 20)
            tampered = hard * rng.lognormal(0, 0.6, 600)
            score = np.concatenate([np.full(60, 0.05), tampered, np.full(600, 50.0)])
            kinds = np.array(["genuine"] * 60 + ["part-missing"] * 600 + ["other"] * 600, object)
            where = np.concatenate([np.repeat(np.arange(first, first + 30), 2), asset, asset])
            return TrialMeasurements(np.tile(score[:, None], (1, len(MEASURES))), where, kinds, np.zeros(1260))

        limits, other = fit_thresholds(trials(0), 0.05), trials(100)
        rate = np.mean(compute_scores(other, limits.limits)[other.kind_N == "part-missing"] >= limits.threshold)
        inside += limits.false_accept.low <= rate <= limits.false_accept.high
    assert inside >= 34


def test_the_rate_holds_on_kinds_that_calibration_never_saw():
    """Kinds whose difficulty differs: calibrated on five of some assets, judged on five others of as many others."""
    inside, seen = 0, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)

        def trials(first, rng=rng):
            asset, kind = np.repeat(np.arange(first, first + 20), 25), np.tile(np.repeat(np.arange(5), 5), 20)
            hard = rng.lognormal(0, 0.4, 20)[asset - first] * rng.lognormal(0, 0.6, 5)[kind]
            score = np.concatenate([np.full(60, 0.05), hard * rng.lognormal(0, 0.5, 500), np.full(500, 50.0)])
            kinds = np.array(["genuine"] * 60 + [f"kind {first + k}" for k in kind] + ["other"] * 500, object)
            where = np.concatenate([np.repeat(np.arange(first, first + 20), 3), asset, asset])
            return TrialMeasurements(np.tile(score[:, None], (1, len(MEASURES))), where, kinds, np.zeros(1060))

        limits, other = fit_thresholds(trials(0), 0.05), trials(100)
        tampered = (other.kind_N != "genuine") & (other.kind_N != "other")
        rate = np.mean(compute_scores(other, limits.limits)[tampered] >= limits.threshold)
        inside += limits.false_accept_unseen.low <= rate <= limits.false_accept_unseen.high
        seen += limits.false_accept.low <= rate <= limits.false_accept.high
        assert limits.false_accept_unseen.high > limits.false_accept.high
    assert inside >= 36 > seen


def test_a_rate_that_the_trials_cannot_support_is_refused():
    with pytest.raises(DataError, match="cannot support a false-accept rate of 0.001.*at least 2995 of each.*0.0075"):
        fit_thresholds(made_trials(), 0.001)
    with pytest.raises(DataError, match="benign"):
        fit_thresholds(made_trials(genuine=0), 0.1)
    with pytest.raises(SpecError, match="rate is 1.5"):
        fit_thresholds(made_trials(), 1.5)


# ---- the verifier ----


def test_harmless_pictures_are_the_same_and_tampered_ones_are_not(verifier):
    answers = [verifier.verify(shown(number, seed)) for number in range(3) for seed in range(2)]
    assert [told.answer for told in answers].count("same") >= 5
    assert all(told.asset == f"mark {i // 2}" for i, told in enumerate(answers))
    for kind in ("recoloured", "part-recoloured", "stretched", "part-missing", "part-added"):
        made = tamper(mark(1), kind, np.random.default_rng(3))
        told = verifier.verify(shown(1, 9, made.layer_HW4))
        assert (told.answer, told.asset) == ("altered", "mark 1"), kind
        assert told.score < told.threshold and told.reasons
        assert bool(told.regions) or kind == "stretched"
    assert "stretched" in str(
        verifier.verify(shown(1, 9, tamper(mark(1), "stretched", np.random.default_rng(3)).layer_HW4))
    )


def test_a_box_stands_where_something_was_added(verifier):
    asset = mark(0)
    layer = asset.layer_HW4.copy()
    layer[10:34, 10:34] = (250, 20, 220, 255)
    told = render_benign(asset, np.random.default_rng(12), layer_HW4=layer)
    verdict = verifier.verify(told.image_HW3)
    assert verdict.answer == "altered"
    x, y = told.pose_23 @ np.array([22, 22, 1.0])
    left, top, right, bottom = verdict.regions[0].box
    assert left <= x <= right and top <= y <= bottom


def test_what_is_no_asset(verifier):
    stranger = shown(40, 2)
    assert verifier.verify(stranger).answer in ("not in the set", "different")
    assert verifier.verify(stranger, claimed="mark 2").answer == "different"
    assert verifier.verify(shown(1, 2), claimed="mark 2").answer == "different"
    with pytest.raises(DataError, match="no asset 'mark 22'.*did you mean 'mark 2'"):
        verifier.verify(stranger, claimed="mark 22")


def test_hard_pictures(verifier):
    asset = mark(1)
    picture = asset.composite()
    assert verifier.verify(picture).answer == "same"  # the asset itself
    assert verifier.verify(Image.fromarray(asset.layer_HW4)).answer == "same"  # with its transparency
    assert verifier.verify(np.full((100, 120, 3), 255, np.uint8)).answer == "not in the set"
    noise = np.random.default_rng(0).integers(0, 255, (150, 150, 3), dtype=np.uint8)
    assert verifier.verify(noise).answer in ("not in the set", "different")
    for turned in (picture[:, ::-1], np.rot90(picture), np.rot90(picture, 2)):
        assert verifier.verify(np.ascontiguousarray(turned)).answer != "same"
    grey = np.asarray(Image.fromarray(picture).convert("L"))
    assert verifier.verify(grey).answer == "altered"  # the colours are gone
    assert verifier.verify(grey[..., None]).answer == "altered"
    with pytest.raises(UnreadableImage, match="at least 16 a side"):
        verifier.verify(np.zeros((300, 8, 3), np.uint8))
    with pytest.raises(DataError, match="uint8"):
        verifier.verify(np.zeros((30, 30, 3), np.float32))


def test_a_large_picture_is_compared_small_and_told_in_its_own_pixels(verifier, tmp_path):
    made = tamper(mark(0), "part-added", np.random.default_rng(5))
    small = Image.fromarray(shown(0, 4, made.layer_HW4))
    large = small.resize((small.width * 9, small.height * 9), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=90)
    assert max(large.size) > MAX_SIDE
    verdict = verifier.verify(tmp_path / "large.jpg")
    assert verdict.answer == "altered" and verdict.size == (large.height, large.width)
    corner = verifier.verify(small).outline[2]
    assert np.allclose(np.array(verdict.outline[2]) / 9, corner, atol=0.03 * max(small.size))


def test_a_set_of_one_and_of_twins():
    one = Verifier.of([mark(1)], ThumbnailEngine(), VIEW)
    with pytest.raises(DataError, match="calibrate first"):
        one.verify(shown(1, 0))
    with pytest.raises(DataError, match="cannot support"):
        one.calibrate(0.3, trials=2)
    limits = one.calibrate(0.3, trials=9)
    assert limits.assets == 1 and limits.false_accept.trials == 9
    assert one.verify(shown(1, 0)).answer == "same"
    made = tamper(mark(1), "recoloured", np.random.default_rng(3))
    assert one.verify(shown(1, 9, made.layer_HW4)).answer == "altered"
    twins = Verifier.of([mark(1), mark(1), mark(2)], ThumbnailEngine(), VIEW, names=["a", "b", "c"])
    twins.calibrate(0.3, trials=3)
    assert twins.approved.twins == (("a", "b"),)
    verdict = twins.verify(shown(1, 0))
    assert verdict.answer == "same" and {verdict.asset, *verdict.twins} == {"a", "b"}


def test_assets_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match="two assets are named 'a'"):
        Verifier.of([mark(1), mark(2)], ThumbnailEngine(), VIEW, names=["a", "a"])
    with pytest.raises(DataError, match="2 assets and 1 names"):
        Verifier.of([mark(1), mark(2)], ThumbnailEngine(), VIEW, names=["a"])
    Image.new("RGB", (40, 40), "white").save(tmp_path / "blank.png")
    with pytest.raises(DataError, match="blank: the asset shows nothing"):
        Verifier.of(tmp_path, ThumbnailEngine(), VIEW)


def test_a_saved_set_is_the_same_and_damage_is_found(verifier, tmp_path):
    path = verifier.save(tmp_path / "marks.set")
    held = ApprovedSet.load(path)
    again = Verifier(held, ThumbnailEngine(), VIEW)
    picture = shown(2, 7)
    assert again.verify(picture).to_dict() == verifier.verify(picture).to_dict()
    assert held.thresholds == verifier.thresholds
    with pytest.raises(DataError, match="holds no gallery"):
        Gallery.load(path)
    gallery = Gallery(4)
    gallery.enrol(np.eye(4, dtype=np.float32), ["a"] * 4)
    gallery.save(tmp_path / "shop.gallery")
    with pytest.raises(DataError, match="holds no approved assets"):
        ApprovedSet.load(tmp_path / "shop.gallery")
    content = bytearray(path.read_bytes())
    content[100] ^= 255
    (tmp_path / "bad.set").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        ApprovedSet.load(tmp_path / "bad.set")


def test_the_page_and_its_pictures(verifier, tmp_path):
    made = tamper(mark(1), "part-missing", np.random.default_rng(3))
    verdicts = []
    for name, picture in (("ok", shown(0, 1)), ("<odd>", shown(1, 9, made.layer_HW4))):
        path = tmp_path / f"{name}.png"
        Image.fromarray(picture).save(path)
        verdicts.append((path, verifier.verify(path)))
    page = write_report(tmp_path / "out", verifier.approved, verdicts)
    text = page.read_text()
    assert "&lt;odd&gt;.png" in text and "<odd>" not in text and "src='http" not in text
    lines = (tmp_path / "out/verdicts.jsonl").read_text().splitlines()
    assert len(lines) == 2 and '"answer": "altered"' in lines[1]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "verdicts.jsonl", "report.html", "<odd>.overlay.png", "<odd>.parts.png",
    }  # fmt: skip


def test_an_asset_on_a_white_plate_is_one_asset():
    plate = open_asset(mark(3).composite(), "plate")
    assert plate.background == "plain"
    template = AssetTemplate(plate)
    told = render_benign(plate, np.random.default_rng(2))
    found = measure_difference(template, told.image_HW3, locate_asset(template, told.image_HW3))
    assert found.measures["parts"] < 0.2


def test_an_asset_that_fills_its_rectangle():
    """A photograph on its own, with no ground around it, and laid on a ground."""
    rng = np.random.default_rng(3)
    coarse = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8))
    photo = np.asarray(coarse.resize((240, 180), Image.Resampling.BICUBIC))
    asset = open_asset(photo, "photo")
    assert asset.background == "none"
    template = AssetTemplate(asset)
    spotted = photo.copy()
    spotted[60:85, 100:130] = 255 - spotted[60:85, 100:130]
    for layer, differs in ((photo, False), (spotted, True)):
        alone = measure_difference(template, layer, locate_asset(template, layer))
        rgba = np.dstack([layer, np.full(layer.shape[:2], 255, np.uint8)])
        scene = render_benign(asset, np.random.default_rng(4), layer_HW4=rgba).image_HW3
        laid = measure_difference(template, scene, locate_asset(template, scene))
        for found in (alone, laid):
            assert (found.measures["parts"] > 0.4) == differs, found.measures
            assert found.measures["distortion"] < 0.02
