from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import unalike
from tests.support import networks
from unalike.deploy import parity as parity_module
from unalike.deploy.onnx_export import build_facts, export_onnx, trace
from unalike.deploy.onnx_graph import strip_debug_metadata
from unalike.deploy.opset_downgrade import downgrade_opset
from unalike.deploy.parity import check_parity, compare_vectors, fill_up_images
from unalike.engines.metadata import NetworkFacts
from unalike.engines.onnx_engine import OnnxEngine
from unalike.engines.openvino_engine import OpenVinoEngine
from unalike.errors import ExportError
from unalike.model.embedder import HEADS


def test_export_writes_one_proved_file(tmp_path, capsys):
    images = networks.pictures(70)
    embedder = networks.SmallEmbedder().train()
    exported = export_onnx(
        embedder, tmp_path / "deep" / "model.onnx", networks.PREPROCESSING, images_NHWC=images,
        metadata={"classes": ["a", "b"], "licence": "Apache-2.0", "epoch": 3},
    )  # fmt: skip
    assert [path.name for path in exported.path.parent.iterdir()] == ["model.onnx"]
    assert exported.parity.worst_cosine >= 0.99999 and exported.parity.largest_difference <= 1e-3
    assert (exported.parity.images, exported.parity.altered_copies, exported.parity.batches) == (70, 0, (1, 7, 64))
    assert "worst cosine" in capsys.readouterr().err
    assert embedder.training
    facts = OnnxEngine(exported.path).facts
    assert facts == exported.facts and facts.dim == 16 and facts.licence == "Apache-2.0" and facts.extra == {"epoch": 3}
    assert facts.versions["torch"] == torch.__version__ and facts.versions["onnx"] == onnx.__version__
    assert {"unalike", "timm"} <= set(facts.versions)
    graph = onnx.load(exported.path).graph
    assert [entry.name for entry in graph.input] == ["input"] and [entry.name for entry in graph.output] == ["fc_pred"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param


def traced(depth=0):
    """The content of an export; ``depth`` changes the stack of calls, which torch writes into its graph."""
    if depth:
        return traced(depth - 1)
    facts = build_facts(networks.SmallEmbedder(), networks.PREPROCESSING)
    return trace(networks.SmallEmbedder(), networks.SIZE, facts, optimize=False).SerializeToString()


def test_exports_of_one_network_are_equal_and_name_no_path_of_the_machine():
    files = (networks.__file__, unalike.__file__, torch.__file__)
    traces = [*(str(Path(file).parent).encode() for file in files), b"stack_trace", b".py"]
    content = traced()
    assert content == traced(depth=3)
    for network in (content, networks.exported_bytes()):
        assert not [text for text in traces if text in network]


def test_debugging_texts_are_removed_at_every_depth():
    helper, text = onnx.helper, "/home/someone/project/network.py"
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1], doc_string=text)
    constant = helper.make_tensor("c", onnx.TensorProto.FLOAT, [1], [2.0])
    constant.doc_string = text
    inner = helper.make_graph(
        [helper.make_node("Add", ["x", "c"], ["z"], doc_string=text)], "inner", [], [value], [constant], text
    )
    branch = helper.make_node("If", ["b"], ["y"], doc_string=text, then_branch=inner, else_branch=inner)
    branch.attribute[0].doc_string = text
    function = helper.make_function(
        "d", "F", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"], doc_string=text)], [helper.make_opsetid("", 18)]
    )
    graph = helper.make_graph([branch], "outer", [value], [value], [constant], text)
    proto = helper.make_model(graph, functions=[function])
    for entry in (
        proto.graph,
        proto.graph.node[0],
        proto.graph.input[0],
        proto.graph.initializer[0],
        proto.functions[0],
    ):
        entry.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=text)
    model_entry = proto.metadata_props.add(key="unalike", value="facts")
    assert proto.SerializeToString().count(text.encode()) > 9
    strip_debug_metadata(proto)
    assert text.encode() not in proto.SerializeToString() and list(proto.metadata_props) == [model_entry]


def test_unit_length_and_embedded_in_a_fixed_batch(tmp_path):
    exported = export_onnx(
        networks.SmallEmbedder(), tmp_path / "m.onnx", networks.PREPROCESSING, images_NHWC=networks.pictures(5), embedded=True,
        unit_length=True, batch_size=3,
    )  # fmt: skip
    assert exported.parity.altered_copies == 59 and exported.parity.batches == (3,)
    images = networks.pictures(7)
    expected = networks.plain_vectors(networks.SmallEmbedder(), images)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    for engine in (OnnxEngine(exported.path), OpenVinoEngine(exported.path, precision="fp32")):
        assert np.abs(engine(images) - expected).max() < 1e-5
    entry = onnx.load(exported.path).graph.input[0].type.tensor_type
    assert entry.elem_type == onnx.TensorProto.UINT8 and [d.dim_value for d in entry.shape.dim] == [3, 3, 48, 32]


@pytest.mark.parametrize("head", ["rooted", "mlp"])
def test_heads_with_a_square_root_are_exported_with_equal_vectors(tmp_path, head):
    embedder = networks.SmallEmbedder()
    embedder.head = HEADS[head](8, 16)
    with torch.no_grad():
        for parameter in embedder.head.parameters():
            parameter.normal_()
    exported = export_onnx(embedder, tmp_path / "m.onnx", networks.PREPROCESSING, images_NHWC=networks.pictures(70))
    assert exported.parity.worst_cosine >= 0.99999
    images = networks.pictures(9, seed=1)
    with torch.inference_mode():
        scaled = (images / 255.0 - networks.MEAN) / networks.STD
        expected = embedder.eval()(torch.from_numpy(scaled.astype(np.float32)).permute(0, 3, 1, 2)).numpy()
    for engine in (OnnxEngine(exported.path), OpenVinoEngine(exported.path, precision="fp32")):
        assert np.abs(engine(images) - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.fixture(scope="module")
def opset_18():
    facts = NetworkFacts(mean=networks.MEAN, std=networks.STD)
    return trace(networks.SmallEmbedder(), networks.SIZE, facts, opset=18)


@pytest.mark.parametrize("opset", [14, 15, 16, 17])
def test_older_opsets_give_the_same_vectors(opset_18, opset):
    older = downgrade_opset(opset_18, opset)
    assert older.opset_import[0].version == opset
    kinds = {node.op_type for node in older.graph.node}
    assert ("LayerNormalization" in kinds) == (opset >= 17)
    images = networks.pictures(9)
    vectors = OnnxEngine(older.SerializeToString())(images)
    assert np.abs(vectors - networks.plain_vectors(networks.SmallEmbedder(), images)).max() < 1e-5
    assert opset_18.opset_import[0].version == 18


def test_an_opset_that_torch_cannot_reach_is_refused_with_what_can_be_had():
    facts = NetworkFacts(mean=networks.MEAN, std=networks.STD)
    with pytest.raises(ExportError, match=r"opset 40.*opset \d\d is possible"):
        trace(networks.SmallEmbedder(), networks.SIZE, facts, opset=40)


def _graph_of(kind, opset=18, **settings):
    node = onnx.helper.make_node(kind, ["x"], ["y"], **settings)
    entry = onnx.helper.make_tensor_value_info("x", 1, [2, 3, 4, 4])
    leave = onnx.helper.make_tensor_value_info("y", 1, None)
    graph = onnx.helper.make_graph([node], "g", [entry], [leave])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])


def test_an_opset_too_low_names_the_lowest_that_works():
    mish = _graph_of("Mish")  # came with opset 18
    with pytest.raises(ExportError, match="the lowest that works is 18"):
        downgrade_opset(mish, 15)
    with pytest.raises(ExportError, match="at least 14"):
        downgrade_opset(mish, 11)


def test_a_file_that_differs_is_refused_and_not_left(tmp_path, monkeypatch):
    file = tmp_path / "m.onnx"
    file.write_bytes(b"the older export")
    real = parity_module.compare_vectors
    monkeypatch.setattr(parity_module, "compare_vectors", lambda a, b: real(a, b + 0.05 * np.sign(b).min(0)))
    with pytest.raises(ExportError, match="differ from the trained"):
        export_onnx(networks.SmallEmbedder(), file, networks.PREPROCESSING, images_NHWC=networks.pictures(3))
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"] and file.read_bytes() == b"the older export"


def test_parity_sees_other_weights(tmp_path):
    path = networks.write_model(tmp_path)
    facts = OnnxEngine(path).facts
    images = networks.pictures(64)
    assert check_parity(networks.SmallEmbedder(), path, facts=facts, images_NHWC=images).worst_cosine > 0.99999
    with pytest.raises(ExportError, match="worst cosine"):
        check_parity(networks.SmallEmbedder(seed=1), path, facts=facts, images_NHWC=images)


def test_compare_is_the_plain_formula_and_nan_never_passes():
    draws = np.random.default_rng(0)
    a, b = draws.normal(size=(2, 9, 5))
    a_unit, b_unit = a / np.linalg.norm(a, axis=1)[:, None], b / np.linalg.norm(b, axis=1)[:, None]
    cosine, difference = compare_vectors(a, b)
    assert cosine == pytest.approx(min(float(x @ y) for x, y in zip(a_unit, b_unit, strict=True)))
    assert difference == pytest.approx(float(np.abs(a_unit - b_unit).max()))
    b[0, 0] = np.nan
    assert compare_vectors(a, b) == (-1.0, float("inf"))


def test_few_images_are_filled_up_with_altered_copies():
    images = networks.pictures(3)
    filled = fill_up_images(images)
    assert filled.shape == (64, 48, 32, 3) and filled.dtype == np.uint8
    assert np.array_equal(filled[:3], images) and len(np.unique(filled.reshape(64, -1), axis=0)) == 64
    with pytest.raises(ExportError, match="no image"):
        fill_up_images(images[:0])


def test_what_torch_cannot_export_is_one_line(tmp_path):
    class Odd(nn.Module):
        dim = 4

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, images):
            if images.sum() > 0:  # depends on the pixels' values: no graph
                return images.mean((2, 3))
            return images.amax((2, 3))

    with pytest.raises(ExportError, match="torch cannot export") as caught:
        export_onnx(Odd(), tmp_path / "m.onnx", networks.PREPROCESSING, images_NHWC=networks.pictures(2))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
