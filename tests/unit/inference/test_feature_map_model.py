"""Feature maps: the same from torch, ONNX Runtime and OpenVINO, at any size; chosen by stride or name."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from tests.support import networks
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.deploy.feature_map_export import check_map_parity, export_maps, trace_feature_maps
from unalike.engines.metadata import MapFacts, read_facts
from unalike.engines.onnx_engine import OnnxEngine
from unalike.engines.openvino_engine import OpenVinoEngine, has_fast_bf16
from unalike.engines.protocol import MapEngine
from unalike.engines.torch_engine import TorchEngine
from unalike.errors import DataError, ExportError, ModelError, RunError
from unalike.inference.feature_map_model import export_feature_maps, load_feature_maps
from unalike.inference.loaded_model import load_model
from unalike.model.backbones import build_trunk
from unalike.model.checkpoint import write_checkpoint
from unalike.model.embedder import Embedder
from unalike.model.feature_maps import FeatureMapNetwork, list_feature_maps, select_feature_maps
from unalike.model.frozen_trunk import FrozenTrunk

SIZE = (96, 64)  # never square
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
PREPROCESSING = Preprocessing(View(*SIZE, 1.0), MEAN, STD)


def network(trunk="test_efficientnet", dim=12, size=SIZE):
    torch.manual_seed(0)
    made = Embedder(build_trunk(trunk, pretrained="false", input_size=size), dim).eval()
    for part in made.modules():  # running figures that matter
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return made


@functools.cache
def exported(vector=True):
    mapped = FeatureMapNetwork(network(), SIZE, vector=vector)
    return trace_feature_maps(mapped, PREPROCESSING, trunk="test_efficientnet")[0].SerializeToString()


def hooked(embedder, places, images):
    """The oracle: forward hooks on the named modules while the whole network runs, one image at a time, in double."""
    embedder = embedder.double()
    found = {name: [] for name in places}
    modules = dict(embedder.trunk.net.named_modules())
    hooks = [
        modules[name].register_forward_hook(lambda _, __, out, name=name: found[name].append(out[0].numpy()))
        for name in places
    ]
    vectors = []
    with torch.no_grad():
        for image in images:
            pixels = (image.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)
            vectors.append(embedder(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()))[0].numpy())
    for hook in hooks:
        hook.remove()
    return np.stack(vectors), [np.stack(found[name]) for name in places]


def engines():
    return [
        TorchEngine(FeatureMapNetwork(network(), SIZE), MEAN, STD, SIZE),
        OnnxEngine(exported()),
        OpenVinoEngine(exported(), precision="fp32"),
    ]


@pytest.mark.parametrize("number", range(3))
def test_maps_and_vectors_equal_the_slow_oracle(number):
    engine = engines()[number]
    images = networks.pictures(5, size=SIZE)
    vectors, expected = hooked(network(), ["blocks.2", "blocks.3"], images)
    maps = engine.maps(images)
    assert isinstance(engine, MapEngine)
    assert [fact.name for fact in engine.map_facts] == ["blocks.2", "blocks.3"]
    assert [found.shape[1:] for found in maps] == [(f.channels, f.height, f.width) for f in engine.map_facts]
    assert [(SIZE[0] // f.stride, SIZE[1] // f.stride) for f in engine.map_facts] == [m.shape[2:] for m in maps]
    for found, oracle in zip(maps, expected, strict=True):
        assert found.dtype == np.float32 and np.abs(found - oracle).max() <= 2e-5 * np.abs(oracle).max()
    assert np.abs(engine(images) - vectors).max() <= 2e-5 * np.abs(vectors).max()
    both = engine.vectors_and_maps(images)
    assert np.array_equal(both[0], engine(images))
    assert all(np.array_equal(a, b) for a, b in zip(both[1], maps, strict=True))


@pytest.mark.parametrize("number", range(3))
def test_grouping_and_no_images(number):
    engine = engines()[number]
    images = networks.pictures(19, size=SIZE)
    whole = engine.maps(images)
    parts = [engine.maps(images[:1]), engine.maps(images[1:8]), engine.maps(images[8:])]
    for place, found in enumerate(whole):
        again = np.concatenate([part[place] for part in parts])
        assert np.abs(found - again).max() <= 1e-5 * np.abs(found).max()
    assert [m.shape for m in engine.maps(images[:0])] == [(0, *m.shape[1:]) for m in whole]


@pytest.mark.skipif(not has_fast_bf16(), reason="this CPU does not compute in bfloat16")
def test_bf16_stays_near():
    images = networks.pictures(6, size=SIZE)
    exact = OnnxEngine(exported()).maps(images)
    for found, expected in zip(OpenVinoEngine(exported(), precision="bf16").maps(images), exact, strict=True):
        a, b = found.reshape(6, -1).astype(float), expected.reshape(6, -1).astype(float)
        assert ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min() >= 0.999


def test_maps_alone_leave_the_top_out_and_say_so():
    images = networks.pictures(3, size=SIZE)
    full = OnnxEngine(exported())
    assert len(exported(vector=False)) < 0.7 * len(exported())
    for engine in (
        OnnxEngine(exported(vector=False)),
        OpenVinoEngine(exported(vector=False), precision="fp32"),
        TorchEngine(FeatureMapNetwork(network(), SIZE, vector=False), MEAN, STD, SIZE),
    ):
        assert engine.dim == 0
        for found, expected in zip(engine.maps(images), full.maps(images), strict=True):
            assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
        with pytest.raises(ModelError, match="maps alone"):
            engine(images)
        with pytest.raises(ModelError, match="maps alone"):
            engine.vectors_and_maps(images)


def test_a_network_without_maps_says_how_to_get_one():
    plain = networks.exported_bytes()
    for engine in (OnnxEngine(plain), OpenVinoEngine(plain, precision="fp32")):
        assert engine.map_facts == ()
        with pytest.raises(ModelError, match="export-maps"):
            engine.maps(networks.pictures(1))


def test_wrong_images_are_refused():
    for engine in engines():
        with pytest.raises(DataError, match="96, 64"):
            engine.maps(networks.pictures(1, size=(64, 96)))


def test_metadata_tells_the_maps():
    facts = OnnxEngine(exported()).facts
    assert facts.maps[0] == MapFacts("blocks.2", 8, 32, 12, 8)
    assert read_facts(facts.to_json(), "a", None, None) == facts


def test_places_by_stride_and_name_and_the_mistakes():
    trunk = build_trunk("test_efficientnet", pretrained="false", input_size=SIZE)
    assert [place[1] for place in list_feature_maps(trunk)] == [2, 4, 8, 16, 32]
    assert select_feature_maps(trunk) == [2, 3]
    assert select_feature_maps(trunk, "middle") == [3]
    assert select_feature_maps(trunk, [16, "blocks.0"]) == [3, 0]
    vit = build_trunk("test_vit", pretrained="false", input_size=(160, 160))
    assert select_feature_maps(vit) == select_feature_maps(vit, "middle") == [2, 4]
    for stages, word in (
        ("top", "middle, or"),
        ([7], "stride 8"),
        (["block.2"], "did you mean"),
        ([], "at least one"),
        ([8, 8], "twice"),
    ):
        with pytest.raises(ModelError, match=word):
            select_feature_maps(trunk, stages)
    with pytest.raises(ModelError, match="gives no feature maps"):
        select_feature_maps(networks.SmallEmbedder().trunk)


def test_the_order_is_the_one_asked_for():
    mapped = FeatureMapNetwork(network(), SIZE, [16, 4], vector=False)
    assert [fact.stride for fact in mapped.maps] == [16, 4]
    first, second = TorchEngine(mapped, MEAN, STD, SIZE).maps(networks.pictures(1, size=SIZE))
    assert first.shape[2:] == (6, 4) and second.shape[2:] == (24, 16)


@pytest.mark.slow
@pytest.mark.parametrize("trunk,size", [("test_vit", (160, 160)), ("test_resnet", (96, 64))])
def test_other_families(trunk, size):
    torch.manual_seed(0)
    made = FrozenTrunk(build_trunk(trunk, pretrained="false", input_size=size))
    mapped = FeatureMapNetwork(made, size)
    content = trace_feature_maps(mapped, Preprocessing(View(*size, 1.0), MEAN, STD))[0].SerializeToString()
    images = networks.pictures(2, size=size)
    expected = TorchEngine(mapped, MEAN, STD, size)
    assert np.allclose(expected(images), TorchEngine(made, MEAN, STD, size)(images), atol=1e-5)
    for engine in (OnnxEngine(content), OpenVinoEngine(content, precision="fp32")):
        for a, b in zip(engine.maps(images), expected.maps(images), strict=True):
            assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max()


def test_the_file_is_proved_and_not_left_when_it_differs(tmp_path):
    mapped = FeatureMapNetwork(network(), SIZE, [4], vector=False)
    parity = export_maps(mapped, tmp_path / "m.onnx", PREPROCESSING)
    assert parity.worst_cosine > 0.99999 and parity.largest_share < 1e-4
    other = network()
    with torch.no_grad():
        next(other.trunk.parameters()).mul_(1.01)
    with pytest.raises(ExportError, match="differ"):
        check_map_parity(
            FeatureMapNetwork(other, SIZE, [4], vector=False),
            tmp_path / "m.onnx",
            OnnxEngine(tmp_path / "m.onnx").facts,
            None,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def a_checkpoint(folder):
    made = network()
    model = {
        "backbone": "test_efficientnet", "feat_dim": 12, "input_channels": 3, "input_height": 96, "input_width": 64,
    }  # fmt: skip
    facts = {"mean": list(MEAN), "std": list(STD), "view": View(96, 64, 1.14, "fit").to_dict(), "trunk": "x"}
    payload = {"model": made.state_dict(), "spec": {"model": model}, "classes": [], "facts": facts}
    return write_checkpoint(folder / "m.pth", payload)


def test_a_checkpoint_is_opened_in_torch_and_on_the_fly_and_written(tmp_path):
    path = a_checkpoint(tmp_path)
    in_torch = load_feature_maps(path, runtime="torch")
    live = load_feature_maps(path, runtime="onnxruntime")
    assert in_torch.view == View(96, 64, 1.0, "fit") and live.content is not None
    told = export_feature_maps(path, tmp_path / "maps.onnx", size=(128, 96), stages=[4, 16], vector=False)
    assert [entry["height"] for entry in told["maps"]] == [32, 8] and told["dim"] == 0
    images = networks.pictures(2, size=SIZE)
    for a, b in zip(in_torch.engine.maps(images), live.engine.maps(images), strict=True):
        assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max()
    filed = load_feature_maps(tmp_path / "maps.onnx", size=(128, 96), stages=[4, 16], vector=False, precision="fp32")
    assert filed.view == View(128, 96, 1.0, "fit") and filed.content == (tmp_path / "maps.onnx").read_bytes()
    bigger = load_feature_maps(path, size=(128, 96), stages=[4, 16], vector=False, runtime="torch")
    images = networks.pictures(2, size=(128, 96))
    for a, b in zip(filed.engine.maps(images), bigger.engine.maps(images), strict=True):
        assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max()
    for wrong, word in (
        ({"size": (96, 96)}, "export it at"),
        ({"stages": [8, 16]}, "these stages"),
        ({}, "maps alone"),
    ):
        with pytest.raises(ModelError, match=word):
            load_feature_maps(tmp_path / "maps.onnx", **wrong)
    with pytest.raises(RunError, match="exists"):
        export_feature_maps(path, tmp_path / "maps.onnx")
    with pytest.raises(ModelError, match="exported already"):
        export_feature_maps(tmp_path / "maps.onnx", tmp_path / "again.onnx")
    # and a network with a vector is still a recognizer's
    (tmp_path / "both.onnx").write_bytes(live.content)
    assert load_model(tmp_path / "both.onnx", precision="fp32").engine.dim == 12


def test_a_size_that_a_network_does_not_take_is_one_line():
    with pytest.raises(ModelError, match="8 x 8"):
        made = FrozenTrunk(build_trunk("test_vit", pretrained="false", input_size=(160, 160)))
        FeatureMapNetwork(made, (8, 8))
