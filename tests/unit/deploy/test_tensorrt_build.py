"""TensorRT 10 and 11 through the stand-in: nothing here has run on a GPU."""

import csv
import json
import sys

import numpy as np
import onnx
import pytest
from PIL import Image

import unalike
from tests.support import networks
from tests.support import tensorrt_signatures as tables
from tests.support import tensorrt_standin as standin
from unalike.deploy.onnx_graph import is_quantized_graph, quantized_layers
from unalike.engines import cuda_memory
from unalike.engines.tensorrt_engine import TensorRtEngine, facts_file
from unalike.errors import DeviceError, MissingExtra, ModelError, SpecError

VERSIONS = ("10.13.0.35", "11.4.0")


@pytest.fixture(params=VERSIONS)
def trt(request, monkeypatch):
    networks.exported_bytes()  # before the stand-in is there: torch's exporter looks at a module of that name
    module = standin.module(request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    for name in ("unalike.deploy.tensorrt_build", "unalike.engines.tensorrt_engine"):
        monkeypatch.setattr(f"{name}.CudaMemory", standin.Memory)
    return module


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Three classes of flat colours with noise, in class folders."""
    root, draws = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for label, colour in {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}.items():
        (root / label).mkdir()
        for number in range(5):
            noise = draws.integers(-25, 26, (60, 50, 3))
            picture = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(root / label / f"{number}.png")
    return root


def spec(tmp_path, **changes):
    model = tmp_path / "model.onnx"
    if not model.exists():
        model.write_bytes(networks.exported_bytes())
    return {"results_dir": str(tmp_path / "out"), "gen_trt_engine": {"onnx_file": str(model), **changes}}


def build(tmp_path, overrides=(), **changes):
    return unalike.gen_trt_engine(spec(tmp_path, **changes), overrides)


def test_d37_builds_on_tensorrt_10_and_11_strongly_typed(trt, tmp_path):
    result = build(tmp_path, timing_cache=str(tmp_path / "t.cache"))
    assert result.path == tmp_path / "out" / "gen_trt_engine" / "model.engine" and result.path.is_file()
    assert trt.built["workspace"] == 1024 << 20 and trt.built["cleared"] == "TF32"
    assert (tmp_path / "t.cache").read_bytes() == b"+timed"
    flags = [arguments for name, arguments in trt.calls if name == "Builder.create_network"]
    strong = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert flags == [(strong if trt.major == 10 else 0,)]
    assert result.figures["max_batch"] == 4


def test_the_stand_in_refuses_what_11_removed_and_what_is_unknown(trt):
    config = trt.Builder(trt.Logger(trt.Logger.WARNING)).create_builder_config()
    assert hasattr(trt.BuilderFlag, "INT8") == (trt.major == 10)
    with pytest.raises(AttributeError):
        config.int8_calibrator  # noqa: B018
    with pytest.raises(AttributeError):
        config.set_flagg(1)
    with pytest.raises(standin.Called, match="set_timing_cache"):
        config.set_timing_cache(config.create_timing_cache(b""))
    with pytest.raises(standin.Called, match="STRONGLY_TYPED") if trt.major == 10 else pytest.raises(StopIteration):
        trt.Builder(trt.Logger()).create_network()
        raise StopIteration


def test_no_name_of_ours_was_removed_and_both_tables_know_all():
    assert not set(tables.USED_11) & tables.REMOVED_11
    assert set(tables.USED_10) == set(tables.USED_11)


def test_d37_the_stand_in_of_11_refuses_every_name_that_11_removed():
    trt = standin.module("11.4.0")
    builder = trt.Builder(trt.Logger())
    network = builder.create_network(0)
    network._content = networks.exported_bytes()
    engine = standin.module("11.4.0").Runtime(trt.Logger()).deserialize_cuda_engine(
        json.dumps([[1, 3, *networks.SIZE]] * 3).encode() + b"\0" + networks.exported_bytes()
    )  # fmt: skip
    there = {"Builder": builder, "IBuilderConfig": builder.create_builder_config(), "ITensor": network.get_input(0),
             "ICudaEngine": engine, "tensorrt": trt, "ILayer": None}  # fmt: skip
    for name in tables.REMOVED_11:
        holder, _, member = name.partition(".")
        owner = there[holder] if holder in there else getattr(trt, holder)
        with pytest.raises(AttributeError):
            getattr(owner, member)


def test_a_call_that_either_table_does_not_allow_is_refused(monkeypatch):
    trt = standin.module("11.4.0")
    config = trt.Builder(trt.Logger()).create_builder_config()
    monkeypatch.setitem(tables.USED_10, "IBuilderConfig.clear_flag", ("flag", "more"))
    with pytest.raises(standin.Called, match="TensorRT 10: IBuilderConfig.clear_flag"):
        config.clear_flag(trt.BuilderFlag.TF32)


def test_d34_calibration_keys_are_not_wanted_for_fp32(trt, tmp_path):
    assert build(tmp_path).figures["bytes"] > 0


def test_d34_an_unset_limit_is_the_largest_batch_in_use(trt, tmp_path):
    result = build(tmp_path, ["evaluate.batch_size=12"])
    assert (result.figures["max_batch"], result.figures["opt_batch"]) == (12, 12)
    written = (result.results_dir / "experiment.yaml").read_text()
    assert "max_batch_size: 12" in written


def test_d34_a_limit_below_a_batch_in_use_is_an_error_before_building(trt, tmp_path):
    with pytest.raises(SpecError, match=r"max_batch_size is 1, and evaluate.batch_size 4"):
        build(tmp_path, ["gen_trt_engine.tensorrt.max_batch_size=1", "evaluate.batch_size=4"])
    assert not trt.calls
    with pytest.raises(SpecError, match="cal_image_dir is not set"):
        build(tmp_path / "b" if (tmp_path / "b").mkdir() is None else None, ["gen_trt_engine.tensorrt.data_type=INT8"])
    assert not any(name == "Builder.build_serialized_network" for name, _ in trt.calls)


def test_d34_an_engine_needs_no_checkpoint_and_takes_any_batch(trt, tmp_path, photographs):
    engine = build(tmp_path, ["gen_trt_engine.tensorrt.max_batch_size=2"]).path
    data = {"reference": str(photographs), "query": str(photographs)}
    result = unalike.evaluate(
        {"results_dir": str(tmp_path / "out"), "dataset": {"val_dataset": data},
         "evaluate": {"trt_engine": str(engine), "batch_size": 4, "topk": 3, "bootstrap": 0}}
    )  # fmt: skip
    assert result.results_dir == tmp_path / "out" / "trt_evaluate"
    results = json.loads((result.results_dir / "results.json").read_text())
    same = unalike.evaluate(
        {"results_dir": str(tmp_path / "onnx"), "dataset": {"val_dataset": data},
         "evaluate": {"onnx_file": str(tmp_path / "model.onnx"), "runtime": "onnxruntime", "bootstrap": 0}}
    )  # fmt: skip
    assert result.figures["test Precision at Rank 1"] == same.figures["test Precision at Rank 1"]
    matrix = np.array(results["confusion_matrix"])
    assert matrix.sum() == 15 and results["classes"] == ["blue", "green", "red"]
    assert results["top_1_accuracy"] == pytest.approx(np.mean(np.diag(matrix) / matrix.sum(1)))
    assert results["top_k_accuracy"] >= results["top_1_accuracy"]
    assert results["classification_report"]["red"]["support"] == 5


def test_trt_inference_writes_taos_table(trt, tmp_path, photographs):
    engine = build(tmp_path).path
    result = unalike.infer(
        {"results_dir": str(tmp_path / "out"), "dataset": {"val_dataset": {"reference": str(photographs)}},
         "inference": {"trt_engine": str(engine), "input_path": str(photographs / "red"), "topk": 2,
                       "inference_input_type": "image_folder"}}
    )  # fmt: skip
    assert result.path == tmp_path / "out" / "trt_inference" / "trt_result.csv"
    rows = list(csv.reader(result.path.open()))
    assert len(rows) == 5 and all(len(row) == 3 for row in rows)
    assert not (result.results_dir / "result.csv").exists()


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_engine_gives_the_networks_vectors_whatever_the_count(trt, tmp_path, count):
    path = build(
        tmp_path, ["gen_trt_engine.tensorrt.max_batch_size=4", "gen_trt_engine.tensorrt.min_batch_size=2"]
    ).path
    engine, images = TensorRtEngine(path), networks.pictures(count)
    vectors = engine(images)
    assert vectors.shape == (count, 16) and engine.input_size == networks.SIZE and engine.precision == "fp32"
    if count:
        assert np.abs(vectors - networks.plain_vectors(networks.SmallEmbedder(), images)).max() < 1e-5
    with pytest.raises(DeviceError, match="built"):
        TensorRtEngine(path, precision="fp16")


def test_d31_int8_is_symmetric_qdq_calibrated_on_the_view(trt, tmp_path, photographs):
    calibration = {"cal_image_dir": [str(photographs)], "cal_cache_file": str(tmp_path / "cal.bin"), "cal_batches": 2,
                   "cal_batch_size": 4}  # fmt: skip
    result = build(tmp_path, tensorrt={"data_type": "INT8", "calibration": calibration})
    proto = onnx.load_from_string(trt.built["content"])
    assert is_quantized_graph(proto) and quantized_layers(proto)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
            assert constants[node.input[2]].dtype == np.int8 and not constants[node.input[2]].any()
    assert (tmp_path / "cal.bin").is_file()
    assert json.loads(facts_file(result.path).read_text())["precision"] == "int8"
    assert result.figures["worst_cosine"] > 0.95
    assert json.loads((result.path.parent / "model.engine.parity.json").read_text())["rows"][1]["runtime"] == "tensorrt"


def test_fp16_is_typed_in_the_file_and_a_quantized_file_is_taken_as_it_is(trt, tmp_path, photographs):
    part = {"cal_image_dir": [str(photographs)], "cal_batches": 1, "cal_batch_size": 4}
    build(tmp_path, tensorrt={"data_type": "FP16", "calibration": part, "layers_precision": ["*Conv*:fp32"]})
    kinds = {tensor.data_type for tensor in onnx.load_from_string(trt.built["content"]).graph.initializer}
    assert {onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT} <= kinds


def test_no_tensorrt_is_one_line_with_the_cpu_alternative(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtra, match=r"install .*\[tensorrt\]'.*unalike gen_engine") as caught:
        build(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_gpu_and_foreign_engines_are_said(trt, tmp_path, monkeypatch):
    monkeypatch.setattr(standin.Memory, "devices", 0)
    with pytest.raises(DeviceError, match="GPU 0 of 0"):
        build(tmp_path)
    monkeypatch.setattr(standin.Memory, "devices", 1)
    foreign = tmp_path / "foreign.engine"
    foreign.write_bytes(b"a plan of another version")
    with pytest.raises(ModelError, match="give mean and std"):
        TensorRtEngine(foreign)
    with pytest.raises(ModelError, match="cannot read"):
        TensorRtEngine(foreign, mean=networks.MEAN, std=networks.STD)


def test_without_cuda_the_library_is_named(monkeypatch):
    monkeypatch.setattr(cuda_memory, "_candidates", lambda: ["libno-such-thing.so"])
    with pytest.raises(DeviceError, match="libcudart"):
        cuda_memory.CudaMemory()


def test_a_quantized_file_is_built_without_images(trt, tmp_path, photographs):
    quantized = tmp_path / "q.onnx"
    overrides = [
        f"quantize.onnx_file={tmp_path / 'm.onnx'}",
        f"quantize.output={quantized}",
        f"results_dir={tmp_path / 'q'}",
    ]
    (tmp_path / "m.onnx").write_bytes(networks.exported_bytes())
    unalike.quantize(None, overrides, data=photographs)
    result = build(tmp_path, onnx_file=str(quantized))
    assert is_quantized_graph(onnx.load_from_string(trt.built["content"])) and result.path.is_file()
