"""FAN backbones: Fully Attentional Networks with a convolutional stem, as TAO's fan_tiny to fan_large.

Zhou et al., "Understanding The Robustness in Vision Transformers", ICML 2022, arXiv:2204.12451.

Tokens are mixed by self-attention; channels are then gated by an attention over channels, computed from how tokens
distribute themselves in each of them. Module names are those of published checkpoints, so that their keys match.
Shape letters: B images, N tokens, D width, K heads, C channels a head, H x W the grid of tokens.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from unalike.errors import ModelError
from unalike.model.timm_import import import_timm

STEM_WIDTHS = (128, 256)  # two ConvNeXt stages, strides 4 and 8; the patch projection halves once more: 16
LAYER_NORM_EPS = 1e-6


class FourierPosition(nn.Module):
    """Sines and cosines of the token's relative height and width, mixed to the network's width. Takes any grid."""

    def __init__(self, dim: int, bands: int = 32, temperature: float = 10000.0) -> None:
        super().__init__()
        self.bands, self.temperature = bands, temperature
        self.token_projection = nn.Conv2d(2 * bands, dim, kernel_size=1)

    def _waves(self, length: int, weight: torch.Tensor) -> torch.Tensor:
        """(length, bands): sine and cosine in turn, two bands a frequency, over positions scaled to (0, 2 pi]."""
        position = torch.arange(1, length + 1, dtype=torch.float32, device=weight.device)
        position = position / (length + 1e-6) * (2 * math.pi)
        pair = torch.arange(self.bands // 2, dtype=torch.float32, device=weight.device)
        angle = position[:, None] / self.temperature ** (2 * pair / self.bands)
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)

    def forward(self, height: int, width: int) -> torch.Tensor:
        """(1, H*W, D) to be added to the tokens."""
        weight = self.token_projection.weight
        rows = self._waves(height, weight)[:, None].expand(height, width, self.bands)
        columns = self._waves(width, weight)[None].expand(height, width, self.bands)
        waves = torch.cat([rows, columns], dim=-1).permute(2, 0, 1)[None].to(weight.dtype)
        encoding: torch.Tensor = self.token_projection(waves)
        return encoding.flatten(2).transpose(1, 2)


class DepthwisePair(nn.Module):
    """Two depthwise 3 x 3 convolutions over the token grid with GELU and BatchNorm between them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.act = nn.GELU()
        self.bn = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, tokens_BND: torch.Tensor, height: int, width: int) -> torch.Tensor:
        grid: torch.Tensor = tokens_BND.transpose(1, 2).unflatten(2, (height, width))  # type: ignore[no-untyped-call]
        grid = self.conv2(self.bn(self.act(self.conv1(grid))))
        return grid.flatten(2).transpose(1, 2)


class ConvolutionalMlp(nn.Module):
    """Linear, a residual pair of depthwise convolutions, Linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = DepthwisePair(hidden)
        self.gamma = nn.Parameter(torch.ones(hidden))
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens_BND: torch.Tensor, height: int, width: int) -> torch.Tensor:
        hidden = self.fc1(tokens_BND)
        output_BND: torch.Tensor = self.fc2(hidden + self.gamma * self.dwconv(hidden, height, width))
        return output_BND


class TokenMixing(nn.Module):
    """Multi-head self-attention over tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        query = self.q(tokens_BND).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.kv(tokens_BND).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        attention = F.scaled_dot_product_attention(query, key, value)
        output_BND: torch.Tensor = self.proj(attention.transpose(1, 2).flatten(2))
        return output_BND


class ChannelGate(nn.Module):
    """Attention over channels: each channel of a convolutional MLP's output is scaled by one gate a head and channel.

    The gate is a sigmoid of the overlap between the attention of a channel of the query (softmax over tokens) and the mean
    attention of the head's channels.
    """

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.mlp_v = ConvolutionalMlp(dim, hidden)
        self.norm_v = nn.LayerNorm(dim)
        self.q = nn.Linear(dim, dim)

    def forward(self, tokens_BND: torch.Tensor, height: int, width: int) -> torch.Tensor:
        attention = self.q(tokens_BND).softmax(dim=1).unflatten(-1, (self.heads, -1))
        average = tokens_BND.softmax(dim=1)
        average = average.unflatten(-1, (self.heads, -1)).mean(dim=-1, keepdim=True)  # type: ignore[no-untyped-call]
        overlap_BKC = (attention * average).sum(dim=1)
        gate_BKC = torch.sigmoid(overlap_BKC) * self.temperature[:, :, 0]
        value: torch.Tensor = self.norm_v(self.mlp_v(tokens_BND, height, width))
        return value * gate_BKC.flatten(1)[:, None]


class Block(nn.Module):
    """Token mixing, then channel gating, each residual with a learned scale."""

    def __init__(self, dim: int, heads: int, hidden: int, drop_path: float) -> None:
        from timm.layers.drop import DropPath

        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = TokenMixing(dim, heads)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = ChannelGate(dim, heads, hidden)
        self.gamma1 = nn.Parameter(torch.ones(dim))
        self.gamma2 = nn.Parameter(torch.ones(dim))

    def forward(self, tokens_BND: torch.Tensor, height: int, width: int) -> torch.Tensor:
        tokens_BND = tokens_BND + self.drop_path(self.gamma1 * self.attn(self.norm1(tokens_BND)))
        residual: torch.Tensor = self.drop_path(self.gamma2 * self.mlp(self.norm2(tokens_BND), height, width))
        return tokens_BND + residual


class ClassAttentionBlock(nn.Module):
    """The class token attends to the others (CaiT, arXiv:2103.17239); all tokens pass the norms."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        from timm.layers.mlp import Mlp
        from timm.models.cait import ClassAttn

        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = ClassAttn(dim, num_heads=heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, hidden)
        self.gamma1 = nn.Parameter(torch.ones(dim))
        self.gamma2 = nn.Parameter(torch.ones(dim))

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        norm_BND = self.norm1(tokens_BND)
        attention_BND = torch.cat([self.attn(norm_BND), norm_BND[:, 1:]], dim=1)
        tokens_BND = self.norm2(tokens_BND + self.gamma1 * attention_BND)
        # The other tokens add their own norm to themselves here: published weights were trained so.
        residual_BND = torch.cat([self.gamma2 * self.mlp(tokens_BND[:, :1]), tokens_BND[:, 1:]], dim=1)
        return tokens_BND + residual_BND


class ConvolutionalStem(nn.Module):
    """The patch layer and the first two stages of a ConvNeXt: stride 8."""

    def __init__(self, depths: tuple[int, int], in_chans: int) -> None:
        from timm.models.convnext import ConvNeXt

        super().__init__()
        # timm builds four stages or none; the last two are made as small as possible and dropped.
        convnext = ConvNeXt(
            in_chans=in_chans, num_classes=0, depths=(*depths, 1, 1), dims=(*STEM_WIDTHS, 8, 8), conv_mlp=True
        )
        self.stem = convnext.stem
        self.stages = convnext.stages[:2]

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.stages(self.stem(images_BCHW))
        return features


class HybridEmbed(nn.Module):
    """A convolutional stem and a 2 x 2 projection: one token for 16 x 16 pixels."""

    def __init__(self, depths: tuple[int, int], in_chans: int, dim: int) -> None:
        super().__init__()
        self.backbone = ConvolutionalStem(depths, in_chans)
        self.proj = nn.Conv2d(STEM_WIDTHS[-1], dim, kernel_size=2, stride=2)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        grid_BDHW: torch.Tensor = self.proj(self.backbone(images_BCHW))
        return grid_BDHW


class FullyAttentional(nn.Module):
    """``images_BCHW`` -> class token, shape (B, D). Height and width: at least 32."""

    def __init__(
        self, *, dim: int, depth: int, heads: int, stem: tuple[int, int], in_chans: int = 3, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        hidden = 4 * dim
        self.patch_embed = HybridEmbed(stem, in_chans, dim)
        self.pos_embed = FourierPosition(dim)
        self.blocks = nn.ModuleList(Block(dim, heads, hidden, drop_path) for _ in range(depth))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.cls_attn_blocks = nn.ModuleList(ClassAttentionBlock(dim, heads, hidden) for _ in range(2))
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self._init_weights()

    def _init_weights(self) -> None:
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, DepthwisePair):
                for convolution in (module.conv1, module.conv2):
                    nn.init.normal_(convolution.weight, std=math.sqrt(2.0 / 9))  # 9 taps, one channel a group
                    if convolution.bias is not None:
                        nn.init.zeros_(convolution.bias)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        grid = self.patch_embed(images_BCHW)
        height, width = grid.shape[-2:]
        tokens_BND = grid.flatten(2).transpose(1, 2) + self.pos_embed(height, width)
        for block in self.blocks:
            tokens_BND = block(tokens_BND, height, width)
        tokens_BND = torch.cat([self.cls_token.expand(tokens_BND.shape[0], -1, -1), tokens_BND], dim=1)
        for block in self.cls_attn_blocks:
            tokens_BND = block(tokens_BND)
        norm_BND: torch.Tensor = self.norm(tokens_BND)
        return norm_BND[:, 0]


def _build(in_chans: int, input_size: tuple[int, int], drop_path: float, **shape: Any) -> FullyAttentional:
    import_timm()
    if min(input_size) < 32:
        raise ModelError(
            f"images of {input_size[0]} x {input_size[1]} (height x width) are too small for fan_*",
            expected="both sides at least 32 pixels",
        )
    return FullyAttentional(in_chans=in_chans, drop_path=drop_path, **shape)


def fan_tiny(in_chans: int = 3, input_size: tuple[int, int] = (224, 224), drop_path: float = 0.0) -> FullyAttentional:
    """8 blocks, width 192: 7.4 M parameters in the paper, its 1000-way classifier included."""
    return _build(in_chans, input_size, drop_path, dim=192, depth=8, heads=8, stem=(3, 3))


def fan_small(in_chans: int = 3, input_size: tuple[int, int] = (224, 224), drop_path: float = 0.0) -> FullyAttentional:
    """10 blocks, width 384: 26.3 M."""
    return _build(in_chans, input_size, drop_path, dim=384, depth=10, heads=8, stem=(3, 3))


def fan_base(in_chans: int = 3, input_size: tuple[int, int] = (224, 224), drop_path: float = 0.0) -> FullyAttentional:
    """16 blocks, width 448: 50.4 M."""
    return _build(in_chans, input_size, drop_path, dim=448, depth=16, heads=8, stem=(3, 3))


def fan_large(in_chans: int = 3, input_size: tuple[int, int] = (224, 224), drop_path: float = 0.0) -> FullyAttentional:
    """22 blocks, width 480: 76.8 M."""
    return _build(in_chans, input_size, drop_path, dim=480, depth=22, heads=10, stem=(3, 5))
