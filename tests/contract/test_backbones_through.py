"""Every TAO backbone, and trunks of timm of five kinds, all the way: a step of training, vectors, a proved ONNX file."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.deploy import parity
from unalike.deploy.onnx_export import Exported, export_onnx
from unalike.engines.onnx_engine import OnnxEngine
from unalike.engines.torch_engine import TorchEngine
from unalike.errors import ModelError
from unalike.model import fan
from unalike.model.backbones import BACKBONES
from unalike.model.embedder import Embedder, build_embedder
from unalike.model.timm_import import import_timm
from unalike.spec import load_spec
from unalike.training.losses import build_criterion
from unalike.training.optimizer import build_optimizer
from unalike.training.recipe import settle_normalization

LITE, VIT = "tf_efficientnet_lite0", "vit_tiny_patch16_224"
TIMM = (LITE, "resnet18", "convnext_atto", VIT, "mobilenetv3_small_050")
DIM = 32
SQUARE, TALL = (224, 224), (320, 160)  # height x width, as everywhere (D19)
SMALL = (96, 64)
QUICK = {"resnet_50": None, "fan_tiny": None, LITE: 14, VIT: None}  # name: opset; tracing takes most of the time
# Its position table is interpolated over whole patches of 14 pixels.
REFUSED = {("nvdinov2_vit_large_legacy", TALL): "320 x 160.*multiples of 14.*input_height = 322"}


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Eight images and two batch sizes where an export of a user takes 64 and three: seconds instead of minutes."""
    monkeypatch.setattr(parity, "fill_up_images", functools.partial(parity.fill_up_images, count=8))
    monkeypatch.setattr(parity, "check_parity", functools.partial(parity.check_parity, batches=(1, 3)))
    yield


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every kind of block once or twice: tracing costs by the block. Whole networks are the slow sweep's, below."""
    build, timm = fan._build, import_timm()
    fewer = {"resnet50": {"layers": (1, 1, 1, 1)}, VIT: {"depth": 2}}
    create = timm.create_model

    def create_shallow(name: str, **options: Any) -> Any:
        return create(name, **options, **fewer.get(name.split(".")[0], {}))

    def build_shallow(*sizes: Any, **shape: Any) -> Any:
        return build(*sizes, **{**shape, "depth": 2, "stem": (1, 1)})

    monkeypatch.setattr(timm, "create_model", create_shallow)
    monkeypatch.setattr(fan, "_build", build_shallow)
    yield


def pictures(size: tuple[int, int], count: int = 4) -> np.ndarray:
    """Coarse coloured patches, uint8: white noise alone looks the same to every random network."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 5, 4, 3), dtype=np.uint8)
    rows, columns = (np.arange(side) * cells // side for side, cells in zip(size, (5, 4), strict=True))
    return np.ascontiguousarray(coarse[:, rows][:, :, columns])


def spec_of(name: str, size: tuple[int, int]) -> Any:
    model = {"backbone": name, "pretrained": False, "input_height": size[0], "input_width": size[1], "feat_dim": DIM}
    return load_spec("train", {"model": model})


def train_one_step(spec: Any, embedder: Embedder) -> None:
    """One update on four images of two classes; trunk and head must have moved, to finite values."""
    criterion = build_criterion(spec, classes=2, dim=embedder.dim)
    optimizer = build_optimizer(spec, embedder, criterion)
    before = {key: value.detach().clone() for key, value in embedder.named_parameters()}
    images_NHWC = pictures((spec.model.input_height, spec.model.input_width))
    mean, std = torch.tensor(spec.dataset.pixel_mean), torch.tensor(spec.dataset.pixel_std)
    images_BCHW = ((torch.from_numpy(images_NHWC) / 255 - mean) / std).permute(0, 3, 1, 2)
    # Nearly the same images in another class: triplets that no network satisfies.
    images_BCHW = images_BCHW[[0, 1, 0, 1]] + 0.1 * torch.randn_like(images_BCHW)
    loss = criterion(embedder.train()(images_BCHW), torch.tensor([0, 0, 1, 1]))
    assert bool(loss.isfinite()) and float(loss.detach()) > 0
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    after = dict(embedder.named_parameters())
    assert all(bool(value.isfinite().all()) for value in after.values())
    moved = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"trunk", "head"}


def go_through(name: str, size: tuple[int, int], folder: Path, *, opset: int | None = None) -> Exported:
    """Train one step, embed, export, read the file back."""
    import_timm()
    from timm.layers import LayerScale

    torch.manual_seed(0)
    spec = spec_of(name, size)
    embedder = build_embedder(spec)
    settle_normalization(spec, embedder.trunk.facts)
    train_one_step(spec, embedder)
    # As after a training that lasted: statistics of real batches, and residual layers that say something (they begin at
    # 1e-5 in NV-DINOv2, whose class token is then nearly the same for all images).
    for module in embedder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        elif isinstance(module, LayerScale):
            nn.init.ones_(module.gamma)
    with torch.no_grad():
        embedder(torch.randn(4, 3, *size))
    mean, std = spec.dataset.pixel_mean, spec.dataset.pixel_std
    images_NHWC = pictures(size)
    vectors_ND = TorchEngine(embedder, mean, std, size)(images_NHWC)
    assert vectors_ND.shape == (4, DIM) and bool(np.isfinite(vectors_ND).all())
    unit_ND = vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    assert (unit_ND @ unit_ND.T)[~np.eye(4, dtype=bool)].max() < 0.9999, "all images look alike: parity proves nothing"
    done = export_onnx(embedder, folder / "model.onnx", Preprocessing(View(*size), mean, std), images_NHWC=images_NHWC,
                       opset=opset)  # fmt: skip
    assert done.parity.worst_cosine >= parity.WORST_COSINE and done.facts.dim == DIM and done.facts.trunk == name
    engine = OnnxEngine(done.path)
    assert engine.input_size == size
    found_ND = engine(images_NHWC)
    assert parity.compare_vectors(vectors_ND, found_ND)[0] >= parity.WORST_COSINE
    return done


def check_opset(done: Exported, opset: int | None) -> None:
    held = {entry.domain: entry.version for entry in onnx.load(done.path).opset_import}
    assert held[""] == done.opset and (done.opset == opset if opset else done.opset >= 18)


@pytest.mark.parametrize("name", QUICK)
def test_d04_quick_backbones_train_embed_and_export(name: str, tmp_path: Path, few_images: None, shallow: None) -> None:
    check_opset(go_through(name, SMALL, tmp_path, opset=QUICK[name]), QUICK[name])


@pytest.mark.slow
@pytest.mark.parametrize("size", [SQUARE, TALL], ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("name", [*BACKBONES, *TIMM])
def test_d04_every_backbone_trains_embeds_and_exports(
    name: str, size: tuple[int, int], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if (name, size) in REFUSED:
        with pytest.raises(ModelError, match=REFUSED[name, size]):
            build_embedder(spec_of(name, size))
        return
    if size == TALL:  # as many images as a user's export takes at the other size
        request.getfixturevalue("few_images")
    done = go_through(name, size, tmp_path)
    if size == SQUARE:
        assert done.parity.images == parity.IMAGES and done.parity.batches == parity.BATCHES


@pytest.mark.slow
@pytest.mark.parametrize("opset", [14, 17, None])
@pytest.mark.parametrize("name", ["resnet_50", LITE, "fan_tiny", VIT])
def test_opsets_of_every_kind_of_network(name: str, opset: int | None, tmp_path: Path, few_images: None) -> None:
    check_opset(go_through(name, SQUARE, tmp_path, opset=opset), opset)
