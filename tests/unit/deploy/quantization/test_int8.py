"""INT8 by calibration, FP16 and BF16 by typing: graphs, ranges, the choice of layers, and what is written."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import unalike
from tests.support import networks
from unalike.data.view import View
from unalike.deploy import onnx_graph as graphs
from unalike.deploy.quantization.accuracy_table import cosines
from unalike.deploy.quantization.activation_ranges import (
    RangeSettings,
    measure_ranges,
    read_ranges,
    sample_calibration_images,
    write_ranges,
)
from unalike.deploy.quantization.bias_correction import correct_biases
from unalike.deploy.quantization.half_precision import convert_precision, emulate_bf16
from unalike.deploy.quantization.int8 import QuantizationOptions, finalize_graph, quantize_by_ranges
from unalike.deploy.quantization.mixed_precision import QuantizationRequest, open_engine, quantize_network
from unalike.deploy.quantization.sensitivity import CandidateAccuracy, choose_layers
from unalike.engines.metadata import file_key
from unalike.engines.normalization import network_input
from unalike.engines.onnx_engine import OnnxEngine, import_onnxruntime
from unalike.engines.openvino_engine import OpenVinoEngine
from unalike.errors import DataError, DeviceError, ExportError, SpecError
from unalike.inference.loaded_model import load_model
from unalike.recognition.recognizer import Recogniser

onnxruntime = import_onnxruntime()


def network():
    proto = graphs.read_network(networks.exported_bytes(), "small")
    return proto.SerializeToString(), proto, graphs.read_graph_facts(proto, "small", None, None)


@pytest.fixture(scope="module")
def images():
    """Pictures with structure: noise alone gives every image the same vector."""
    draws = np.random.default_rng(3)
    coarse = draws.integers(0, 256, (24, 6, 4, 3), dtype=np.uint8)
    return np.stack([np.array(Image.fromarray(part).resize(networks.SIZE[::-1])) for part in coarse])


@pytest.fixture(scope="module")
def ranges(images):
    content, _, facts = network()
    return measure_ranges(content, facts, images, RangeSettings("m", "i"), batch=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, images):
    root = tmp_path_factory.mktemp("pictures")
    for number, image in enumerate(images):
        class_folder = root / f"class{number % 4}"
        class_folder.mkdir(exist_ok=True)
        Image.fromarray(image).resize((70, 90)).save(class_folder / f"{number:02}.png")
    return root


def test_ranges_are_those_of_every_image_and_d31_of_every_row(images, ranges):
    """TAO normalised three rows of pixels only; the oracle looks at all of them, through the one normalisation."""
    content, proto, facts = network()
    pixels = network_input(images, facts)
    oracle = (images.astype(np.float64) / 255 - np.array(networks.MEAN)) / np.array(networks.STD)
    assert np.allclose(pixels, oracle.transpose(0, 3, 1, 2), atol=1e-6)
    low, high = ranges[proto.graph.input[0].name]
    assert (low, high) == (pytest.approx(oracle.min(), abs=1e-5), pytest.approx(oracle.max(), abs=1e-5))
    vectors = OnnxEngine(content)(images)
    low, high = ranges[proto.graph.output[0].name]
    assert (low, high) == (pytest.approx(vectors.min(), abs=1e-4), pytest.approx(vectors.max(), abs=1e-4))


def test_d31_calibration_sees_images_through_the_evaluation_view(folder):
    paths = sorted(folder.rglob("*.png"))
    view = View(*networks.SIZE, resize_ratio=1.3)
    sample = sample_calibration_images(paths, view, count=6, validation_count=4, seed=5)
    order = np.random.default_rng(5).permutation(len(paths))
    assert np.array_equal(sample.calibration_NHWC, np.stack([view(paths[i]) for i in order[:6]]))
    assert np.array_equal(sample.validation_NHWC, np.stack([view(paths[i]) for i in order[6:10]]))
    assert sample_calibration_images(paths, view, count=6, validation_count=4, seed=6).key() != sample.key()


def test_unreadable_and_too_few_images(tmp_path, folder, capsys):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    paths = [bad, *sorted(folder.rglob("*.png"))[:2]]
    sample = sample_calibration_images(paths, networks.VIEW, count=5, validation_count=3, seed=0)
    assert len(sample.calibration_NHWC) == 2 and np.array_equal(sample.calibration_NHWC, sample.validation_NHWC)
    assert "2 images can be read, 5 were requested" in capsys.readouterr().err
    with pytest.raises(DataError, match="no image"):
        sample_calibration_images([bad], networks.VIEW, count=1, validation_count=1, seed=0)


@pytest.mark.parametrize("field", ["model", "images", "method", "symmetric"])
def test_a_stale_cache_is_never_used(tmp_path, field, capsys):
    settings = RangeSettings("m", "i", "percentile", 99.9, False)
    path = tmp_path / "cal.bin"
    write_ranges(path, settings, {"x": (-1.0, 2.0)})
    assert read_ranges(path, settings) == {"x": (-1.0, 2.0)}
    other = {"model": "n", "images": "j", "method": "min-max", "symmetric": True}[field]
    assert read_ranges(path, RangeSettings(**{**settings.__dict__, field: other})) is None
    assert f"another {field}" in capsys.readouterr().err
    assert read_ranges(path, RangeSettings("m", "i", "percentile", 99.99)) is None


def test_foreign_cache_files_are_neither_read_nor_overwritten(tmp_path):
    path = tmp_path / "cal.bin"
    path.write_bytes(b"TRT-8601-EntropyCalibration2\n")
    assert read_ranges(path, RangeSettings("m", "i")) is None
    with pytest.raises(SpecError, match="not a calibration file"):
        write_ranges(path, RangeSettings("m", "i"), {})
    assert path.read_bytes().startswith(b"TRT")


def test_percentile_and_entropy_cut_outliers_off(images):
    content, proto, facts = network()
    name = proto.graph.output[0].name
    full_range = measure_ranges(content, facts, images, RangeSettings("m", "i"), batch=8)[name]
    for method in ("percentile", "entropy"):
        cut_range = measure_ranges(content, facts, images, RangeSettings("m", "i", method, 90.0), batch=8)[name]
        assert full_range[0] <= cut_range[0] <= cut_range[1] <= full_range[1]
        assert cut_range[1] - cut_range[0] < full_range[1] - full_range[0] or method == "entropy"


@pytest.mark.parametrize("target", ["cpu", "vnni", "tensorrt"])
def test_qdq_is_explicit_per_channel_and_every_layer_comes_back(images, ranges, target):
    content, original, facts = network()
    all_quantized = quantize_by_ranges(content, ranges, QuantizationOptions(target))
    layers = graphs.quantized_layers(all_quantized)
    kinds = {node.op_type for node in all_quantized.graph.node if node.name in layers}
    assert "Conv" in kinds and kinds & {"Gemm", "MatMul"}
    scales = {tensor.name: numpy_helper.to_array(tensor) for tensor in all_quantized.graph.initializer}
    assert any(
        scales[node.input[1]].size == 8 for node in all_quantized.graph.node if node.op_type == "DequantizeLinear"
    )
    exact = OnnxEngine(content)(images)
    quantized_network = finalize_graph(graphs.restore_layers(all_quantized, original, ()))
    assert graphs.is_quantized_graph(quantized_network)
    assert (
        cosines(
            exact, OnnxEngine(quantized_network.SerializeToString(), mean=networks.MEAN, std=networks.STD)(images)
        ).min()
        > 0.99
    )
    restored = graphs.restore_layers(all_quantized, original, set(layers))
    assert not graphs.is_quantized_graph(restored)
    graphs.write_facts(restored, facts)
    assert np.abs(OnnxEngine(restored.SerializeToString())(images) - exact).max() < 1e-6


def _weights(proto, original):
    """{layer: integer weights} of what is quantized, and {layer: the float ones} of the network that it was made from."""
    floats = {tensor.name: numpy_helper.to_array(tensor) for tensor in original.graph.initializer}
    exact = {node.name: floats[node.input[1]] for node in original.graph.node if node.op_type in ("Conv", "Gemm")}
    initializers = {entry.name: numpy_helper.to_array(entry) for entry in proto.graph.initializer}
    producers = {name: node for node in proto.graph.node for name in node.output}
    producer_of_weight = {node.name: producers.get(node.input[1]) for node in proto.graph.node if node.name in exact}
    return {
        name: initializers[producer.input[0]] for name, producer in producer_of_weight.items() if producer is not None
    }, exact


@pytest.mark.parametrize(("target", "most"), [("cpu", 64), ("vnni", 127)])
def test_weights_take_7_bits_on_any_cpu_and_8_with_vnni_in_quantized_layers_alone(images, ranges, target, most):
    content, original, _ = network()
    all_quantized = quantize_by_ranges(content, ranges, QuantizationOptions(target))
    weights, exact = _weights(all_quantized, original)
    assert set(weights) == set(exact) and weights
    for name, integers in weights.items():
        assert integers.dtype == np.int8 and np.abs(integers.astype(int)).max() in (most - 1, most)
        strong = np.abs(exact[name]) > 0.1 * np.abs(exact[name]).max()
        assert (np.sign(integers)[strong] == np.sign(exact[name])[strong]).all()
    signs = {tensor.name: tensor.data_type for tensor in all_quantized.graph.initializer}
    quantizers = [node for node in all_quantized.graph.node if node.op_type == "QuantizeLinear"]
    assert quantizers and all(signs[node.input[2]] == TensorProto.UINT8 for node in quantizers)  # activations
    first = next(iter(weights))
    quantized_weights, _ = _weights(finalize_graph(graphs.restore_layers(all_quantized, original, [first])), original)
    assert set(quantized_weights) == set(weights) - {first}  # that layer's weights are the float ones again


def test_what_a_root_reads_keeps_its_small_values(images):
    """As in the head `rooted`: x / sqrt(|x| + 1e-6) of an x that eight bits made 0 is far off."""
    _, proto, facts = network()
    vector = proto.graph.output[0].name
    proto.graph.initializer.append(numpy_helper.from_array(np.array(1e-6, np.float32), "epsilon"))
    for kind, inputs, output in (("Abs", [vector], "length"), ("Add", ["length", "epsilon"], "sum"), ("Sqrt", ["sum"], "root"),
                                 ("Div", [vector, "root"], "rooted")):  # fmt: skip
        proto.graph.node.append(helper.make_node(kind, inputs, [output], name=f"my {kind}"))
    proto.graph.output[0].name = "rooted"
    content = proto.SerializeToString()
    ranges = measure_ranges(content, facts, images, RangeSettings("m", "i"), batch=8)
    layers = graphs.quantized_layers(quantize_by_ranges(content, ranges, QuantizationOptions()))
    assert layers and "my Add" not in layers


def has_vnni() -> bool:
    """Whether this CPU has VNNI, as far as Linux says."""
    facts = Path("/proc/cpuinfo")
    return facts.is_file() and "vnni" in facts.read_text()


def test_8_bits_are_nearer_than_7_and_other_targets_are_refused(images, ranges, tmp_path, folder):
    content, _, _ = network()
    exact, mean_cosine = OnnxEngine(content)(images), {}
    for target in ("cpu", "vnni"):
        quantized_network = finalize_graph(quantize_by_ranges(content, ranges, QuantizationOptions(target)))
        engine = OpenVinoEngine(quantized_network.SerializeToString(), mean=networks.MEAN, std=networks.STD)
        mean_cosine[target] = cosines(exact, engine(images)).mean()
    assert 0.999 < mean_cosine["cpu"] < 1
    if has_vnni():  # else its sums of two products saturate, for which the target "cpu" has 7 bits
        assert mean_cosine["cpu"] < mean_cosine["vnni"] < 1
    with pytest.raises(SpecError, match="cpu or vnni or tensorrt"):
        QuantizationOptions("avx")
    model = tmp_path / "small.onnx"
    model.write_bytes(content)
    spec = {"results_dir": str(tmp_path / "out"), "quantize": {"onnx_file": str(model), "target": "vnn"}}
    with pytest.raises(SpecError, match=r"(?s)quantize\.target.*vnni"):
        unalike.quantize(spec)
    assert not (tmp_path / "out").exists()


def test_what_rounding_shifts_goes_back_into_the_bias(images, ranges):
    """The first convolution reads the same input in both networks: its outputs' means must agree once corrected."""
    content, original, facts = network()
    plain = quantize_by_ranges(content, ranges, QuantizationOptions())
    corrected = type(plain).FromString(plain.SerializeToString())
    assert correct_biases(corrected, original, facts, images, batch=7) >= 1
    first = next(node for node in original.graph.node if node.op_type == "Conv")

    def means(proto):
        with_output = type(proto).FromString(proto.SerializeToString())
        node = next(part for part in with_output.graph.node if part.name == first.name)
        with_output.graph.output.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None))
        session = onnxruntime.InferenceSession(with_output.SerializeToString(), providers=["CPUExecutionProvider"])
        entry = {session.get_inputs()[0].name: network_input(images, facts)}
        return session.run([node.output[0]], entry)[0].mean((0, 2, 3))

    exact = means(original)
    assert np.abs(means(plain) - exact).max() > 1e-4
    assert np.abs(means(corrected) - exact).max() < 1e-5


def test_engines_say_int8_and_obey_a_precision_asked_for(ranges, images):
    content, _, _ = network()
    quantized_network = finalize_graph(quantize_by_ranges(content, ranges, QuantizationOptions()))
    quantized = quantized_network.SerializeToString()
    for kind in (OnnxEngine, OpenVinoEngine):
        normalization = {"mean": networks.MEAN, "std": networks.STD}
        assert kind(quantized, precision="int8", **normalization).precision == "int8"
        with pytest.raises(DeviceError, match="quantized|written"):
            kind(quantized, precision="fp32", **normalization)
        with pytest.raises(DeviceError, match="quantize"):
            kind(content, precision="int8")


def _clipped(scale, kind="Clip", high=6.0):
    """x -> Clip or Relu -> Q -> DQ, uint8 with zero point 0."""
    extra = [numpy_helper.from_array(np.float32(v), n) for n, v in (("low", 0.0), ("high", high))]
    nodes = [
        helper.make_node(kind, ["x", "low", "high"] if kind == "Clip" else ["x"], ["c"], name="clip"),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="dq"),
    ]
    initializers = [numpy_helper.from_array(np.float32(scale), "s"), numpy_helper.from_array(np.uint8(0), "z"), *extra]
    entry, leave = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [5]) for n in ("x", "y"))
    return helper.make_model(helper.make_graph(nodes, "g", [entry], [leave], initializers))


@pytest.mark.parametrize(("scale", "kind", "goes"), [(6 / 255, "Clip", 1), (7 / 255, "Clip", 0), (9 / 255, "Relu", 1)])
def test_clips_go_only_where_quantizing_cuts_the_same(scale, kind, goes):
    proto = _clipped(scale, kind)
    x = np.array([-3, 0.5, 5.9, 6.5, 40], np.float32)
    before = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": x})[0]
    assert graphs.drop_redundant_clips(proto) == goes
    assert np.array_equal(onnx.reference.ReferenceEvaluator(proto).run(None, {"x": x})[0], before)


def test_nodes_are_sorted_behind_what_they_read():
    proto, _ = _clipped(1.0), None
    nodes = [type(n).FromString(n.SerializeToString()) for n in reversed(proto.graph.node)]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    graphs.sort_nodes(proto)
    assert [node.name for node in proto.graph.node] == ["clip", "q", "dq"]


def modelopt(images):
    """The small network as ModelOpt writes it: float weights through Q and DQ, symmetric int8, no zero point but 0."""
    content, proto, facts = network()
    spread = measure_ranges(content, facts, images, RangeSettings("m", "i", symmetric=True), batch=8)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    nodes = []
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            for position in (0, 1):
                name = node.input[position]
                top = np.abs(weights[name]).max() if name in weights else max(map(abs, spread[name]))
                for part, value in (("s", np.float32(top / 127)), ("z", np.int8(0))):
                    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{name}_{part}"))
                scale_and_zero = [f"{name}_s", f"{name}_z"]
                nodes.append(helper.make_node("QuantizeLinear", [name, *scale_and_zero], [f"{name}_q"]))
                nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *scale_and_zero], [f"{name}_dq"]))
                node.input[position] = f"{name}_dq"
        nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto.SerializeToString(), content


def test_a_modelopt_file_is_taken_as_it_is_and_gives_its_float_form_back(images, folder, tmp_path):
    quantized, content = modelopt(images)
    model = tmp_path / "modelopt.onnx"
    model.write_bytes(quantized)
    proto = graphs.read_network(quantized, "modelopt")
    back = graphs.restore_layers(proto, None, set(graphs.quantized_layers(proto)))
    assert not graphs.is_quantized_graph(back)
    assert np.abs(OnnxEngine(back.SerializeToString())(images) - OnnxEngine(content)(images)).max() < 1e-6
    result = unalike.gen_engine({"results_dir": str(tmp_path), "dataset": {"train_dataset": str(folder)},
                             "gen_engine": {"onnx_file": str(model), "parity_images": 8}})  # fmt: skip
    assert OpenVinoEngine(result.path).precision == "int8" and result.figures["worst_cosine"] > 0.93


def clipped_network(quantized: bool) -> onnx.ModelProto:
    """x -> MatMul -> Clip(0, 6) -> MatMul, with Q and DQ of 0 .. 6 before the second one where it is quantized."""
    draw, make = np.random.default_rng(5), helper.make_node
    first, second = (draw.normal(size=(4, 4)).astype(np.float32) for _ in range(2))
    constants = {"w1": 4 * first, "w2": second, "low": np.float32(0), "high": np.float32(6), "scale": np.float32(6 / 255),
            "zero": np.uint8(0)}  # fmt: skip
    nodes = [make("MatMul", ["x", "w1"], ["a"], name="first"), make("Clip", ["a", "low", "high"], ["b"], name="clip")]
    if quantized:
        nodes += [make("QuantizeLinear", ["b", "scale", "zero"], ["q"], name="Q"),
                  make("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="DQ")]  # fmt: skip
    nodes.append(make("MatMul", ["d" if quantized else "b", "w2"], ["y"], name="second"))
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "clipped", value[:1], value[1:],
                                   [numpy_helper.from_array(np.array(v), k) for k, v in constants.items()])  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_a_quantized_file_s_float_form_has_the_clips_that_quantizing_made_superfluous():
    def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x})[0]

    plain, quantized_network = clipped_network(False), clipped_network(True)
    assert graphs.drop_redundant_clips(quantized_network) == 1
    back = graphs.restore_layers(quantized_network, None, {"second"})
    x = np.random.default_rng(6).normal(size=(64, 4)).astype(np.float32)
    wanted = run(plain, x)
    unclipped = (x @ numpy_helper.to_array(plain.graph.initializer[0])) @ numpy_helper.to_array(
        plain.graph.initializer[1]
    )
    assert np.abs(unclipped - wanted).max() > 1  # the clip matters
    np.testing.assert_allclose(run(back, x), wanted, atol=1e-5)


@pytest.mark.parametrize("harm", [[], ["c"], ["e", "b"], ["a", "b", "c"]])
def test_the_fewest_most_harmful_layers_are_kept(harm):
    losses = {name: 0.01 for name in "abcdefgh"} | dict.fromkeys(harm, 0.5)

    def evaluate(kept):
        return CandidateAccuracy(0.0, not set(harm) - set(kept), "figures")

    choice = choose_layers(list("abcdefgh"), evaluate, losses.__getitem__)
    assert sorted(choice.kept) == sorted(harm)
    assert choose_layers(list("abcdefgh"), evaluate, losses.__getitem__, always=["h"]).kept[0] == "h"


def test_a_goal_that_cannot_be_met_is_an_error_with_what_was_reached():
    with pytest.raises(ExportError, match=r"4 of 8 layers.*worst cosine 0.7.*goal"):
        choose_layers(
            list("abcdefgh"), lambda kept: CandidateAccuracy(0.3, False, "worst cosine 0.7"), lambda name: 0.1
        )
    with pytest.raises(ExportError, match="0 of 8 layers"):
        choose_layers(list("abcdefgh"), lambda kept: CandidateAccuracy(0.3, False, "x"), lambda name: 0.1, most=0)


@pytest.mark.parametrize("data_type", ["FP16", "BF16"])
def test_typed_onnx_computes_in_what_it_says_and_stays_near(images, data_type):
    content, _, facts = network()
    chosen = type("Images", (), {"calibration_NHWC": images, "validation_NHWC": images})
    quantized = quantize_network(content, facts, chosen, QuantizationRequest(data_type=data_type))
    kind = {"FP16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16}[data_type]
    conv = next(node for node in quantized.proto.graph.node if node.op_type == "Conv")
    weights = {tensor.name: tensor.data_type for tensor in quantized.proto.graph.initializer}
    assert weights[conv.input[1]] == kind and len(quantized.content) < len(content)
    assert quantized.proto.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert quantized.proto.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    written_facts = graphs.read_graph_facts(quantized.proto, "typed", None, None)
    assert written_facts.precision == data_type.lower()
    assert cosines(OnnxEngine(content)(images), open_engine(quantized.content, written_facts)(images)).min() >= 0.999
    with pytest.raises(ExportError, match="quantized"):
        convert_precision(_clipped(1.0), "fp16")


def test_bf16_emulation_rounds_what_a_layer_reads():
    values = np.array([1.0, 1.001, 3.14159, -2.71828], np.float32)
    node = helper.make_node("Add", ["x", "w"], ["y"], name="add")
    entry, leave = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("x", "y"))
    weight = numpy_helper.from_array(np.full(4, 0.1, np.float32), "w")
    model = helper.make_model(
        helper.make_graph([node], "g", [entry], [leave], [weight]), opset_imports=[helper.make_opsetid("", 22)]
    )
    import ml_dtypes

    def rounded(x):
        return x.astype(ml_dtypes.bfloat16).astype(np.float32)

    expected = rounded(rounded(values) + rounded(np.full(4, 0.1, np.float32)))
    wide = emulate_bf16(convert_precision(model, "bf16"))
    session = onnxruntime.InferenceSession(wide.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {"x": values})[0], expected)


def test_layers_precision_names_layers_and_refuses_others():
    _, proto, _ = network()
    conv = next(node.name for node in proto.graph.node if node.op_type == "Conv")
    assert graphs.parse_layers([f"{conv}:FP32"], proto, ("fp32",)) == {conv: "fp32"}
    assert set(graphs.parse_layers(["*:fp16"], proto, ("fp32", "fp16")).values()) == {"fp16"}
    for entry, text in ((f"{conv[:-1]}x:fp32", "no layer"), (f"{conv}:int3", "layer:precision"), (conv, "layer:prec")):
        with pytest.raises(SpecError, match=text):
            graphs.parse_layers([entry], proto, ("fp32",))


def quantize(tmp_path, folder, *overrides, **part):
    model = tmp_path / "model.onnx"
    model.write_bytes(networks.exported_bytes())
    calibration = {"cal_image_dir": [str(folder)], "cal_batches": 3, "cal_batch_size": 4}
    spec = {"results_dir": str(tmp_path / "out"),
            "quantize": {"onnx_file": str(model), "calibration": calibration, "parity_images": 8, **part}}  # fmt: skip
    return unalike.quantize(spec, list(overrides), overwrite=True)


def test_quantize_writes_a_file_its_ranges_and_a_comparison(tmp_path, folder, capsys):
    data = [f"dataset.val_dataset.reference={folder}"]
    result = quantize(tmp_path, folder, *data)
    table = json.loads((result.results_dir / "model_int8.onnx.parity.json").read_text())
    assert [row["precision"] for row in table["rows"]] == ["fp32", "int8", "int8"]
    assert table["queries"] == 24 and table["rows"][0]["recall_at_1"] is not None
    assert table["rows"][1]["worst_cosine"] == result.figures["worst_cosine"] > 0.95
    err = capsys.readouterr().err
    assert (
        "mean cosine" in err
        and "R@1 of 24 queries changes in steps of 4.2 points" in err
        and "at least 200 queries" in err
    )
    facts = OnnxEngine(result.path).facts
    assert facts.precision == "int8" and facts.classes == ("a", "ü") and facts.view == networks.VIEW.to_dict()
    first = OnnxEngine(result.path)(networks.pictures(4))
    again = quantize(tmp_path, folder, *data)  # seeded; sums of several threads may differ in the last bit
    assert cosines(first, OnnxEngine(again.path)(networks.pictures(4))).min() > 0.9999


def test_int8_is_known_for_the_network_that_it_was_made_from(tmp_path, folder):
    """Also when the file came from elsewhere and says nothing of itself."""
    result = quantize(tmp_path, folder)
    model = tmp_path / "model.onnx"
    key = file_key(model.read_bytes())
    assert load_model(model).network == key == OnnxEngine(result.path).facts.network
    ir = unalike.gen_engine({"results_dir": str(tmp_path / "ir"), "gen_engine": {
        "onnx_file": str(result.path), "parity_images": 4, "calibration": {"cal_image_dir": [str(folder)]}}})  # fmt: skip
    assert load_model(ir.path).network == key
    gallery = Recogniser.load(model).gallery
    gallery.model_identity = replace(gallery.model_identity, probe_D=-gallery.model_identity.probe_D)
    Recogniser.load(ir.path, gallery)  # the key speaks before the answer to one image


def test_quantize_uses_its_cache_again_and_says_what_it_lacks(tmp_path, folder, capsys):
    cache = tmp_path / "ranges.json"
    override = f"quantize.calibration.cal_cache_file={cache}"
    quantize(tmp_path, folder, override)
    quantize(tmp_path, folder, override)
    assert f"ranges of {cache}" in capsys.readouterr().err
    with pytest.raises(SpecError, match=r"cal_image_dir is not set, and INT8"):
        quantize(tmp_path, folder, "quantize.calibration.cal_image_dir=null")
    with pytest.raises(SpecError, match="onnx_file and quantize.checkpoint are not set"):
        quantize(tmp_path, folder, "quantize.onnx_file=null")


@pytest.mark.parametrize(("runtime", "data_type"), [("openvino", "FP32"), ("openvino", "FP16"), ("openvino", "BF16"),
                                                    ("openvino", "INT8"), ("onnxruntime", "FP32"), ("onnxruntime", "INT8")])  # fmt: skip
def test_gen_engine_gives_the_networks_vectors(tmp_path, folder, images, runtime, data_type):
    model = tmp_path / "model.onnx"
    model.write_bytes(networks.exported_bytes())
    part = {"onnx_file": str(model), "runtime": runtime, "data_type": data_type, "parity_images": 8,
            "calibration": {"cal_image_dir": [str(folder)], "cal_batches": 3}}  # fmt: skip
    result = unalike.gen_engine({"results_dir": str(tmp_path / "out"), "gen_engine": part})
    engine = (OpenVinoEngine if runtime == "openvino" else OnnxEngine)(result.path)
    cosines_N = cosines(networks.plain_vectors(networks.SmallEmbedder(), images), engine(images))
    assert cosines_N.min() > (0.98 if data_type == "INT8" else 0.999)
    assert engine.facts.classes == ("a", "ü") and engine.facts.precision == data_type.lower()
    evaluated = unalike.evaluate({"results_dir": str(tmp_path / "out"), "dataset": {"val_dataset": {"reference": str(folder)}},
                              "evaluate": {"engine": str(result.path), "bootstrap": 0}})  # fmt: skip
    assert "test Precision at Rank 1" in evaluated.figures


def test_nncf_is_accepted_and_quantizes_by_onnx_runtime(tmp_path, folder, capsys):
    result = quantize(tmp_path, folder, "quantize.backend=nncf")
    assert result.figures["worst_cosine"] > 0.95
    assert "quantize.backend: nncf" in capsys.readouterr().err


@pytest.mark.parametrize(("override", "named"), [
    ("model.feat_dim=7", "model.feat_dim is 7"), ("dataset.pixel_mean=[0.1,0.2,0.3]", "dataset.pixel_mean"),
    ("dataset.view.resize_ratio=1.9", "dataset.view.resize_ratio"), ("model.input_width=99", "model.input_width is 99"),
])  # fmt: skip
@pytest.mark.parametrize("action", ["quantize", "gen_engine"])
def test_a_spec_that_contradicts_the_network_is_refused(tmp_path, folder, action, override, named):
    model = tmp_path / "small.onnx"
    model.write_bytes(networks.exported_bytes())
    spec = {"results_dir": str(tmp_path / "out"), action: {"onnx_file": str(model)}}
    with pytest.raises(SpecError, match=f"contradicts .*{named}"):
        getattr(unalike, action)(spec, [override], data=folder)


def test_a_conversion_keeps_the_name_and_the_limits_that_a_spec_gives(tmp_path, folder):
    model = tmp_path / "small.onnx"
    model.write_bytes(networks.exported_bytes())
    spec = {
        "results_dir": str(tmp_path / "out"),
        "model_name": "shelf",
        "quantize": {"onnx_file": str(model), "data_type": "FP16", "parity_images": 5},
    }
    path = unalike.quantize(spec, data=folder).path
    proto = graphs.read_network(path.read_bytes(), "written")
    assert graphs.read_graph_facts(proto, "written", None, None).extra["name"] == "shelf"
    assert json.loads(path.with_name(f"{path.name}.parity.json").read_text())["images"] == 5
    with pytest.raises(DataError, match="no image"):
        unalike.quantize(spec, ["dataset.max_pixels=100", f"results_dir={tmp_path / 'again'}"], data=folder)


def test_images_are_compared_up_to_the_number_asked_for(folder):
    paths = sorted(folder.rglob("*.png"))
    sample = sample_calibration_images(paths, networks.VIEW, count=len(paths), validation_count=3, seed=0)
    assert len(sample.calibration_NHWC) == len(paths) and len(sample.validation_NHWC) == 3
    assert (
        len(sample_calibration_images(paths, networks.VIEW, count=0, validation_count=3, seed=0).validation_NHWC) == 3
    )
