"""Reading foreign files safely, and placing their tensors under a strict report."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from unalike.errors import WeightsError
from unalike.model.backbones import build_trunk
from unalike.model.embedder import (
    Embedder,
    EmbedderConfig,
    LinearHead,
    ResidualHead,
    build_embedder,
    create_embedder,
    load_trunk_weights,
)
from unalike.model.weight_files import read_content, read_weights
from unalike.model.weights import load_tensors
from unalike.spec import Experiment, load_spec

SIZE = (32, 32)


def spec_of(**model: object) -> Experiment:
    own: dict[str, object] = {
        "backbone": "resnet18",
        "feat_dim": 8,
        "input_height": SIZE[0],
        "input_width": SIZE[1],
        "pretrained": "false",
    }
    return load_spec("train", None, {"model": {**own, **model}})


@pytest.fixture(scope="module")
def small() -> Embedder:
    """A ResNet-18 with a head of 8, its tensors random."""
    torch.manual_seed(1)
    return create_embedder(EmbedderConfig("resnet18", 8, 3, SIZE))


def same(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


class Hostile:
    """Pickles to a call of os.system that creates ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.path}'",)


class Stranger(dict):
    """Stands for OmegaConf's containers: a class that this program does not know, with state."""

    def __init__(self, **state: object) -> None:
        super().__init__(state)
        self.state = state


# ------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
def test_a_hostile_pickle_does_nothing(tmp_path: Path, new_format: bool) -> None:
    sign = tmp_path / "executed"
    file = tmp_path / "hostile.pth"
    content = {"state_dict": {"a.weight": torch.ones(2)}, "hyper_parameters": Hostile(sign)}
    torch.save(content, file, _use_new_zipfile_serialization=new_format)
    tensors = read_weights(file)
    assert not sign.exists()
    assert torch.equal(tensors["a.weight"], torch.ones(2))
    # the test itself would notice: plain unpickling does create the file
    torch.load(file, weights_only=False)
    assert sign.exists()


@pytest.mark.parametrize(
    "instruction",
    [
        b"cos\nsystem\n(S'touch %s'\ntR.",
        b'cbuiltins\neval\n(S\'open("%s","w")\'\ntR.',
        b"cbuiltins\ngetattr\n(cos\nopen\nS'x'\ntR.",
        b"ctorch.storage\n_load_from_bytes\n(C\x04abcdtR.",
        b"ctorch\nload\n(S'%s'\ntR.",
        b"ctorch.hub\nload\n(S'%s'\ntR.",
    ],
)
def test_every_callable_outside_the_list_is_inert(tmp_path: Path, instruction: bytes) -> None:
    import io

    from unalike.model.weight_files import InertPlaceholder, _bounded_load

    sign = tmp_path / "executed"
    stream = instruction.replace(b"%s", str(sign).encode())
    assert isinstance(_bounded_load(io.BytesIO(stream)), InertPlaceholder)
    assert not sign.exists()


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
def test_lightning_files_with_foreign_objects_load(tmp_path: Path, small: Embedder, new_format: bool) -> None:
    state = {f"model.trunk.{k}": v for k, v in small.trunk.net.state_dict().items()}
    state["model.embedder.net.0.weight"] = state["model.embedder.last_linear.weight"] = small.head.linear.weight
    state["model.embedder.net.0.bias"] = state["model.embedder.last_linear.bias"] = small.head.linear.bias
    content = {
        "epoch": 3,
        "state_dict": state,
        "hyper_parameters": Stranger(model=Stranger(backbone="resnet")),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
        "callbacks": {Stranger: 1},
    }
    file = tmp_path / "tao.pth"
    torch.save(content, file, _use_new_zipfile_serialization=new_format)
    torch.manual_seed(2)
    fresh = build_embedder(spec_of(pretrained_model_path=str(file)))
    assert same(fresh, small)
    assert fresh.trunk.facts.pretrained and "tao.pth" in fresh.trunk.facts.source


def test_real_omegaconf_objects_load(tmp_path: Path) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    file = tmp_path / "tao.ckpt"
    torch.save({"state_dict": {"a": torch.ones(1)}, "spec": omegaconf.OmegaConf.create({"x": [1, {"y": 2}]})}, file)
    assert set(read_weights(file)) == {"a"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (bytes(range(7, 256)) * 9, "encrypted"),
        (b"\x80\x02" + b"\x07garbage" * 40, "damaged"),
        (b"PK\x03\x04" + b"\x00" * 300, "damaged or truncated"),
        (b"\x89HDF\r\n\x1a\n" + b"\x00" * 300, "HDF5"),
    ],
)
def test_unreadable_files_get_one_line_that_says_what_they_are(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=said) as caught:
        read_weights(file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


def test_truncated_zip_folder_missing_and_torchscript(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pth"
    torch.save({"a": torch.randn(1000)}, whole)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(WeightsError, match="truncated"):
        read_weights(cut)
    with pytest.raises(WeightsError, match="does not exist"):
        read_weights(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="folder"):
        read_weights(tmp_path)
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"")
        archive.writestr("model/constants.pkl", b"")
    with pytest.raises(WeightsError, match="TorchScript"):
        read_weights(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "photos.pth", "w") as archive:
        archive.writestr("a.jpg", b"")
    with pytest.raises(WeightsError, match="without tensors"):
        read_weights(tmp_path / "photos.pth")


def test_tao_encryption_is_named(tmp_path: Path) -> None:
    file = tmp_path / "locked.pth"
    torch.save({"state_dict_encrypted": True, "state_dict": b"\x01\x02"}, file)
    with pytest.raises(WeightsError, match="encryption_key"):
        read_weights(file)


def test_whole_pickled_network_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "network.pth"
    torch.save(nn.Linear(2, 2), file)
    with pytest.raises(WeightsError, match="state_dict"):
        read_weights(file)


def test_all_formats_and_wrappers_give_the_same_tensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = {"a.weight": torch.randn(2, 3), "b": torch.randn(4, dtype=torch.float16)}
    contents = [
        tensors,
        {"state_dict": tensors},
        {"model": {"state_dict": tensors}, "optimizer": {"state": {0: torch.ones(1)}}},
        {"teacher": tensors, "epoch": 1},
        {"model": {"a": {"weight": tensors["a.weight"]}, "b": tensors["b"]}, "optimizer": {"b": torch.ones(1)}},
    ]
    for number, content in enumerate(contents):
        torch.save(content, tmp_path / f"{number}.ckpt")
    save_file(tensors, tmp_path / "plain.safetensors")
    for file in [*(tmp_path / f"{n}.ckpt" for n in range(len(contents))), tmp_path / "plain.safetensors"]:
        read = read_weights(file)
        assert read.keys() == tensors.keys(), file
        assert all(torch.equal(read[k], tensors[k]) and read[k].dtype == tensors[k].dtype for k in tensors)


def test_safetensors_are_read_as_their_library_reads_them(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    types = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
             torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2]  # fmt: skip
    tensors = {f"{dtype}": (10 * torch.randn(3, 5)).to(dtype) for dtype in types}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 4)}
    file = tmp_path / "t.safetensors"
    save_file(tensors, file, metadata={"format": "pt"})
    own, theirs = read_content(file), load_file(file)
    assert own.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert own[name].dtype == tensor.dtype and own[name].shape == tensor.shape
        assert torch.equal(own[name].view(torch.uint8).flatten() if tensor.dim() and tensor.numel() else own[name],
                           tensor.view(torch.uint8).flatten() if tensor.dim() and tensor.numel() else tensor)  # fmt: skip
    file.write_bytes(b"another file")  # copied over: what was read stays
    assert own["torch.float32"].equal(tensors["torch.float32"])


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 8000]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-4, 4]},
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]},
        {"dtype": "X9", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2]},
        [],
    ],
)
def test_forged_safetensors_are_one_line(tmp_path: Path, entry: object) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": entry}).encode()
    file = tmp_path / "t.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(WeightsError, match="damaged"):
        read_weights(file)


def test_reading_needs_no_import_of_what_the_file_names(tmp_path: Path) -> None:
    """A module of the file's choosing is not even imported."""
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')\nclass Thing: pass\n")
    stream = b"\x80\x02ctrap\nThing\n)\x81."
    (tmp_path / "stream").write_bytes(stream)
    code = (
        "import io, sys; from unalike.model.weight_files import _bounded_load;"
        f"print(type(_bounded_load(open({str(tmp_path / 'stream')!r}, 'rb'))).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    assert done.stdout.strip() == "InertPlaceholder", done.stderr
    with pytest.raises(SystemExit):
        sys.path.insert(0, str(tmp_path))
        try:
            pickle.loads(stream)
        finally:
            sys.path.remove(str(tmp_path))


# ------------------------------------------------------------------------------------------- placing


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "model.trunk.", "state.module.encoder."])
def test_d05_trunk_loads_under_any_prefix(tmp_path: Path, small: Embedder, prefix: str) -> None:
    state = {prefix + k: v for k, v in small.trunk.net.state_dict().items()}
    state[prefix + "fc.weight"], state[prefix + "fc.bias"] = torch.zeros(1000, 512), torch.zeros(1000)  # torchvision's
    file = tmp_path / "resnet.pth"
    torch.save(state, file)
    torch.manual_seed(3)
    fresh = build_embedder(spec_of(pretrained_trunk_path=str(file)))
    assert same(fresh.trunk.net, small.trunk.net)


def test_d05_anything_but_all_loaded_is_an_error(tmp_path: Path, small: Embedder) -> None:
    state = dict(small.trunk.net.state_dict())
    changes = {
        "1 missing": {k: v for k, v in state.items() if k != "conv1.weight"},
        "1 unexpected": {**state, "layer9.weight": torch.ones(2)},
        "1 misshaped": {**state, "conv1.weight": torch.ones(64, 1, 7, 7)},
    }
    for said, tensors in changes.items():
        file = tmp_path / "changed.pth"
        torch.save(tensors, file)
        with pytest.raises(WeightsError, match=said):
            build_embedder(spec_of(pretrained_trunk_path=str(file)))
        build_embedder(spec_of(pretrained_trunk_path=str(file), allow_partial_weights=True))


def test_d05_nothing_loaded_is_an_error_even_where_partial_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save({"something.else": torch.ones(3)}, file)
    for allowed in (False, True):
        with pytest.raises(WeightsError, match="0 of"):
            build_embedder(spec_of(pretrained_trunk_path=str(file), allow_partial_weights=allowed))


def test_d05_report_counts_every_tensor(small: Embedder) -> None:
    state = {f"x.{k}": v for k, v in small.trunk.net.state_dict().items()}
    fresh = build_trunk("resnet18", pretrained=False, input_size=SIZE).net
    report = load_tensors(fresh, {**state, "x.fc.weight": torch.ones(1), "head.w": torch.ones(1)}, part="trunk")
    assert report.complete and len(report.loaded) == len(fresh.state_dict())
    assert report.ignored == ("fc.weight",) and report.elsewhere == ("head.w",)


def test_batchnorm_counters_may_be_missing(small: Embedder) -> None:
    state = {k: v for k, v in small.trunk.net.state_dict().items() if not k.endswith("num_batches_tracked")}
    fresh = build_trunk("resnet18", pretrained=False, input_size=SIZE).net
    assert load_tensors(fresh, state, part="trunk").complete


@pytest.mark.parametrize("prefix", ["", "embedder.", "model.embedder.", "1."])
def test_tao_linear_head_loads(prefix: str) -> None:
    weight, bias = torch.randn(8, 16), torch.randn(8)
    head = LinearHead(16, 8)
    names = ("net.0", "last_linear")  # one Linear under two names
    tensors = {f"{prefix}{name}.{k}": v for name in names for k, v in (("weight", weight), ("bias", bias))}
    assert load_tensors(
        head, {**tensors, "0.conv1.weight": torch.ones(1)} if prefix else tensors, part="embedder"
    ).complete
    assert torch.equal(head.linear.weight, weight) and torch.equal(head.linear.bias, bias)


class TaoResidualHead(nn.Module):
    """TAO's head for FAN as its files describe it: the same arithmetic under its names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("classifier_feat", "classifier_feat2", "classifier_feat3", "classifier_feat4"):
            middle = nn.Linear(width, width // 2)
            self.add_module(name, nn.Sequential(middle, nn.GELU(), nn.Linear(width // 2, width)))
        self.embedding_fc = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in ("classifier_feat", "classifier_feat2", "classifier_feat3", "classifier_feat4"):
            x = x + self.get_submodule(name)(x)
        return self.embedding_fc(x)


def test_tao_residual_head_loads_and_computes_the_same() -> None:
    torch.manual_seed(0)
    theirs, ours = TaoResidualHead(12), ResidualHead(12, 12)
    report = load_tensors(ours, {f"model.embedder.{k}": v for k, v in theirs.state_dict().items()}, part="embedder")
    assert report.complete
    features = torch.randn(5, 12)
    torch.testing.assert_close(ours(features), theirs(features))


def test_a_tao_head_without_projection_names_feat_dim() -> None:
    with pytest.raises(WeightsError, match="feat_dim to the trunk's width"):
        load_tensors(ResidualHead(12, 6), TaoResidualHead(12).state_dict(), part="embedder")


def test_dinov2_names_and_position_table() -> None:
    """A DINOv2 file (SwiGLU as w12/w3, chunked blocks, mask token, another grid) fills a network of timm's kind."""
    from unalike.model.timm_import import import_timm

    import_timm()
    from timm.layers import SwiGLUPacked
    from timm.models.vision_transformer import VisionTransformer

    def build(size: int) -> nn.Module:
        return VisionTransformer(
            img_size=size, patch_size=14, embed_dim=16, depth=2, num_heads=2, num_classes=0, init_values=1e-5,
            mlp_layer=SwiGLUPacked, act_layer=nn.SiLU, mlp_ratio=2,
        )  # fmt: skip

    torch.manual_seed(0)
    theirs, ours = build(56), build(28)
    state = {}
    for key, value in theirs.state_dict().items():
        key = key.replace("blocks.", "blocks.0.").replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        state[f"teacher.backbone.{key}"] = value
    state["teacher.backbone.mask_token"] = torch.zeros(1, 16)
    state["teacher.dino_head.mlp.0.weight"] = torch.zeros(3)
    report = load_tensors(ours, state, part="trunk")
    assert report.complete and report.resized == ("pos_embed",) and report.ignored == ("mask_token",)
    assert torch.equal(ours.get_parameter("blocks.1.mlp.fc1.weight"), theirs.get_parameter("blocks.1.mlp.fc1.weight"))


def test_own_checkpoints_serve_as_pretrained_weights(tmp_path: Path, small: Embedder) -> None:
    from unalike.model.checkpoint import write_checkpoint

    file = write_checkpoint(
        tmp_path / "own.pth",
        {"model": small.state_dict(), "spec": {}, "training": {"optimizer": {"exp": torch.ones(1)}}},
    )
    assert same(build_embedder(spec_of(pretrained_model_path=str(file))), small)
    other = build_embedder(spec_of(pretrained_trunk_path=str(file), feat_dim=4))
    assert same(other.trunk.net, small.trunk.net)
    with pytest.raises(WeightsError, match="misshaped"):
        build_embedder(spec_of(pretrained_embedder_path=str(file), feat_dim=4))


def test_loading_is_said(tmp_path: Path, small: Embedder, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "resnet.pth"
    torch.save({**small.trunk.net.state_dict(), "fc.weight": torch.ones(2, 2)}, file)
    load_trunk_weights(small.trunk, spec_of(pretrained_trunk_path=str(file)))
    said = capsys.readouterr().err
    assert "of the trunk loaded" in said and "1 ignored (fc.weight)" in said


def test_a_flipped_bit_is_noticed_and_files_without_checksums_open(tmp_path):
    path, tensors = tmp_path / "w.pth", {"a": torch.randn(4000)}
    torch.save(tensors, path)
    whole = path.read_bytes()
    start = whole.index(tensors["a"].numpy().tobytes())
    for offset in (0, 7001, 15_999):
        damaged = bytearray(whole)
        damaged[start + offset] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="damaged.*checksum of w/data/0 differs|damaged.*Bad CRC"):
            read_weights(path)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(tensors, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_weights(path)["a"], tensors["a"])
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_weights(path)["a"], tensors["a"])
