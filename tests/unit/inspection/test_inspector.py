"""The inspector: fits to drawn parts, finds scratches, saves and loads, refuses bad input.

Also covers cross_validation, few_shot, result, and through real images: normal_images, patch_features, anomaly_map,
synthetic_patches.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import unalike
from unalike.actions.inspect import Truth, run
from unalike.actions.inspect import fit as fit_file
from unalike.actions.request import spec_with
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.errors import DataError, ModelError, RunError, SpecError, UnreadableImage
from unalike.inference.feature_map_model import FeatureMapModel, engine_from_onnx
from unalike.inspection.anomaly_model import AnomalyModelConfig
from unalike.inspection.inspector import Inspector

SIZE = (64, 64)
PREPROCESSING = Preprocessing(View(*SIZE, 1.0), (0.5,) * 3, (0.25,) * 3)
CONFIG = AnomalyModelConfig(patches=1500, memory=300, folds=3, synthetic_defects=60)


class Edges(torch.nn.Module):
    """A trunk without weights to fetch: fixed random filters of strides 4 and 8, enough to see a scratch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.low = torch.nn.Conv2d(3, 12, 5, 4, 2)
        self.high = torch.nn.Conv2d(12, 16, 3, 2, 1)

    def forward(self, images):
        low = torch.relu(self.low(images))
        return low, torch.relu(self.high(low))


@functools.cache
def network():
    from unalike.deploy.onnx_export import trace
    from unalike.engines.metadata import MapFacts, NetworkFacts

    maps = (MapFacts("low", 4, 12, 16, 16), MapFacts("high", 8, 16, 8, 8))
    view = View(*SIZE, 1.0).to_dict()
    facts = NetworkFacts(mean=(0.5,) * 3, std=(0.25,) * 3, view=view, trunk="edges", licence="none", maps=maps)
    return trace(Edges(), SIZE, facts, optimize=False).SerializeToString(), maps


def opened(runtime="onnxruntime", precision="fp32"):
    content, maps = network()
    return FeatureMapModel(
        engine_from_onnx(content, runtime, precision, 1), PREPROCESSING, maps, "edges", "edges", content, "none"
    )


def part(seed, scratch=None, size=(64, 64)):
    draws = np.random.default_rng(seed)
    columns = 120 + draws.normal(0, 8, (1, size[1])).repeat(size[0], axis=0)
    image = columns + draws.normal(0, 3, size)
    image[8:16, 8:16] = 30  # a hole where all have it
    if scratch is not None:
        y, x = scratch
        image[y : y + 5, x : x + 12] = 230
    return np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


GOOD = [part(seed) for seed in range(24)]


@pytest.fixture(scope="module")
def inspector():
    return Inspector.fit(GOOD, model=opened(), rate=0.05, config=CONFIG)


def write(folder, images, name="{:02d}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / name.format(number))
    return folder


def test_it_finds_a_scratch_and_where_it_is(inspector):
    assert inspector.threshold.images == 24 and inspector.threshold.expected_rate == pytest.approx(1 / 25)
    for seed, place in ((100, (30, 40)), (101, (50, 10)), (102, (20, 25))):
        result = inspector.inspect(part(seed, place))
        left, top, right, bottom = result.regions[0].box
        assert result.decision == "defective" and result.score > result.threshold
        assert left <= place[1] + 6 < right and top <= place[0] + 2 < bottom
        anomaly_map = result.anomaly_map()
        assert (
            anomaly_map.shape == (64, 64)
            and np.hypot(*(np.array(np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)) - place)) < 20
        )
    fine = [inspector.inspect(part(seed)).decision for seed in range(200, 220)]
    assert fine.count("good") >= 17


def test_a_saved_inspector_decides_the_same_in_every_engine(inspector, tmp_path):
    path = inspector.save(tmp_path / "a.inspector")
    images = [part(300), part(301, (40, 30)), part(302, (20, 44), (150, 100))]
    expected = [inspector.inspect(image) for image in images]
    in_torch = opened()
    module = Edges().eval()
    module.maps = network()[1]
    from unalike.engines.torch_engine import TorchEngine

    torch_maps = FeatureMapModel(
        TorchEngine(module, (0.5,) * 3, (0.25,) * 3, SIZE), PREPROCESSING, in_torch.maps, "edges"
    )
    again = {
        "torch": Inspector(
            torch_maps, inspector.tiling, inspector.config, inspector.model, inspector.threshold, inspector.facts
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
    Image.fromarray(part(5, (30, 30))).save(tmp_path / "x.png")
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
    fitted = Inspector.fit(images, model=opened(), rate=0.5, config=config)
    own = [fitted.inspect(image).score for image in images]
    assert max(own) < 0.05 * min(fitted.facts["good_scores"])


def test_two_images_of_one_part_are_in_one_fold():
    """Ten kinds, each twice: a twin in another fold makes every image look normal, unless parts are named."""
    images = [np.full((64, 64, 3), 20 * (number // 2) + 20, np.uint8) for number in range(20)]
    config = AnomalyModelConfig(
        patches=1200, memory=1200, folds=5, whiten=0.0, smooth=0.0, border=0.0, synthetic_defects=0
    )
    unnamed = Inspector.fit(images, model=opened(), rate=0.5, config=config)
    named = Inspector.fit(images, model=opened(), rate=0.5, config=config, parts=[number // 2 for number in range(20)])
    assert np.median(unnamed.facts["good_scores"]) < 0.05 * min(named.facts["good_scores"])
    assert named.threshold.parts == 10 and unnamed.threshold.parts == 0
    with pytest.raises(DataError, match="one part"):
        Inspector.fit(images, model=opened(), rate=0.5, config=config, parts=["a"] * 20)


def test_tiles_of_a_large_image_and_one_smaller_than_the_network(inspector):
    large = part(400, (70, 150), (130, 210))
    result = inspector.inspect(large)
    assert result.size == (130, 210) and result.anomaly_map().shape == (130, 210)
    assert inspector.inspect(part(401, None, (40, 20))).anomaly_map().shape == (40, 20)


def test_grey_images_are_accepted_and_other_arrays_refused(inspector):
    image = part(7, (30, 30))
    assert inspector.inspect(image[..., 0]).score == inspector.inspect(image).score
    assert inspector.inspect(Image.fromarray(image[..., 0])).score == inspector.inspect(image).score
    with pytest.raises(DataError, match="uint8"):
        inspector.inspect(image.astype(np.float32))


def test_a_fixture_makes_positions_count():
    """A second hole elsewhere consists of normal patches in the wrong place."""
    wrong = part(50)
    wrong[40:48, 40:48] = 30
    shares = {}
    for fixture in (0.0, 0.05):
        config = AnomalyModelConfig(
            patches=3000, memory=900, folds=3, fixture=fixture, local=0.0, smooth=0.0, synthetic_defects=0
        )
        map_hw = Inspector.fit(GOOD, model=opened(), rate=None, config=config).inspect(wrong).anomaly_map_hw
        shares[fixture] = map_hw[10:12, 10:12].max() / map_hw[1:4, 1:4].max()  # the wrong place, beside the right one
    assert shares[0.05] > 1.5 and shares[0.05] > 1.3 * shares[0.0]


def test_defects_with_masks_update_the_model_and_are_counted(tmp_path, capsys):
    places = [(30, 40), (50, 10), (20, 25), (40, 44), (28, 12), (52, 30)]
    folder = write(tmp_path / "bad", [part(500 + n, place) for n, place in enumerate(places)])
    masks = []
    for y, x in places:
        mask = np.zeros((64, 64), np.uint8)
        mask[y : y + 5, x : x + 12] = 255
        masks.append(mask)
    write(tmp_path / "masks", masks, "{:02d}_mask.png")
    fitted = Inspector.fit(GOOD, model=opened(), rate=0.05, config=CONFIG, defects=folder, masks=tmp_path / "masks")
    assert fitted.threshold.defects == 6 and fitted.threshold.defects_detected == 1.0 and fitted.threshold.auroc == 1.0
    assert "6 defective images: AUROC" in capsys.readouterr().err
    assert fitted.facts["taught"] is False  # no gain: it is perfect without
    write(tmp_path / "masks", [np.zeros((10, 10), np.uint8)], "00_mask.png")
    with pytest.raises(DataError, match="10 x 10"):
        Inspector.fit(GOOD, model=opened(), rate=0.05, config=CONFIG, defects=folder, masks=tmp_path / "masks")


# ---- mistakes ----


def test_too_few_images_and_a_rate_out_of_reach():
    with pytest.raises(DataError, match="1 good image; expected at least 2"):
        Inspector.fit(GOOD[:1], model=opened())
    with pytest.raises(DataError, match="24 good images cannot support 0.01"):
        Inspector.fit(GOOD, model=opened(), rate=0.01)
    fitted = Inspector.fit(GOOD[:2], model=opened(), rate=None, config=CONFIG)
    assert fitted.threshold is None and fitted.inspect(part(1, (30, 30))).decision == "undecided"


def test_empty_and_corrupt_files(tmp_path, capsys):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError):
        Inspector.fit(tmp_path / "none", model=opened())
    folder = write(tmp_path / "good", GOOD[:20])
    (folder / "99.png").write_bytes(b"no picture")
    fitted = Inspector.fit(folder, model=opened(), rate=0.1, config=CONFIG)
    assert fitted.threshold.images == 20 and fitted.facts["unreadable"] == 1
    assert "1 unreadable images were passed over" in capsys.readouterr().err
    with pytest.raises(UnreadableImage):
        fitted.inspect(folder / "99.png")
    (folder / "98.png").write_bytes(b"no picture either")
    with pytest.raises(DataError, match="cannot be read"):
        Inspector.fit(folder, model=opened(), rate=0.1, config=CONFIG)


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
    monkeypatch.setattr("unalike.inspection.inspector.FORMAT_VERSION", 4)
    path = inspector.save(tmp_path / "a.inspector")
    monkeypatch.undo()
    with pytest.raises(DataError, match="inspector version 4.*newer"):
        Inspector.load(path)


def test_configs_out_of_range_are_refused():
    for wrong in ({"memory": 0}, {"patches": 10}, {"whiten": 2.0}, {"folds": 1}, {"smooth": -1.0}, {"border": -1.0}):
        with pytest.raises(SpecError):
            AnomalyModelConfig(**wrong)


# ---- the actions ----


def test_fit_run_and_measure(tmp_path):
    good = write(tmp_path / "train", GOOD)
    content, _ = network()
    (tmp_path / "maps.onnx").write_bytes(content)
    fitted = spec_with("inspect_fit", good=good, inspector=tmp_path / "p.inspector", model=tmp_path / "maps.onnx", rate=0.05,
                       threads=1, patches=1500, memory=300, folds=3, synthetic_defects=60)  # fmt: skip
    summary = fit_file(fitted)
    assert summary["images"] == 24 and summary["alarm"]["images"] == 24 and summary["bytes"] > 1000
    with pytest.raises(RunError, match="exists"):
        fit_file(fitted)
    test = tmp_path / "test"
    write(test / "good", [part(600 + n) for n in range(4)])
    places = [(30, 40), (50, 10), (20, 25)]
    write(test / "scratch", [part(700 + n, place) for n, place in enumerate(places)], "{:02d}.jpg")
    for n, (y, x) in enumerate(places):
        mask = np.zeros((64, 64), np.uint8)
        mask[y : y + 5, x : x + 12] = 255
        write(tmp_path / "masks" / "scratch", [mask], f"{n:02d}_mask.png")
    (test / "scratch" / "broken.png").write_bytes(b"x")
    options = {"inspector": tmp_path / "p.inspector", "results_dir": tmp_path / "out"}
    result = run(spec_with("inspect_run", images=[test], truth=tmp_path / "masks", overlays="all", **options))
    assert result["images"] == 7 and len(result["unreadable"]) == 1
    measured = result["measured"]
    assert measured["image_auroc"] == 1.0 and measured["masks"] == 3 and measured["pixel_auroc"] > 0.9
    assert measured["by_kind"] == {"scratch": 1.0} and 0 < measured["pro"] <= 1 and measured["found"]["value"] == 1.0
    saved = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [len(answer["spots"]) > 0 for answer in saved["answers"]].count(True) >= 3
    page = (tmp_path / "out" / "report.html").read_text()
    assert (
        "image AUROC" in page and page.count("data:image/jpeg") == 14 and "http" not in page.replace("http-equiv", "")
    )
    overlay = Image.open(tmp_path / "out" / saved["answers"][-1]["overlay"])
    assert overlay.size == (64, 64)
    with pytest.raises(RunError, match="not empty"):
        run(spec_with("inspect_run", images=[test], **options))
    with pytest.raises(DataError, match="some of both"):
        run(spec_with("inspect_run", inspector=tmp_path / "p.inspector", images=[test / "good"], good="good"))


def test_masks_beside_the_images_are_not_inspected(tmp_path):
    from unalike.actions.inspect import images_of

    write(tmp_path / "set" / "bad", [part(1)], "{:02d}.jpg")
    write(tmp_path / "set" / "bad", [part(1)[..., 0]], "{:02d}.png")
    result = images_of([tmp_path / "set"], Truth("good", tmp_path / "set"))
    assert [path[-6:] for path in result] == ["00.jpg"]


def test_the_public_name():
    assert unalike.Inspector is Inspector


def test_a_run_without_a_defective_image_writes_its_folder(inspector, tmp_path):
    inspector.save(tmp_path / "p.inspector")
    Image.fromarray(GOOD[0]).save(tmp_path / "good.png")
    options = {"inspector": tmp_path / "p.inspector", "images": [tmp_path / "good.png"]}
    summary = run(spec_with("inspect_run", results_dir=tmp_path / "out", overlays="none", **options))
    assert json.loads((tmp_path / "out" / "result.json").read_text())["images"] == summary["images"] == 1
    with pytest.raises(RunError, match="is a file"):
        run(spec_with("inspect_run", results_dir=tmp_path / "good.png", **options))
