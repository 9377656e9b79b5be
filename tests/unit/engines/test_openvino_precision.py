"""Which layers are computed in bfloat16, and that no vector strays for it: graphs are looked at on any machine, what
OpenVINO computes only on one that has it."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from unalike.deploy.onnx_graph import write_facts
from unalike.deploy.quantization.accuracy_table import cosines
from unalike.deploy.quantization.activation_ranges import CalibrationImages
from unalike.deploy.quantization.half_precision import convert_precision, emulate_bf16
from unalike.deploy.quantization.mixed_precision import QuantizationRequest, quantize_network
from unalike.engines.metadata import NetworkFacts
from unalike.engines.onnx_engine import OnnxEngine
from unalike.engines.openvino_engine import OpenVinoEngine, has_fast_bf16, import_openvino
from unalike.engines.openvino_precision import EARLY_SHARE, lower_late_layers
from unalike.engines.torch_engine import TorchEngine

openvino = import_openvino()
from unalike.errors import DeviceError

LAYERS, SIDE = 10, 16
FACTS = NetworkFacts(mean=(0.5,) * 3, std=(0.25,) * 3, dim=8)


def chain(depthwise=True, delicate=False):
    """Ten convolutions, an addition that reaches over three of them, a mean over the positions; with ``depthwise`` the
    third has a channel a group. ``delicate``: the first adds 4,000, the fourth takes it off again, and all but the first
    pass on what they read, so that what lies between does not bear 8 bits."""
    draws = np.random.default_rng(0)
    nodes, constants, name = [], [], "input"
    for number in range(LAYERS):
        groups = 8 if depthwise and number == 2 else 1
        weight = draws.normal(0, 0.35, (8, 3 if number == 0 else 8 // groups, 3, 3)).astype(np.float32)
        bias = np.zeros(8, np.float32)
        if delicate and number:
            weight[:] = 0
            weight[np.arange(8), 0 if groups > 1 else np.arange(8), 1, 1] = 1
        if delicate and number in (0, 3):
            bias += 4000 if number == 0 else -4000
        constants.append(numpy_helper.from_array(weight, f"w{number}"))
        inputs, output = [name, f"w{number}"], [f"c{number}"]
        if delicate:
            constants.append(numpy_helper.from_array(bias, f"b{number}"))
            inputs.append(f"b{number}")
        nodes.append(helper.make_node("Conv", inputs, output, f"conv{number}", pads=[1] * 4, group=groups))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"], f"relu{number}"))
        name = f"r{number}"
        if number == 7:
            nodes.append(helper.make_node("Add", [name, "r4"], ["sum"], "add"))
            name = "sum"
    nodes.append(helper.make_node("ReduceMean", [name], ["fc_pred"], "mean", axes=[2, 3], keepdims=0))
    graph = helper.make_graph(
        nodes, "chain", [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("fc_pred", TensorProto.FLOAT, ["batch", 8])], constants,
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    write_facts(proto, FACTS)
    onnx.checker.check_model(proto)
    return proto


def images(count=12):
    draws = np.random.default_rng(1)
    return (draws.integers(0, 256, (count, 1, 1, 3)) + draws.integers(-60, 60, (count, SIDE, SIDE, 3))).clip(
        0, 255).astype(np.uint8)  # fmt: skip


def test_the_early_layers_and_what_sums_stay_in_float32():
    graph = openvino.Core().read_model(model=chain().SerializeToString(), weights=b"")
    types = {
        part.get_friendly_name()
        if "Convolution" in part.get_type_name()
        else part.get_type_name(): part.get_output_element_type(0).to_string()
        for part in lower_late_layers(graph, openvino).get_ordered_ops()
        if part.get_type_name() in ("Convolution", "GroupConvolution", "Add", "ReduceMean")
    }
    early = int(EARLY_SHARE * LAYERS)
    assert [types[f"conv{number}"] for number in range(LAYERS)] == ["f32"] * early + ["bf16"] * (LAYERS - early)
    assert types["Add"] == "bf16" and types["ReduceMean"] == "f32"
    assert graph.output(0).get_element_type().to_string() == "f32"


def test_a_lowered_graph_computes_the_network():
    exact = OpenVinoEngine(chain().SerializeToString(), precision="fp32")(images())
    graph = lower_late_layers(openvino.Core().read_model(model=chain().SerializeToString(), weights=b""), openvino)
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    pixels = ((images() / 255 - 0.5) / 0.25).transpose(0, 3, 1, 2).astype(np.float32)
    assert cosines(exact, compiled(pixels)[0]).min() > 0.999


def lowered(engine):
    """How many convolutions the engine computes in bfloat16."""
    parts = [part.get_rt_info() for part in engine._compiled.get_runtime_model().get_ops()]
    kinds = [p["primitiveType"].astype(str) for p in parts if p["layerType"].astype(str) == "Convolution"]
    assert len(kinds) == LAYERS
    return sum(kind.endswith("bf16") for kind in kinds)


def test_bf16_spares_the_early_layers_of_networks_that_lose_there():
    deep, dense = chain().SerializeToString(), chain(depthwise=False).SerializeToString()
    if not has_fast_bf16():
        assert OpenVinoEngine(deep).precision == OpenVinoEngine(dense).precision == "fp32"
        return
    assert OpenVinoEngine(deep).precision == OpenVinoEngine(dense).precision == "bf16"
    for precision in ("auto", "bf16"):
        assert lowered(OpenVinoEngine(deep, precision=precision)) == LAYERS - int(EARLY_SHARE * LAYERS)
        assert lowered(OpenVinoEngine(dense, precision=precision)) == LAYERS
    assert lowered(OpenVinoEngine(deep, precision="fp32")) == 0


class Chain(torch.nn.Module):
    """The network of ``chain`` in torch."""

    def __init__(self, proto):
        super().__init__()
        weights = {
            entry.name: torch.from_numpy(numpy_helper.to_array(entry).copy()) for entry in proto.graph.initializer
        }
        self.convs = torch.nn.ModuleList()
        for number in range(LAYERS):
            weight = weights[f"w{number}"]
            incoming = 3 if number == 0 else 8
            conv = torch.nn.Conv2d(incoming, 8, 3, padding=1, groups=incoming // weight.shape[1])
            conv.load_state_dict({"weight": weight, "bias": weights.get(f"b{number}", torch.zeros(8))})
            self.convs.append(conv)

    def forward(self, x):
        shortcut = None
        for number, conv in enumerate(self.convs):
            x = torch.relu(conv(x))
            shortcut = x if number == 4 else shortcut
            x = x + shortcut if number == 7 else x
        return x.float().mean((2, 3))


def bf16_engines(proto):
    """What computes the network under precision bf16 on this machine, by name."""
    engines = {"torch": TorchEngine(Chain(proto), FACTS.mean, FACTS.std, (SIDE, SIDE), precision="bf16")}
    calibration = CalibrationImages(images(), images())
    quantized = quantize_network(
        proto.SerializeToString(),
        FACTS,
        calibration,
        QuantizationRequest(data_type="BF16", most_layers=0, worst_cosine=-1),
    )
    emulated = emulate_bf16(quantized.proto)
    write_facts(emulated, FACTS)
    engines["typed ONNX"] = OnnxEngine(emulated.SerializeToString())
    if has_fast_bf16():
        engines["OpenVINO"] = OpenVinoEngine(proto.SerializeToString(), precision="bf16")
        engines["typed ONNX in OpenVINO"] = OpenVinoEngine(quantized.content)
    return engines


def test_no_vector_strays_in_bf16_though_the_early_layers_could_not_bear_it(monkeypatch):
    proto = chain(delicate=True)
    exact = OpenVinoEngine(proto.SerializeToString(), precision="fp32")(images())
    assert cosines(exact, TorchEngine(Chain(proto), FACTS.mean, FACTS.std, (SIDE, SIDE))(images())).min() > 0.99999
    for name, engine in bf16_engines(proto).items():
        cosines_N = cosines(exact, engine(images()))
        assert 0.999 <= cosines_N.min() < 1 - 1e-9, name
    for module in ("deploy.quantization.half_precision", "engines.openvino_precision", "engines.torch_engine"):
        monkeypatch.setattr(f"unalike.{module}.EARLY_SHARE", 0.0)
    for name, engine in bf16_engines(proto).items():
        assert cosines(exact, engine(images())).min() < 0.998, name


def test_a_hook_of_the_torch_engine_does_not_stay():
    module = Chain(chain())
    TorchEngine(module, FACTS.mean, FACTS.std, (SIDE, SIDE), precision="bf16")(images())
    assert not any(part._forward_pre_hooks for part in module.modules())
    assert not torch.is_autocast_enabled("cpu")


def test_a_file_written_in_bf16_is_computed_as_it_says():
    proto = chain()
    fp32_layers = {f"{kind}{number}": "fp32" for number in range(LAYERS) for kind in ("conv", "relu")} | {"add": "fp32"}
    exact = OpenVinoEngine(proto.SerializeToString(), precision="fp32")(images())
    for low, layers in {LAYERS: {}, 1: {k: v for k, v in fp32_layers.items() if k != "conv9"}}.items():
        typed = convert_precision(proto, "bf16", layers)
        write_facts(typed, NetworkFacts(mean=(0.5,) * 3, std=(0.25,) * 3, dim=8, precision="bf16"))
        engine = OpenVinoEngine(typed.SerializeToString())
        assert 0 < 1 - cosines(exact, engine(images())).mean() < 1e-5
        if not has_fast_bf16():
            continue
        assert engine.precision == "bf16" and lowered(engine) == low
        with pytest.raises(DeviceError, match="written in bf16"):
            OpenVinoEngine(typed.SerializeToString(), precision="fp32")
