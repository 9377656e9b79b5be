"""The inspector: fits to drawn parts, finds scratches, saves and loads, refuses bad input.

Also covers cross_validation, few_shot, result, and through real images: normal_images, patch_features, anomaly_map,
synthetic_patches.
"""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import unalike
from tests.support.forged_files import forgeries
from tests.support.inspected_parts import (
    CONFIG,
    GOOD_PARTS,
    PREPROCESSING,
    SIZE,
    Edges,
    draw_part,
    fitted_inspector,
    map_model,
    map_network,
    write_images,
)
from unalike.errors import DataError, ModelError, SpecError, UnalikeError, UnreadableImage
from unalike.inference.feature_map_model import FeatureMapModel
from unalike.inspection.anomaly_model import AnomalyModelConfig
from unalike.inspection.inspector import Inspector


@pytest.fixture(scope="module")
def inspector():
    return fitted_inspector()


def test_it_finds_a_scratch_and_where_it_is(inspector):
    assert inspector.threshold.images == 24 and inspector.threshold.expected_rate == pytest.approx(
        1 / (25 - len(inspector.threshold.outliers))
    )
    for seed, place in ((100, (30, 40)), (101, (50, 10)), (102, (20, 25))):
        result = inspector.inspect(draw_part(seed, place))
        left, top, right, bottom = result.regions[0].box
        assert result.decision == "defective" and result.score > result.threshold
        assert left <= place[1] + 6 < right and top <= place[0] + 2 < bottom
        anomaly_map = result.anomaly_map()
        assert (
            anomaly_map.shape == (64, 64)
            and np.hypot(*(np.array(np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)) - place)) < 20
        )
    fine = [inspector.inspect(draw_part(seed)).decision for seed in range(200, 220)]
    assert fine.count("good") >= 17


def test_a_saved_inspector_decides_the_same_in_every_engine(inspector, tmp_path):
    path = inspector.save(tmp_path / "a.inspector")
    images = [draw_part(300), draw_part(301, (40, 30)), draw_part(302, (20, 44), (150, 100))]
    expected = [inspector.inspect(image) for image in images]
    in_torch = map_model()
    module = Edges().eval()
    module.maps = map_network()[1]
    from unalike.engines.torch_engine import TorchEngine

    torch_maps = FeatureMapModel(
        TorchEngine(module, (0.5,) * 3, (0.25,) * 3, SIZE), PREPROCESSING, in_torch.maps, "edges"
    )
    again = {
        "torch": Inspector(
            torch_maps,
            inspector.tiling,
            inspector.config,
            inspector.model,
            inspector.threshold,
            inspector.facts,
            centers=inspector.extractor.centers,
        ),
        **{runtime: Inspector.load(path, runtime=runtime) for runtime in ("onnxruntime", "openvino")},
    }
    for name, other in again.items():
        for image, known in zip(images, expected, strict=True):
            result = other.inspect(image)
            assert result.decision == known.decision and result.score == pytest.approx(known.score, rel=1e-3), name
            assert np.abs(result.anomaly_map_hw - known.anomaly_map_hw).max() <= 2e-3 * known.anomaly_map_hw.max(), name
    with pytest.raises(ModelError, match="no ONNX file"):
        again["torch"].save(tmp_path / "b.inspector")
    assert not (tmp_path / "b.inspector").exists()


def test_it_runs_where_torch_cannot_be_imported(inspector, tmp_path):
    path = inspector.save(tmp_path / "a.inspector")
    Image.fromarray(draw_part(5, (30, 30))).save(tmp_path / "x.png")
    program = (
        "import sys; sys.modules['torch'] = sys.modules['sklearn'] = sys.modules['cv2'] = None\n"
        "from unalike import Inspector\n"
        f"result = Inspector.load({str(path)!r}, runtime='onnxruntime').inspect({str(tmp_path / 'x.png')!r})\n"
        "print(result.decision)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "defective", done.stderr[-2000:]


def test_no_normal_image_is_scored_by_a_model_that_was_fitted_to_it():
    """Every image is of its own kind: anomalous to a model of the others, normal to a model of itself."""
    images = [np.full((64, 64, 3), 20 * number + 20, np.uint8) for number in range(10)]
    config = AnomalyModelConfig(
        patches=600, memory=600, folds=5, whiten=0.0, smooth=0.0, border=0.0, synthetic_defects=0
    )
    fitted = Inspector.fit(images, model=map_model(), rate=0.5, config=config)
    own = [fitted.inspect(image).score for image in images]
    assert max(own) < 0.05 * min(fitted.facts["good_scores"])


def test_two_images_of_one_part_are_in_one_fold():
    """Ten kinds, each twice: a twin in another fold makes every image look normal, unless parts are named."""
    images = [np.full((64, 64, 3), 20 * (number // 2) + 20, np.uint8) for number in range(20)]
    config = AnomalyModelConfig(
        patches=1200, memory=1200, folds=5, whiten=0.0, smooth=0.0, border=0.0, synthetic_defects=0
    )
    unnamed = Inspector.fit(images, model=map_model(), rate=0.5, config=config)
    named = Inspector.fit(
        images, model=map_model(), rate=0.5, config=config, parts=[number // 2 for number in range(20)]
    )
    assert np.median(unnamed.facts["good_scores"]) < 0.05 * min(named.facts["good_scores"])
    assert named.threshold.parts == 10 and unnamed.threshold.parts == 0
    with pytest.raises(DataError, match="one part"):
        Inspector.fit(images, model=map_model(), rate=0.5, config=config, parts=["a"] * 20)


def test_tiles_of_a_large_image_and_one_smaller_than_the_network(inspector):
    large = draw_part(400, (70, 150), (130, 210))
    result = inspector.inspect(large)
    assert result.size == (130, 210) and result.anomaly_map().shape == (130, 210)
    assert inspector.inspect(draw_part(401, None, (40, 20))).anomaly_map().shape == (40, 20)


def test_grey_images_are_accepted_and_other_arrays_refused(inspector):
    image = draw_part(7, (30, 30))
    assert inspector.inspect(image[..., 0]).score == inspector.inspect(image).score
    assert inspector.inspect(Image.fromarray(image[..., 0])).score == inspector.inspect(image).score
    with pytest.raises(DataError, match="uint8"):
        inspector.inspect(image.astype(np.float32))


def test_a_fixture_makes_positions_count():
    """A second hole elsewhere consists of normal patches in the wrong place."""
    wrong = draw_part(50)
    wrong[40:48, 40:48] = 30
    shares = {}
    for fixture in (0.0, 0.05):
        config = AnomalyModelConfig(
            patches=3000, memory=900, folds=3, fixture=fixture, local=0.0, smooth=0.0, synthetic_defects=0
        )
        map_hw = Inspector.fit(GOOD_PARTS, model=map_model(), rate=None, config=config).inspect(wrong).anomaly_map_hw
        shares[fixture] = map_hw[10:12, 10:12].max() / map_hw[1:4, 1:4].max()  # the wrong place, beside the right one
    assert shares[0.05] > 1.5 and shares[0.05] > 1.3 * shares[0.0]


def test_defects_with_masks_update_the_model_and_are_counted(tmp_path, capsys):
    places = [(30, 40), (50, 10), (20, 25), (40, 44), (28, 12), (52, 30)]
    folder = write_images(tmp_path / "bad", [draw_part(500 + n, place) for n, place in enumerate(places)])
    masks = []
    for y, x in places:
        mask = np.zeros((64, 64), np.uint8)
        mask[y : y + 5, x : x + 12] = 255
        masks.append(mask)
    write_images(tmp_path / "masks", masks, "{:02d}_mask.png")
    fitted = Inspector.fit(
        GOOD_PARTS, model=map_model(), rate=0.05, config=CONFIG, defects=folder, masks=tmp_path / "masks"
    )
    assert fitted.threshold.defects == 6 and fitted.threshold.defects_detected == 1.0 and fitted.threshold.auroc == 1.0
    assert "6 defective images: AUROC" in capsys.readouterr().err
    assert fitted.facts["taught"] is False  # no gain: it is perfect without
    write_images(tmp_path / "masks", [np.zeros((10, 10), np.uint8)], "00_mask.png")
    with pytest.raises(DataError, match="10 x 10"):
        Inspector.fit(GOOD_PARTS, model=map_model(), rate=0.05, config=CONFIG, defects=folder, masks=tmp_path / "masks")


# ---- mistakes ----


def test_too_few_images_and_a_rate_out_of_reach():
    with pytest.raises(DataError, match="1 good image; expected at least 2"):
        Inspector.fit(GOOD_PARTS[:1], model=map_model())
    with pytest.raises(DataError, match="24 good images cannot support 1 %"):
        Inspector.fit(GOOD_PARTS, model=map_model(), rate=0.01)
    fitted = Inspector.fit(GOOD_PARTS[:2], model=map_model(), rate=None, config=CONFIG)
    assert fitted.threshold is None and fitted.inspect(draw_part(1, (30, 30))).decision == "undecided"


def test_empty_and_corrupt_files(tmp_path, capsys):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError):
        Inspector.fit(tmp_path / "none", model=map_model())
    folder = write_images(tmp_path / "good", GOOD_PARTS[:20])
    (folder / "99.png").write_bytes(b"no picture")
    fitted = Inspector.fit(folder, model=map_model(), rate=0.1, config=CONFIG)
    assert fitted.threshold.images == 20 and fitted.facts["unreadable"] == 1
    assert "1 unreadable images were skipped" in capsys.readouterr().err
    with pytest.raises(UnreadableImage):
        fitted.inspect(folder / "99.png")
    (folder / "98.png").write_bytes(b"no picture either")
    with pytest.raises(DataError, match="cannot be read"):
        Inspector.fit(folder, model=map_model(), rate=0.1, config=CONFIG)


def test_other_files_are_refused(inspector, tmp_path):
    path = inspector.save(tmp_path / "a.inspector")
    content = path.read_bytes()
    for name, wrong, word in (
        ("text", b"hello", "is no inspector"),
        ("gallery", b"UNALIKEG" + content[8:], "is no inspector"),
        ("short", content[:-5], "damaged"),
        ("head", content[:-40] + b"x" + content[-39:], "damaged"),
        ("memory", content[:200_0] + bytes([content[2000] ^ 1]) + content[2001:], "damaged"),
    ):
        (tmp_path / name).write_bytes(wrong)
        with pytest.raises(DataError, match=word):
            Inspector.load(tmp_path / name)
    with pytest.raises(DataError, match="there is no inspector"):
        Inspector.load(tmp_path / "missing")


def test_a_newer_format_is_refused(inspector, tmp_path, monkeypatch):
    monkeypatch.setattr("unalike.inspection.inspector.FORMAT_VERSION", 7)
    path = inspector.save(tmp_path / "a.inspector")
    monkeypatch.undo()
    with pytest.raises(DataError, match="inspector version 7.*newer"):
        Inspector.load(path)


def test_configs_out_of_range_are_refused():
    for wrong in (
        {"memory": 0},
        {"patches": 10},
        {"whiten": 2.0},
        {"folds": 1},
        {"localize_by": "x"},
        {"smooth": -1.0},
        {"border": -1.0},
    ):
        with pytest.raises(SpecError):
            AnomalyModelConfig(**wrong)


def test_defects_are_shown_where_they_are(inspector):
    """The cells of this network lie half a stride up and to the left of a plain grid's, as the padding has it."""
    low, high = inspector.extractor.centers
    assert max(abs(value - 0.5) for value in low) < 1 and max(abs(value - 0.5) for value in high) < 2
    away = []
    for seed, (y, x) in enumerate([(30, 40), (50, 10), (20, 25), (40, 44), (28, 12), (36, 30)]):
        result = inspector.inspect(draw_part(600 + seed, (y, x)))
        map_HW = result.anomaly_map()
        rows, columns = np.nonzero(map_HW > 0.5 * map_HW.max())
        away.append((rows.mean() - (y + 2), columns.mean() - (x + 5.5)))
    assert np.abs(np.mean(away, axis=0)).max() < 1.5  # pixels; half a stride is 2


def test_where_cells_lie_is_kept_in_the_file(inspector, tmp_path):
    path = inspector.save(tmp_path / "a.inspector")
    assert Inspector.load(path).extractor.centers == inspector.extractor.centers
    assert inspector.with_settings(threshold=1.0).extractor.shift == inspector.extractor.shift
    from unalike.storage.blockfile import read_blocks, write_blocks

    header, blocks = read_blocks(path, magic=b"UNALIKEI", kind="inspector")
    arrays = {name: [block.load()] for name, block in blocks.items()}
    for cells in ([[1, 2]], [[1, 2], [1, 99]], [[1, 2], [1, "2"]], 5, [[1, 2], [True, 2]]):
        write_blocks(tmp_path / "b", {**header, "cells": cells}, arrays, magic=b"UNALIKEI")
        with pytest.raises(DataError):
            Inspector.load(tmp_path / "b")


def test_the_public_name():
    assert unalike.Inspector is Inspector


def test_it_can_be_pickled(inspector, tmp_path):
    image = draw_part(100, (30, 40))
    for original in (inspector, Inspector.load(inspector.save(tmp_path / "i"))):
        assert pickle.loads(pickle.dumps(original)).inspect(image).score == pytest.approx(original.inspect(image).score)


def test_ignored_regions_have_no_say_in_the_fit_and_in_inspecting(tmp_path):
    box = (32, 32, 64, 64)
    plain = fitted_inspector()
    ignoring = fitted_inspector(ignore_boxes=(box,))
    scratched, elsewhere = draw_part(101, (50, 50)), draw_part(102, (12, 12))
    assert plain.inspect(scratched).decision == "defective" == ignoring.inspect(elsewhere).decision
    assert ignoring.inspect(scratched).score < plain.inspect(scratched).score
    assert ignoring.extractor.ignored_cells((64, 64)).mean() == pytest.approx(0.25)
    # Another resolution of the same frame; a mask adds to what the file holds, and boxes may be given later.
    assert ignoring.extractor.ignored_cells((128, 128)).mean() == pytest.approx(0.25)
    loaded = Inspector.load(ignoring.save(tmp_path / "a.inspector"))
    assert loaded.inspect(scratched).score == pytest.approx(ignoring.inspect(scratched).score, abs=1e-5)
    later = Inspector.load(plain.save(tmp_path / "b.inspector"), ignore_boxes=[box])
    assert later.threshold.threshold == plain.threshold.threshold
    assert later.inspect(scratched).score < plain.inspect(scratched).score
    with pytest.raises(DataError, match="ignored box"):
        fitted_inspector(ignore_boxes=((0, 0, 65, 10),))


def test_settings_change_threshold_and_ignored_regions_and_nothing_of_the_inspector_itself(inspector, tmp_path):
    scratched = draw_part(101, (50, 50))
    plain = inspector.inspect(scratched)
    lax = inspector.with_settings(threshold=plain.score + 1)
    assert lax.inspect(scratched).decision == "good" and lax.threshold.images == 24
    assert lax.threshold.expected_rate == np.mean(np.array(inspector.facts["good_scores"]) > plain.score + 1)
    assert lax.inspect(scratched).score == plain.score and inspector.inspect(scratched).decision == "defective"
    ignoring = inspector.with_settings(ignore_boxes=[(32, 32, 64, 64)])
    assert ignoring.inspect(scratched).score < plain.score and ignoring.threshold == inspector.threshold
    both = ignoring.with_settings(ignore_boxes=[(0, 0, 32, 32)])
    assert both.extractor.ignored_cells((64, 64)).mean() == pytest.approx(0.5, abs=0.07)  # in whole cells
    assert inspector.extractor.ignored_HW is None and inspector.frame == (64, 64)
    with pytest.raises(DataError, match="ignored box"):
        inspector.with_settings(ignore_boxes=[(0, 0, 65, 10)])
    del (other := Inspector.load(inspector.save(tmp_path / "a.inspector"))).facts["frame"]
    with pytest.raises(DataError, match="does not know the size of its images"):
        other.with_settings(ignore_boxes=[(0, 0, 10, 10)])


def test_the_heat_layer_is_clear_where_the_overlay_shows_the_image_alone(inspector):
    image = draw_part(101, (50, 50), (128, 96))
    result = inspector.inspect(image)
    layer_HW4, overlay_HW3 = np.array(result.heat_layer()), np.array(result.overlay(Image.fromarray(image)))
    assert layer_HW4.shape == (128, 96, 4) and max(result.heat_layer(64).size) == 64
    level_HW = result.anomaly_map() / result.threshold
    assert (layer_HW4[..., 3][level_HW < 0.5] == 0).all() and (layer_HW4[..., 3][level_HW > 0.51] > 0).all()
    assert layer_HW4[..., 3].max() == 178 and tuple(
        layer_HW4[np.unravel_index(level_HW.argmax(), level_HW.shape)][:3]
    ) == (235, 0, 0)
    is_clear_HW = layer_HW4[..., 3] == 0
    gray_HW = np.asarray(Image.fromarray(image).convert("L"), np.float32) * 0.8 + 40
    frame_HW = (overlay_HW3 == (220, 38, 38)).all(-1)
    assert np.allclose(overlay_HW3[is_clear_HW & ~frame_HW], gray_HW[is_clear_HW & ~frame_HW][:, None], atol=1.5)


@pytest.mark.parametrize("share", [0.03, pytest.param(1.0, marks=pytest.mark.slow)], ids=["some", "all"])
def test_forged_inspectors_are_read_or_refused(inspector, tmp_path, share):
    """Values of other types under right checksums; what is read can inspect."""
    saved, image = inspector.save(tmp_path / "saved"), draw_part(300)
    for what in forgeries(saved, tmp_path / "forged", share):
        try:
            read = Inspector.load(tmp_path / "forged", runtime="onnxruntime")
            read.inspect(image).anomaly_map()
            read.save(tmp_path / "again")
        except UnalikeError as error:
            assert "\n" not in str(error) and len(str(error)) < 1500
        except Exception as error:  # noqa: BLE001  named with the place, so that it can be mended
            pytest.fail(f"{what}: {type(error).__name__}: {error}")
