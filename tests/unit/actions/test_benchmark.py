import json

import numpy as np
import pytest
from PIL import Image

from tests.support import networks
from unalike.actions.benchmark import bench_engine, measure_engines, table
from unalike.engines.onnx_engine import OnnxEngine
from unalike.errors import DeviceError, ModelError, SpecError
from unalike.inference import runtime_benchmark
from unalike.inference.loaded_model import load_model


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_bench_measures_every_engine_by_batch_and_is_kept(tmp_path, cache):
    model = networks.write_model(tmp_path)
    output = tmp_path / "out" / "bench.json"
    result = bench_engine(model, batches="1,4", seconds=0.02, output=output)
    found = result.figures
    assert json.loads(output.read_text()) == found and (result.path, result.results_dir) == (output, output.parent)
    assert [row["runtime"] for row in found["engines"]] == ["openvino", "onnxruntime"]
    for row in found["engines"]:
        assert [part["batch"] for part in row["by_batch"]] == [1, 4]
        assert all(0 < part["p50_ms"] <= part["p99_ms"] for part in (*row["by_batch"], row["file_to_vector"]))
    assert found["decoding"]["images_per_second_in_threads"] > 0
    lines = table(found).splitlines()
    assert len(lines) == 3 + 2 * 3 and "onnxruntime fp32" in lines[-1]
    assert set(runtime_benchmark.load_rates(runtime_benchmark.content_key(model.read_bytes()))) == {
        "openvino",
        "onnxruntime",
    }


def test_bench_takes_pictures_and_refuses_what_it_cannot_run(tmp_path):
    model = networks.write_model(tmp_path)
    (tmp_path / "pictures").mkdir()
    Image.fromarray(networks.pictures(1)[0]).save(tmp_path / "pictures" / "a.png")
    found = measure_engines(model, data=tmp_path / "pictures", batches=[2], seconds=0.01, runtimes="onnxruntime")
    assert found["images"].endswith("pictures") and len(found["engines"]) == 1
    with pytest.raises(SpecError, match="whole numbers >= 1"):
        measure_engines(model, batches="1,x")
    with pytest.raises(DeviceError, match="expected auto, openvino or onnxruntime"):
        measure_engines(model, runtimes="tensorrt")
    with pytest.raises(SpecError, match="unknown key; did you mean 'batches'"):
        bench_engine(model, batchs="1")
    with pytest.raises(ModelError, match="unknown kind"):
        measure_engines(tmp_path / "model.txt")
    with pytest.raises(ModelError, match="no model file"):
        measure_engines(tmp_path / "none.onnx")


def test_figures_are_percentiles_and_rates():
    from unalike.actions.benchmark import _figures

    times = [0.01] * 98 + [0.02, 0.5]
    found = _figures(times, 4)
    assert found["p50_ms"] == 10 and found["p99_ms"] == pytest.approx(1000 * np.percentile(times, 99), abs=1e-3)
    assert found["images_per_second"] == pytest.approx(400 / sum(times), abs=0.01)


@pytest.mark.parametrize(("rates", "order", "winner"), [
    ({}, ["a", "b"], ""), ({"b": 3.0}, ["a", "b"], "b"), ({"a": 10.0, "b": 10.9}, ["a", "b"], "a"),
    ({"a": 10.0, "b": 11.1}, ["a", "b"], "b"), ({"a": 10.0, "b": 11.1, "c": 50.0}, ["a", "b"], "b"),
])  # fmt: skip
def test_the_first_keeps_its_place_within_the_margin(rates, order, winner):
    assert runtime_benchmark.fastest(rates, order) == winner


def test_rates_are_kept_by_machine_and_network_and_a_torn_file_is_nothing(cache, monkeypatch):
    runtime_benchmark.save_rates("n1", {"openvino": 10.0})
    runtime_benchmark.save_rates("n2", {"openvino": 20.0})
    assert runtime_benchmark.load_rates("n1") == {"openvino": 10.0} and runtime_benchmark.load_rates("n3") == {}
    monkeypatch.setattr(runtime_benchmark, "machine_key", lambda: "another machine")
    assert runtime_benchmark.load_rates("n1") == {}
    (cache / "engines.json").write_text("{torn")
    assert runtime_benchmark.load_rates("n2") == {}
    runtime_benchmark.save_rates("n2", {"torch": 1.0})
    assert runtime_benchmark.load_rates("n2") == {"torch": 1.0}


def test_auto_takes_what_was_found_fastest_here(tmp_path, monkeypatch):
    model = networks.write_model(tmp_path)
    assert load_model(model).engine.name == "openvino"
    runtime_benchmark.save_rates(
        runtime_benchmark.content_key(model.read_bytes()), {"openvino": 10.0, "onnxruntime": 20.0}
    )
    assert isinstance(load_model(model).engine, OnnxEngine)
    other = tmp_path / "other.onnx"
    other.write_bytes(networks.exported_bytes(embedded=True))
    monkeypatch.setattr(runtime_benchmark, "measure_rates", lambda engines: {"openvino": 1.0, "onnxruntime": 9.0})
    assert load_model(other, images=10).engine.name == "openvino"
    assert load_model(other, images=5000).engine.name == "onnxruntime"
    assert load_model(other).engine.name == "onnxruntime"  # kept


def test_threads_streams_and_device_reach_the_engine(tmp_path):
    model = networks.write_model(tmp_path)
    engine = load_model(model, runtime="openvino", threads=1, streams=1, device="cpu").engine
    assert engine.describe()["threads"] == 1 and engine.describe()["streams"] == 1
    assert load_model(model, runtime="onnxruntime", threads=1).engine.describe()["threads"] == 1
    with pytest.raises(DeviceError, match="streams with onnxruntime"):
        load_model(model, runtime="onnxruntime", streams=2)
    for runtime, device in (("openvino", "GPU.7"), ("onnxruntime", "cuda:0"), ("onnxruntime", "tpu")):
        with pytest.raises(DeviceError, match="device"):
            load_model(model, runtime=runtime, device=device)
