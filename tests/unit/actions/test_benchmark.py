import json

import numpy as np
import pytest
from PIL import Image

from tests.support import networks
from unalike.actions.benchmark import bench_engine, format_table, measure_engines
from unalike.errors import DeviceError, ModelError, SpecError
from unalike.inference import runtime_benchmark


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
    lines = format_table(found).splitlines()
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
    with pytest.raises(ModelError, match="no model of a known kind"):
        measure_engines(tmp_path / "model.txt")
    with pytest.raises(ModelError, match="no model file"):
        measure_engines(tmp_path / "none.onnx")


def test_figures_are_percentiles_and_rates():
    from unalike.actions.benchmark import _figures

    times = [0.01] * 98 + [0.02, 0.5]
    found = _figures(times, 4)
    assert found["p50_ms"] == 10 and found["p99_ms"] == pytest.approx(1000 * np.percentile(times, 99), abs=1e-3)
    assert found["images_per_second"] == pytest.approx(400 / sum(times), abs=0.01)
