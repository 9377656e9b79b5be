import sys

import numpy as np
import pytest
import torch

from tests.support import networks
from unalike.deploy import trace_cache
from unalike.errors import DeviceError, ExportError, MissingExtra
from unalike.inference import engine_selection
from unalike.inference.engine_selection import create_engine, refresh_engine


@pytest.fixture(scope="module")
def traced():
    """The unoptimized graph is traced once; every test gets a copy."""
    kept = []
    real = trace_cache.cached_trace

    def once(embedder, *args):
        if not kept:
            kept.append(real(networks.SmallEmbedder(), *args))
        proto = type(kept[0])()
        proto.CopyFrom(kept[0])
        engine_selection._swap_weights(proto, embedder)
        return proto

    trace_cache.cached_trace = once
    yield
    trace_cache.cached_trace = real


@pytest.mark.parametrize("runtime", ["auto", "openvino", "onnxruntime", "torch"])
def test_engine_and_refresh_follow_the_network(traced, runtime, capsys):
    embedder = networks.SmallEmbedder().train()
    images = networks.pictures(6)
    engine = create_engine(embedder, networks.PREPROCESSING, runtime=runtime, precision="fp32")
    assert np.abs(engine(images) - networks.plain_vectors(embedder, images)).max() < 1e-5
    newer = networks.SmallEmbedder(seed=5)
    assert np.abs(networks.plain_vectors(newer, images) - networks.plain_vectors(embedder, images)).max() > 0.1
    assert refresh_engine(engine, newer) is engine
    assert np.abs(engine(images) - networks.plain_vectors(newer, images)).max() < 1e-5
    assert engine.name == ("openvino" if runtime == "auto" else runtime)
    assert embedder.training and engine.dim == 16 and engine.describe()["precision"] == "fp32"


def test_training_in_place_reaches_a_refreshed_engine(traced):
    embedder, images = networks.SmallEmbedder(), networks.pictures(4)
    engine = create_engine(embedder, networks.PREPROCESSING, runtime="openvino", precision="fp32")
    with torch.no_grad():
        for tensor in embedder.state_dict().values():
            if tensor.dtype == torch.float32:
                tensor.mul_(1.3)
    refresh_engine(engine, embedder)
    assert np.abs(engine(images) - networks.plain_vectors(embedder, images)).max() < 1e-4


def test_a_graph_that_hides_a_weight_is_made_anew(traced, capsys):
    engine = create_engine(networks.SmallEmbedder(), networks.PREPROCESSING, runtime="onnxruntime")
    for held in engine.proto.graph.initializer:
        if held.name == "embedder.head.1.weight":
            held.name = "folded"
    for node in engine.proto.graph.node:
        for place, name in enumerate(node.input):
            if name == "embedder.head.1.weight":
                node.input[place] = "folded"
    newer, images = networks.SmallEmbedder(seed=3), networks.pictures(4)
    fresh = refresh_engine(engine, newer)
    assert fresh is not engine
    assert np.abs(fresh(images) - networks.plain_vectors(newer, images)).max() < 1e-5


def test_auto_falls_back_and_says_so(monkeypatch, capsys):
    def broken(*args, **settings):
        raise ExportError("no way")

    monkeypatch.setattr(trace_cache, "cached_trace", broken)
    monkeypatch.setattr("unalike.progress._said", set())
    engine = create_engine(networks.SmallEmbedder(), networks.PREPROCESSING)
    assert engine.name == "torch"
    said = capsys.readouterr().err
    assert "openvino is skipped" in said and "engine: torch fp32" in said
    with pytest.raises(ExportError, match="no way"):
        create_engine(networks.SmallEmbedder(), networks.PREPROCESSING, runtime="openvino")


def test_without_openvino_onnxruntime_and_by_name_an_error(traced, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert create_engine(networks.SmallEmbedder(), networks.PREPROCESSING).name == "onnxruntime"
    with pytest.raises(MissingExtra, match=r"\[openvino\]"):
        create_engine(networks.SmallEmbedder(), networks.PREPROCESSING, runtime="openvino")


def test_few_images_are_not_worth_tracing():
    assert create_engine(networks.SmallEmbedder(), networks.PREPROCESSING, images=20).name == "torch"


def test_unknown_runtime_and_impossible_precision():
    with pytest.raises(DeviceError, match="did you mean 'openvino'"):
        create_engine(networks.SmallEmbedder(), networks.PREPROCESSING, runtime="openvin")
    with pytest.raises(DeviceError, match="bf16 with onnxruntime"):
        create_engine(networks.SmallEmbedder(), networks.PREPROCESSING, runtime="onnxruntime", precision="bf16")
    with pytest.raises(DeviceError, match="fp16 on a CPU"):
        create_engine(networks.SmallEmbedder(), networks.PREPROCESSING, precision="fp16")
