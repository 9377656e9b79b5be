import random
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support import networks
from unalike.deploy.cpu_compile import write_ir
from unalike.deploy.onnx_graph import read_network
from unalike.engines.checksum import append_onnx_checksum, check_model_file
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
    check_model_file(model)


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
