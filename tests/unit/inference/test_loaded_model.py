import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.support import networks
from tests.support.mutations import mutations
from tests.support.networks import VIEW, exported_bytes
from unalike.engines.metadata import KEY, file_key, read_facts
from unalike.engines.onnx_engine import OnnxEngine
from unalike.errors import DeviceError, ModelError, UnalikeError
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
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: digests.append(a) or real(*a))
    assert load_model(model, images=5).network == file_key(model.read_bytes()) and len(digests) == 1


def test_the_content_that_is_kept_is_what_the_engine_was_made_of(tmp_path, monkeypatch):
    """An inspector or an approved set keeps it beside the vectors that the engine computes: both have to be one network."""
    path, real = tmp_path / "m.onnx", loaded_model._load_exported
    path.write_bytes(networks.exported_bytes())

    def replaced_before(*arguments):
        path.write_bytes(networks.exported_bytes(seed=1))
        model = real(*arguments)
        path.write_bytes(networks.exported_bytes(seed=2))
        return model

    monkeypatch.setattr(loaded_model, "_load_exported", replaced_before)
    for runtime in ("openvino", "onnxruntime"):
        path.write_bytes(networks.exported_bytes())
        model = load_model(path, runtime=runtime, precision="fp32", keep_content=True)
        assert model.content == networks.exported_bytes() and model.network == file_key(model.content)
        expected = networks.plain_vectors(networks.SmallEmbedder(0).eval(), networks.pictures(2))
        np.testing.assert_allclose(model.engine(networks.pictures(2)), expected, atol=1e-4)
    assert load_model(path, runtime="onnxruntime").content is None


# ---------------------------------------------------------------- files from outside


@pytest.mark.parametrize(
    "seeds", [range(40), pytest.param(range(40, 2000), marks=pytest.mark.slow)], ids=["some", "many"]
)
@pytest.mark.parametrize("suffix", [".onnx", ".pth"])
def test_damaged_models_are_loaded_or_refused(tmp_path: Path, suffix: str, seeds: range) -> None:
    if suffix == ".onnx":
        content = exported_bytes()
    else:
        network = tmp_path / "whole.pth"
        torch.save(
            {"format_version": 1, "spec": {"model": {"backbone": "resnet18"}}, "model": {"a": torch.ones(3)}}, network
        )
        content = network.read_bytes()
    path = tmp_path / f"damaged{suffix}"
    for seed, changed in mutations(content, seeds):
        path.write_bytes(changed)
        try:
            load_model(path, runtime="onnxruntime" if suffix == ".onnx" else "torch")
        except UnalikeError as error:
            assert "\n" not in str(error) and len(str(error)) < 1500
        except Exception as error:  # noqa: BLE001  named with its seed, so that it can be mended
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")


FACTS: dict[str, Any] = {
    "format_version": 1, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "view": VIEW.to_dict(), "classes": ["a"], "dim": 16,
    "preprocessing": "none", "precision": "fp32", "trunk": "t", "licence": "l", "network": "n", "versions": {}, "extra": {}, "maps": [],
}  # fmt: skip
WRONG = (None, -1, 0, 10**400, 1.5, "x", "", [], [1], [None], ["a", "b", "c"], {}, {"a": 1}, True, float("nan"))


@pytest.mark.parametrize("key", [*FACTS, "view.height", "view.mode", "view.resize_ratio", "view.interpolation"])
def test_metadata_of_other_types_is_read_or_refused(tmp_path: Path, key: str) -> None:
    proto = onnx.load_from_string(exported_bytes())
    for wrong in WRONG:
        values = copy.deepcopy(FACTS)
        *outer, last = key.split(".")
        (values[outer[0]] if outer else values)[last] = wrong
        del proto.metadata_props[:]
        entry = proto.metadata_props.add()
        entry.key, entry.value = KEY, json.dumps(values)
        (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
        try:
            model = load_model(tmp_path / "m.onnx", runtime="onnxruntime")
            model.engine(np.zeros((1, *model.engine.input_size, 3), np.uint8))
        except UnalikeError as error:
            assert "\n" not in str(error)
        except Exception as error:  # noqa: BLE001
            pytest.fail(f"{key} = {wrong!r}: {type(error).__name__}: {error}")


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "1", "{}", "[" * 100_000, '{"mean": 1, "std": 1, "format_version": "x"}']
)
def test_metadata_that_is_none(text: str) -> None:
    with pytest.raises(ModelError, match="metadata"):
        read_facts(text, "m.onnx", None, None)
