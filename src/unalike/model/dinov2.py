"""NV-DINOv2 (legacy) backbone: a ViT-L/14 with a gated (SwiGLU) feed-forward of 2 x 2736 hidden units.

Oquab et al., "DINOv2", arXiv:2304.07193; the feed-forward from Shazeer, arXiv:2002.05202. timm's vision transformer
is assembled with these parts; ``weights.py`` renames the keys of original DINOv2 files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from unalike.errors import ModelError
from unalike.model.timm_import import import_timm

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

PATCH = 14
GATED_HIDDEN = 5472  # both halves of the gated layer; the second linear layer reads 2736


def nvdinov2_vit_large_legacy(
    in_chans: int = 3, input_size: tuple[int, int] = (224, 224), drop_path: float = 0.0
) -> VisionTransformer:
    """Build the backbone: ``images_BCHW`` -> class token after the final norm, shape (B, 1024); 303.7 M parameters.

    Args:
        in_chans: channels of the images.
        input_size: height and width, in pixels.
        drop_path: rate of stochastic depth, 0..1.

    Raises:
        ModelError: when height or width is no multiple of 14.
    """
    if any(side % PATCH or side <= 0 for side in input_size):
        nearest = tuple(max(PATCH, round(side / PATCH) * PATCH) for side in input_size)
        raise ModelError(
            f"nvdinov2_vit_large_legacy cannot take images of {input_size[0]} x {input_size[1]} (height x width)",
            expected=f"multiples of {PATCH}",
            remedy=f"set model.input_height = {nearest[0]} and model.input_width = {nearest[1]}",
        )
    import_timm()
    from timm.layers.mlp import SwiGLUPacked
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=input_size,
        patch_size=PATCH,
        in_chans=in_chans,
        num_classes=0,
        embed_dim=1024,
        depth=24,
        num_heads=16,
        mlp_ratio=GATED_HIDDEN / 1024,
        mlp_layer=SwiGLUPacked,  # type: ignore[arg-type]  # timm calls it, whatever it is
        act_layer=nn.SiLU,
        init_values=1e-5,
        drop_path_rate=drop_path,
    )
