import os
import random
import shutil
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support import networks
from unalike.deploy.cpu_compile import write_ir
from unalike.deploy.onnx_graph import read_network
from unalike.engines import checksum
from unalike.engines.checksum import append_onnx_checksum, read_model_file
from unalike.engines.metadata import read_facts
from unalike.engines.onnx_engine import OnnxEngine
from unalike.engines.openvino_engine import OpenVinoEngine
from unalike.errors import ModelError


@pytest.fixture(params=["m.onnx", "m.xml"])
def model(request, tmp_path):
    path = tmp_path / request.param
    content = networks.exported_bytes()
    if path.suffix == ".onnx":
        path.write_bytes(append_onnx_checksum(content))
    else:
        write_ir(content, path, read_facts(None, "", networks.MEAN, networks.STD))
    return path


def engines(path):
    return [OpenVinoEngine] if path.suffix == ".xml" else [OpenVinoEngine, OnnxEngine]


def flip(path, position, bit=0x40):
    content = bytearray(path.read_bytes())
    content[position] ^= bit
    path.write_bytes(content)
    os.utime(path, (1, 1))  # not written just now


def test_a_flipped_bit_is_noticed_on_opening(model):
    for engine in engines(model):
        engine(model)
    for file in (model, *model.parent.glob("*.bin")):
        draws, size = random.Random(0), file.stat().st_size
        for position in [0, size // 2, *(draws.randrange(size - 120) for _ in range(25))]:
            flip(file, position)
            for engine in engines(model):
                with pytest.raises(ModelError, match="damaged: its checksum differs"):
                    engine(model)
            flip(file, position)
    assert read_model_file(model).graph == model.read_bytes()


def test_files_without_a_checksum_and_files_that_others_wrote_again_open(model):
    if model.suffix == ".xml":
        model.write_bytes(model.read_bytes().split(b"<!--unalike")[0])
    else:
        proto = onnx.load(model)
        onnx.checker.check_model(proto)
        proto.producer_name += " and another program"
        onnx.save(proto, model)
        assert proto.metadata_props[-1].key == "unalike_sha256"
        OnnxEngine(model)
        assert "unalike_sha256" not in [entry.key for entry in read_network(model.read_bytes(), "m").metadata_props]
        model.write_bytes(networks.exported_bytes())
    for engine in engines(model):
        engine(model)


def test_a_checksum_is_part_of_a_readable_network():
    content = networks.exported_bytes()
    sealed = append_onnx_checksum(content)
    assert append_onnx_checksum(read_network(sealed, "m").SerializeToString()) == append_onnx_checksum(
        read_network(content, "m").SerializeToString()
    )
    assert [e.key for e in onnx.load_from_string(sealed).metadata_props][-2:] == ["unalike", "unalike_sha256"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc here")
@pytest.mark.parametrize("kind", [OpenVinoEngine, OnnxEngine])
def test_no_engine_reads_its_file_while_it_computes(model, kind):
    """A mapped file that is written over in place ends the process."""
    if kind not in engines(model):
        pytest.skip("no file of this runtime")
    engine = kind(model)
    before = engine(networks.pictures(3))
    assert str(model.parent) not in Path("/proc/self/maps").read_text()
    for file in (model, *model.parent.glob("*.bin")):
        file.write_bytes(b"other")
    assert np.array_equal(engine(networks.pictures(3)), before)


def write_pair(folder, seed):
    folder.mkdir(exist_ok=True)
    facts = read_facts(None, "", networks.MEAN, networks.STD)
    write_ir(networks.exported_bytes(seed=seed), folder / "m.xml", facts)
    return OpenVinoEngine(folder / "m.xml", "fp32")(networks.pictures(2))


def test_a_graph_and_weights_that_are_replaced_one_after_the_other_are_waited_for(tmp_path):
    expected = [write_pair(tmp_path / name, seed) for seed, name in enumerate(("old", "new"))]
    live = tmp_path / "live"
    shutil.copytree(tmp_path / "old", live)
    shutil.copyfile(tmp_path / "new/m.bin", live / "m.bin")
    second = threading.Timer(0.5, lambda: shutil.copyfile(tmp_path / "new/m.xml", live / "m.xml"))
    second.start()
    vectors = OpenVinoEngine(live / "m.xml", "fp32")(networks.pictures(2))
    second.join()
    assert np.array_equal(vectors, expected[1]) and not np.allclose(*expected, atol=1e-3)


def test_a_file_that_is_replaced_between_two_readings_is_one_of_both(tmp_path, monkeypatch):
    """Whoever replaces the weights after the checksum was compared must not get them into the old graph."""
    expected = [write_pair(tmp_path / name, seed) for seed, name in enumerate(("old", "new"))]
    real = checksum._agrees

    def replaced_behind(*arguments):
        agrees = real(*arguments)
        for name in ("m.bin", "m.xml"):
            shutil.copyfile(tmp_path / "new" / name, tmp_path / "old" / name)
        return agrees

    monkeypatch.setattr(checksum, "_agrees", replaced_behind)
    assert np.array_equal(OpenVinoEngine(tmp_path / "old/m.xml", "fp32")(networks.pictures(2)), expected[0])


def test_a_file_that_is_written_all_the_time_is_named(tmp_path, monkeypatch):
    path, real = tmp_path / "m.onnx", checksum._read_unchanged
    path.write_bytes(networks.exported_bytes())
    monkeypatch.setattr(checksum, "WRITING_S", 0.2)
    monkeypatch.setattr(checksum, "_read_unchanged", lambda file: (real(file)[0], False, 0.0))
    with pytest.raises(ModelError, match=r"m\.onnx is written to again and again while it is read.*mv"):
        OnnxEngine(path)


def test_a_network_whose_tensors_are_in_another_file_opens_by_its_path(tmp_path):
    onnx.save(onnx.load_from_string(networks.exported_bytes()), tmp_path / "whole.onnx")
    onnx.save(onnx.load_from_string(networks.exported_bytes()), tmp_path / "parts.onnx", save_as_external_data=True,
              location="parts.data", size_threshold=1000)  # fmt: skip
    assert not read_model_file(tmp_path / "whole.onnx").names_other_files
    assert read_model_file(tmp_path / "parts.onnx").names_other_files
    for kind in engines(tmp_path / "parts.onnx"):
        vectors = [kind(tmp_path / name)(networks.pictures(2)) for name in ("whole.onnx", "parts.onnx")]
        np.testing.assert_allclose(*vectors, atol=1e-5)
