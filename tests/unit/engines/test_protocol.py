import numpy as np
import pytest
import torch

from tests.support import networks
from unalike.engines.metadata import KEY, NetworkFacts, read_facts
from unalike.engines.onnx_engine import OnnxEngine
from unalike.engines.openvino_engine import OpenVinoEngine, has_fast_bf16
from unalike.engines.protocol import Engine
from unalike.engines.torch_engine import TorchEngine
from unalike.errors import DataError, DeviceError, ModelError

ENGINES = {"onnxruntime": OnnxEngine, "openvino": lambda content: OpenVinoEngine(content, precision="fp32")}


def torch_engine(embedder=None, **settings):
    return TorchEngine(embedder or networks.SmallEmbedder(), networks.MEAN, networks.STD, networks.SIZE, **settings)


@pytest.fixture(params=["torch", "onnxruntime", "openvino"])
def engine(request):
    if request.param == "torch":
        return torch_engine(networks.SmallEmbedder().eval())
    return ENGINES[request.param](networks.exported_bytes())


@pytest.mark.parametrize("count", [0, 1, 7, 33])
def test_vectors_equal_the_slow_oracle(engine, count):
    images = networks.pictures(count)
    vectors = engine(images)
    assert isinstance(engine, Engine)
    assert vectors.shape == (count, 16) and vectors.dtype == np.float32
    assert engine.dim == 16 and engine.input_size == networks.SIZE and engine.batch >= 1
    if count:
        expected = networks.plain_vectors(networks.SmallEmbedder(), images)
        assert np.abs(vectors - expected).max() < 1e-5


def test_grouping_into_calls_does_not_matter(engine):
    images = networks.pictures(11)
    one_by_one = np.concatenate([engine(images[i : i + 1]) for i in range(11)])
    assert np.abs(engine(images) - one_by_one).max() < 1e-5


def test_d19_height_and_width_are_not_swapped(engine):
    height, width = networks.SIZE
    assert engine.input_size == (height, width)
    with pytest.raises(DataError, match="height, width"):
        engine(networks.pictures(2, size=(width, height)))


def test_images_that_are_not_a_view_are_refused(engine):
    with pytest.raises(DataError, match="uint8"):
        engine(networks.pictures(2).astype(np.float32))
    with pytest.raises(DataError, match="uint8"):
        engine(networks.pictures(1)[0])


def test_describe_names_runtime_precision_device(engine):
    description = engine.describe()
    assert description["runtime"] == engine.name and description["precision"] == "fp32" and description["device"]


@pytest.mark.parametrize("name", list(ENGINES))
def test_embedded_preprocessing_gives_the_same_vectors(name):
    images = networks.pictures(5)
    vectors = ENGINES[name](networks.exported_bytes(embedded=True))(images)
    assert np.abs(vectors - ENGINES[name](networks.exported_bytes())(images)).max() < 1e-5


@pytest.mark.parametrize("name", list(ENGINES))
@pytest.mark.parametrize("count", [1, 4, 6])
def test_d35_static_batch_of_several_works_on_any_number_of_images(name, count):
    images = networks.pictures(count)
    engine = ENGINES[name](networks.exported_bytes(batch_size=4))
    assert np.abs(engine(images) - networks.plain_vectors(networks.SmallEmbedder(), images)).max() < 1e-5


@pytest.mark.parametrize("name", list(ENGINES))
def test_metadata_is_read(name):
    facts = ENGINES[name](networks.exported_bytes()).facts
    assert facts.mean == networks.MEAN and facts.classes == ("a", "ü") and facts.trunk == "small"
    assert facts.view == networks.VIEW.to_dict() and facts.format_version == 1


@pytest.mark.parametrize("name", list(ENGINES))
def test_a_foreign_network_needs_mean_and_std(name, tmp_path):
    import onnx

    foreign = onnx.load_from_string(networks.exported_bytes())
    del foreign.metadata_props[:]
    content = foreign.SerializeToString()
    kind = OnnxEngine if name == "onnxruntime" else OpenVinoEngine
    with pytest.raises(ModelError, match="give mean and std"):
        kind(content)
    images = networks.pictures(3)
    vectors = kind(content, mean=networks.MEAN, std=networks.STD)(images)
    cosine = (vectors * networks.plain_vectors(networks.SmallEmbedder(), images)).sum(1)
    assert (cosine > 0).all()


@pytest.mark.parametrize("name", list(ENGINES))
def test_damaged_or_missing_files_are_one_line_errors(name, tmp_path):
    kind = OnnxEngine if name == "onnxruntime" else OpenVinoEngine
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no network at all")
    with pytest.raises(ModelError, match="cannot read") as caught:
        kind(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="there is no model file"):
        kind(tmp_path / "nothing.onnx")


def test_facts_survive_json_and_newer_versions_are_refused():
    facts = NetworkFacts(mean=(0.5,), std=(0.1,), classes=("ä", "b"), view={"height": 3, "width": 4}, dim=7)
    assert read_facts(facts.to_json(), "x", None, None) == facts
    with pytest.raises(ModelError, match="newer release"):
        read_facts(facts.to_json().replace('"format_version": 1', '"format_version": 99'), "x", None, None)
    with pytest.raises(ModelError, match="damaged"):
        read_facts("{", "x", None, None)
    with pytest.raises(ModelError, match="lacks"):
        read_facts("{}", "x", None, None)
    with pytest.raises(ModelError, match="positive std"):
        NetworkFacts(mean=(0.5,), std=(0.0,))
    assert KEY == "unalike"


def test_torch_engine_gives_modes_back_and_runs_in_eval():
    embedder = networks.SmallEmbedder().train()
    embedder.head.eval()
    before = embedder.trunk.norm.running_mean.clone()
    vectors = torch_engine(embedder)(networks.pictures(4))
    assert embedder.trunk.training and not embedder.head.training
    assert torch.equal(before, embedder.trunk.norm.running_mean)
    assert np.abs(vectors - networks.plain_vectors(embedder, networks.pictures(4))).max() < 1e-5


def test_precisions_a_machine_lacks_are_refused():
    with pytest.raises(DeviceError, match="fp16 on a CPU"):
        torch_engine(precision="fp16")
    with pytest.raises(DeviceError, match="expected"):
        OpenVinoEngine(networks.exported_bytes(), precision="int3")
    if not has_fast_bf16():
        with pytest.raises(DeviceError, match="bfloat16"):
            OpenVinoEngine(networks.exported_bytes(), precision="bf16")


def test_bf16_stays_near_fp32():
    images = networks.pictures(16)
    vectors = torch_engine(precision="bf16")(images)
    exact = torch_engine()(images)
    cosine = (vectors * exact).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosine.min() > 0.999
    if has_fast_bf16():
        vectors = OpenVinoEngine(networks.exported_bytes(), precision="bf16")(images)
        cosine = (vectors * exact).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(exact, axis=1)
        assert cosine.min() > 0.999


@pytest.mark.parametrize(("mean", "std"), [
    ([123.7, 116.3, 103.5], [0.2] * 3), ([0.5] * 3, [58.4, 57.1, 57.4]), ("0.5", [0.2] * 3), ([], []), (0.5, 0.2),
])  # fmt: skip
def test_mean_and_std_of_a_foreign_network_are_on_the_scale_of_one(mean, std):
    with pytest.raises(ModelError, match=r"expected one number a channel, on the scale 0\.\.1"):
        read_facts(None, "a network", mean, std)
