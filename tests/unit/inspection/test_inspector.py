"""The inspector: learns from good parts, finds drawn scratches, keeps and loads, refuses what it should."""

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
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.errors import DataError, ModelError, RunError, SpecError, UnreadableImage
from unalike.inference.feature_map_model import FeatureMapModel, engine_from_onnx
from unalike.inspection.anomaly_model import Recipe
from unalike.inspection.inspector import Inspector

SIZE = (64, 64)
PREPROCESSING = Preprocessing(View(*SIZE, 1.0), (0.5,) * 3, (0.25,) * 3)
RECIPE = Recipe(patches=1500, memory=300, folds=3, flaws=60)


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
def learnt():
    return Inspector.fit(GOOD, model=opened(), rate=0.05, recipe=RECIPE)


def write(folder, images, name="{:02d}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / name.format(number))
    return folder


def test_it_finds_the_scratch_and_where_it_is(learnt):
    assert learnt.alarm.images == 24 and learnt.alarm.expected == pytest.approx(1 / 25)
    for seed, place in ((100, (30, 40)), (101, (50, 10)), (102, (20, 25))):
        found = learnt.inspect(part(seed, place))
        left, top, right, bottom = found.spots[0].box
        assert found.decision == "defective" and found.score > found.threshold
        assert left <= place[1] + 6 < right and top <= place[0] + 2 < bottom
        heat = found.heat()
        assert (
            heat.shape == (64, 64) and np.hypot(*(np.array(np.unravel_index(heat.argmax(), heat.shape)) - place)) < 20
        )
    fine = [learnt.inspect(part(seed)).decision for seed in range(200, 220)]
    assert fine.count("good") >= 17


def test_a_saved_one_says_the_same_in_every_engine(learnt, tmp_path):
    path = learnt.save(tmp_path / "a.inspector")
    images = [part(300), part(301, (40, 30)), part(302, (20, 44), (150, 100))]
    expected = [learnt.inspect(image) for image in images]
    in_torch = opened()
    module = Edges().eval()
    module.maps = network()[1]
    from unalike.engines.torch_engine import TorchEngine

    torch_maps = FeatureMapModel(
        TorchEngine(module, (0.5,) * 3, (0.25,) * 3, SIZE), PREPROCESSING, in_torch.maps, "edges"
    )
    again = {
        "torch": Inspector(torch_maps, learnt.sight, learnt.recipe, learnt.judge, learnt.alarm, learnt.facts),
        **{runtime: Inspector.load(path, runtime=runtime) for runtime in ("onnxruntime", "openvino")},
    }
    for name, inspector in again.items():
        for image, known in zip(images, expected, strict=True):
            found = inspector.inspect(image)
            assert found.decision == known.decision and found.score == pytest.approx(known.score, rel=1e-3), name
            assert np.abs(found.heat_hw - known.heat_hw).max() <= 2e-3 * known.heat_hw.max(), name
    with pytest.raises(ModelError, match="no ONNX file"):
        again["torch"].save(tmp_path / "b.inspector")
    assert not (tmp_path / "b.inspector").exists()


def test_it_runs_where_torch_cannot_be_imported(learnt, tmp_path):
    path = learnt.save(tmp_path / "a.inspector")
    Image.fromarray(part(5, (30, 30))).save(tmp_path / "x.png")
    program = (
        "import sys; sys.modules['torch'] = sys.modules['sklearn'] = sys.modules['cv2'] = None\n"
        "from unalike import Inspector\n"
        f"found = Inspector.load({str(path)!r}, runtime='onnxruntime').inspect({str(tmp_path / 'x.png')!r})\n"
        "print(found.decision)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "defective", done.stderr[-2000:]


def test_no_image_is_judged_by_a_memory_that_holds_it():
    """Every good image is of its own kind: by the others it is strange, by its own memory it would not be."""
    images = [np.full((64, 64, 3), 20 * number + 20, np.uint8) for number in range(10)]
    recipe = Recipe(patches=600, memory=600, folds=5, whiten=0.0, smooth=0.0, border=0.0, flaws=0)
    made = Inspector.fit(images, model=opened(), rate=0.5, recipe=recipe)
    own = [made.inspect(image).score for image in images]
    assert max(own) < 0.05 * min(made.facts["good_scores"])


def test_a_part_photographed_twice_does_not_vouch_for_itself():
    """Ten kinds, each twice: the twin in another fold makes every image look usual, unless it is told that it is one."""
    images = [np.full((64, 64, 3), 20 * (number // 2) + 20, np.uint8) for number in range(20)]
    recipe = Recipe(patches=1200, memory=1200, folds=5, whiten=0.0, smooth=0.0, border=0.0, flaws=0)
    blind = Inspector.fit(images, model=opened(), rate=0.5, recipe=recipe)
    told = Inspector.fit(images, model=opened(), rate=0.5, recipe=recipe, parts=[number // 2 for number in range(20)])
    assert np.median(blind.facts["good_scores"]) < 0.05 * min(told.facts["good_scores"])
    assert told.alarm.parts == 10 and blind.alarm.parts == 0
    with pytest.raises(DataError, match="one part"):
        Inspector.fit(images, model=opened(), rate=0.5, recipe=recipe, parts=["a"] * 20)


def test_tiles_of_a_large_image_and_one_smaller_than_the_network(learnt):
    large = part(400, (70, 150), (130, 210))
    found = learnt.inspect(large)
    assert found.size == (130, 210) and found.heat().shape == (130, 210)
    assert learnt.inspect(part(401, None, (40, 20))).heat().shape == (40, 20)


def test_one_channel_is_three_and_other_arrays_are_refused(learnt):
    image = part(7, (30, 30))
    assert learnt.inspect(image[..., 0]).score == learnt.inspect(image).score
    assert learnt.inspect(Image.fromarray(image[..., 0])).score == learnt.inspect(image).score
    with pytest.raises(DataError, match="uint8"):
        learnt.inspect(image.astype(np.float32))


def test_a_fixture_knows_where_things_belong():
    """A second hole elsewhere is made of good patches in the wrong place."""
    wrong = part(50)
    wrong[40:48, 40:48] = 30
    shares = {}
    for fixture in (0.0, 0.05):
        recipe = Recipe(patches=3000, memory=900, folds=3, fixture=fixture, local=0.0, smooth=0.0, flaws=0)
        heat = Inspector.fit(GOOD, model=opened(), rate=None, recipe=recipe).inspect(wrong).heat_hw
        shares[fixture] = heat[10:12, 10:12].max() / heat[1:4, 1:4].max()  # the wrong place, beside the right one
    assert shares[0.05] > 1.5 and shares[0.05] > 1.3 * shares[0.0]


def test_defects_with_masks_teach_and_are_counted(tmp_path, capsys):
    places = [(30, 40), (50, 10), (20, 25), (40, 44), (28, 12), (52, 30)]
    folder = write(tmp_path / "bad", [part(500 + n, place) for n, place in enumerate(places)])
    masks = []
    for y, x in places:
        mask = np.zeros((64, 64), np.uint8)
        mask[y : y + 5, x : x + 12] = 255
        masks.append(mask)
    write(tmp_path / "masks", masks, "{:02d}_mask.png")
    made = Inspector.fit(GOOD, model=opened(), rate=0.05, recipe=RECIPE, defects=folder, masks=tmp_path / "masks")
    assert made.alarm.defects == 6 and made.alarm.found == 1.0 and made.alarm.auroc == 1.0
    assert "6 defective images: AUROC" in capsys.readouterr().err
    assert made.facts["taught"] is False  # nothing to win: it is perfect without
    write(tmp_path / "masks", [np.zeros((10, 10), np.uint8)], "00_mask.png")
    with pytest.raises(DataError, match="10 x 10"):
        Inspector.fit(GOOD, model=opened(), rate=0.05, recipe=RECIPE, defects=folder, masks=tmp_path / "masks")


# ---- mistakes ----


def test_too_few_images_and_a_rate_out_of_reach():
    with pytest.raises(DataError, match="1 good image; expected at least 2"):
        Inspector.fit(GOOD[:1], model=opened())
    with pytest.raises(DataError, match="24 good images cannot support 0.01"):
        Inspector.fit(GOOD, model=opened(), rate=0.01)
    made = Inspector.fit(GOOD[:2], model=opened(), rate=None, recipe=RECIPE)
    assert made.alarm is None and made.inspect(part(1, (30, 30))).decision == "undecided"


def test_empty_and_corrupt_files(tmp_path, capsys):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError):
        Inspector.fit(tmp_path / "none", model=opened())
    folder = write(tmp_path / "good", GOOD[:20])
    (folder / "99.png").write_bytes(b"no picture")
    made = Inspector.fit(folder, model=opened(), rate=0.1, recipe=RECIPE)
    assert made.alarm.images == 20 and made.facts["unreadable"] == 1
    assert "1 unreadable images were passed over" in capsys.readouterr().err
    with pytest.raises(UnreadableImage):
        made.inspect(folder / "99.png")
    (folder / "98.png").write_bytes(b"no picture either")
    with pytest.raises(DataError, match="cannot be read"):
        Inspector.fit(folder, model=opened(), rate=0.1, recipe=RECIPE)


def test_other_files_are_no_inspectors(learnt, tmp_path):
    path = learnt.save(tmp_path / "a.inspector")
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


def test_a_newer_format_is_refused(learnt, tmp_path, monkeypatch):
    monkeypatch.setattr("unalike.inspection.inspector.FORMAT_VERSION", 4)
    path = learnt.save(tmp_path / "a.inspector")
    monkeypatch.undo()
    with pytest.raises(DataError, match="inspector version 4.*newer"):
        Inspector.load(path)


def test_recipes_that_make_no_sense():
    for wrong in ({"memory": 0}, {"patches": 10}, {"whiten": 2.0}, {"folds": 1}, {"smooth": -1.0}, {"border": -1.0}):
        with pytest.raises(SpecError):
            Recipe(**wrong)


# ---- the commands' work ----


def test_fit_run_and_the_truth(tmp_path):
    good = write(tmp_path / "train", GOOD)
    content, _ = network()
    (tmp_path / "maps.onnx").write_bytes(content)
    told = fit_file(good, tmp_path / "p.inspector", model=tmp_path / "maps.onnx", rate=0.05, recipe=RECIPE, threads=1)
    assert told["images"] == 24 and told["alarm"]["images"] == 24 and told["bytes"] > 1000
    with pytest.raises(RunError, match="exists"):
        fit_file(good, tmp_path / "p.inspector", model=tmp_path / "maps.onnx")
    test = tmp_path / "test"
    write(test / "good", [part(600 + n) for n in range(4)])
    places = [(30, 40), (50, 10), (20, 25)]
    write(test / "scratch", [part(700 + n, place) for n, place in enumerate(places)], "{:02d}.jpg")
    for n, (y, x) in enumerate(places):
        mask = np.zeros((64, 64), np.uint8)
        mask[y : y + 5, x : x + 12] = 255
        write(tmp_path / "masks" / "scratch", [mask], f"{n:02d}_mask.png")
    (test / "scratch" / "broken.png").write_bytes(b"x")
    result = run(
        tmp_path / "p.inspector", [test], tmp_path / "out", truth=Truth("good", tmp_path / "masks"), overlays="all"
    )
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
        run(tmp_path / "p.inspector", [test], tmp_path / "out")
    with pytest.raises(DataError, match="some of both"):
        run(tmp_path / "p.inspector", [test / "good"], truth=Truth("good"))


def test_masks_beside_the_images_are_not_inspected(tmp_path):
    from unalike.actions.inspect import images_of

    write(tmp_path / "set" / "bad", [part(1)], "{:02d}.jpg")
    write(tmp_path / "set" / "bad", [part(1)[..., 0]], "{:02d}.png")
    found = images_of([tmp_path / "set"], Truth("good", tmp_path / "set"))
    assert [path[-6:] for path in found] == ["00.jpg"]


def test_the_face_of_the_package():
    assert unalike.Inspector is Inspector


def test_a_run_without_a_defective_image_leaves_its_folder_too(learnt, tmp_path):
    learnt.save(tmp_path / "p.inspector")
    Image.fromarray(GOOD[0]).save(tmp_path / "good.png")
    told = run(tmp_path / "p.inspector", [tmp_path / "good.png"], tmp_path / "out", overlays="none")
    assert json.loads((tmp_path / "out" / "result.json").read_text())["images"] == told["images"] == 1
    with pytest.raises(RunError, match="is a file"):
        run(tmp_path / "p.inspector", [tmp_path / "good.png"], tmp_path / "good.png")
