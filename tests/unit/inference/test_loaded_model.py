import hashlib
import json

import onnx
import pytest

from tests.support import networks
from unalike.engines.metadata import file_key
from unalike.engines.onnx_engine import OnnxEngine
from unalike.errors import DeviceError
from unalike.inference import loaded_model, runtime_benchmark
from unalike.inference.loaded_model import load_model

real = hashlib.file_digest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_auto_takes_the_runtime_that_was_fastest_on_this_machine(tmp_path, monkeypatch):
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


def test_the_content_of_a_file_is_hashed_once(tmp_path, monkeypatch):
    """For the rates of its runtimes and, where its metadata has no key, for that."""
    proto = onnx.load_from_string(networks.exported_bytes())
    facts = json.loads(proto.metadata_props[-1].value)
    assert facts["network"] == ""
    model = tmp_path / "model.onnx"
    model.write_bytes(proto.SerializeToString())
    digests = []
    monkeypatch.setattr(loaded_model.hashlib, "file_digest", lambda *a: digests.append(a) or real(*a))
    assert load_model(model, images=5).network == file_key(model.read_bytes()) and len(digests) == 1
