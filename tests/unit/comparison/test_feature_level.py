"""Comparing by features: windows without seams, both levels together, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.drawings import as_jpeg, shapes
from tests.support.inspected_parts import map_network
from unalike.cli import run_command
from unalike.comparison.comparer import Comparer
from unalike.errors import ModelError, SpecError
from unalike.inference.feature_map_model import load_feature_maps

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "maps.onnx"
    path.write_bytes(map_network()[0])
    return path


@pytest.fixture(scope="module")
def comparer(model: Path) -> Comparer:
    return Comparer(level="both", model=model, runtime="onnxruntime", threads=1)


def test_a_change_is_found_where_it_is_whatever_the_window(comparer: Comparer) -> None:
    reference = shapes(3, 200, 230)
    assert comparer.features is not None and len(comparer.features.windows((200, 230))) == 20
    for y, x in ((20, 20), (58, 60), (90, 100), (150, 180)):
        image = reference.copy()
        image[y : y + 24, x : x + 24] = np.random.default_rng(1).integers(0, 2, (24, 24, 1)) * 255
        found = comparer.compare(reference, image)
        assert found.features is not None and found.heat_hw is not None and found.level == "both"
        peak = np.unravel_index(found.features.heat_hw.argmax(), found.features.heat_hw.shape)
        assert y - 4 <= peak[0] * 4 + 2 <= y + 28 and x - 4 <= peak[1] * 4 + 2 <= x + 28
        far = found.features.heat_hw.copy()
        far[(y - 28) // 4 if y > 28 else 0 : (y + 52) // 4, (x - 28) // 4 if x > 28 else 0 : (x + 52) // 4] = 0
        assert far.max() < 1e-3, "a window's border shows"


def test_levels_have_their_own_answers(comparer: Comparer, model: Path) -> None:
    same = comparer.compare(shapes(1), shapes(1))
    assert same.same and same.features is not None and not same.features.heat_hw.any()
    assert same.heat_map("features").size == same.heat_map("pixels").size == (320, 240)
    assert Comparer(level="features", model=model).compare(shapes(1), as_jpeg(shapes(1), 60)).same
    alone = Comparer().compare(shapes(1), as_jpeg(shapes(1)))
    assert alone.level == "pixels" and alone.to_dict()["features"] is None
    with pytest.raises(SpecError, match="level='both'"):
        alone.heat_map("features")
    grey = Comparer(level="features", model=model).compare(shapes(1)[..., 0], as_jpeg(shapes(1)[..., 0]))
    assert grey.level == "features" and grey.heat_hw is None and grey.to_dict()["threshold"] is None
    with pytest.raises(SpecError, match="leave the model out"):
        Comparer(model=model)
    with pytest.raises(SpecError, match="features"):
        Comparer(level="feature")


def test_the_image_beyond_the_reference_is_not_compared(comparer: Comparer) -> None:
    reference = shapes(10, 240, 320)
    found = comparer.compare(np.ascontiguousarray(reference[30:210, 40:280]), reference)
    assert found.features is not None and 0.4 < found.features.known_hw.mean() < 0.6
    assert not found.features.heat_hw[~found.features.known_hw].any()


def test_the_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference, image = tmp_path / "a.png", tmp_path / "b.png"
    pixels = shapes(3)
    Image.fromarray(pixels).save(reference)
    pixels[100:140, 150:190] = np.random.default_rng(1).integers(0, 2, (40, 40, 1)) * 255
    Image.fromarray(pixels).save(image)
    words = ["compare", str(reference), str(image), "-m", str(model), "--json", "-o", str(tmp_path / "out")]
    assert run_command([*words, "--level", "both"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["pairs"]
    assert entry["level"] == "both" and entry["features"]["network"] == "edges" and entry["features"]["highest"] > 0.1
    assert set(entry["pictures"]) == {"reference", "boxes", "overlay", "heat", "heat_features"}
    assert Image.open(entry["pictures"]["heat_features"]).size == (320, 240)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "heat: pixels" in page and "heat: features" in page
    for wrong, message in (
        (["--level", "feature"], "did you mean 'features'"),
        (["--level", "pixels"], "leave the model out"),
    ):
        assert run_command([*words, "--overwrite", *wrong]) == 2
        assert message in capsys.readouterr().err


def test_a_network_without_maps_is_refused(tmp_path: Path) -> None:
    from tests.support.networks import write_model

    with pytest.raises(ModelError, match="export-maps"):
        Comparer(level="features", model=write_model(tmp_path))


def test_a_network_that_is_loaded_already_is_used_as_it_is(comparer: Comparer, model: Path) -> None:
    network = load_feature_maps(model, vector=False, runtime="onnxruntime", threads=1)
    own = Comparer(level="both", model=network)
    assert own.features is not None and own.features.engine is network.engine
    pair = shapes(1), shapes(1)
    pair[1][20:60, 30:70] = 255 - pair[1][20:60, 30:70]
    first, second = own.compare(*pair), comparer.compare(*pair)
    assert [region.box for region in first.regions] == [region.box for region in second.regions] and first.regions
    with pytest.raises(SpecError, match=r"a model \(.*maps.onnx\) to compare pixels"):
        Comparer(model=network)
