"""An approved set in one file: the assets, their vectors, the limits, the network and versions; checksummed, no torch.

Blocks as in a gallery's file (``gallery.storage``). Layers lie as PNG, the network, where it is kept along, as ONNX.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unalike.errors import DataError
from unalike.recognition.gallery import Gallery, ModelIdentity
from unalike.storage.blockfile import PackedTexts, read_blocks, write_blocks
from unalike.verification.asset import Asset
from unalike.verification.thresholds import Limits

FORMAT_VERSION = 1
KIND = "approved assets"
# Grounds on which an asset is embedded besides its own: a picture may show it on any.
GROUNDS = ((255, 255, 255), (40, 40, 44), (150, 150, 145))


@dataclass(frozen=True, eq=False)
class ApprovedSet:
    """Assets, the gallery of their vectors (labels are asset names), limits once calibrated, and the network's bytes.

    ``twins`` are pairs of assets that cannot be told apart: a picture of one is the same for the other.
    """

    assets: tuple[Asset, ...]
    gallery: Gallery
    limits: Limits | None = None
    network: bytes | None = None
    twins: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(asset.name for asset in self.assets)

    def save(self, path: str | Path) -> Path:
        """Write the file whole or not at all."""
        path = Path(path)
        gallery, layers = self.gallery, [_png(asset.layer_HW4) for asset in self.assets]
        content, ends = np.frombuffer(b"".join(layers), np.uint8), np.cumsum([len(one) for one in layers])
        names, name_ends = PackedTexts.pack(self.names)
        said = {
            "kind": KIND,
            "set_version": FORMAT_VERSION,
            "grounds": [[asset.ground, *asset.ground_colour] for asset in self.assets],
            "limits": None if self.limits is None else self.limits.to_dict(),
            "maker": gallery.model_identity.to_dict(),
            "twins": [list(pair) for pair in self.twins],
            "vector_names": list(gallery.labels),
        }  # fmt: skip
        blocks: dict[str, Any] = {
            "layers": [content],
            "layer_ends": [ends.astype(np.int64)],
            "names": [names],
            "name_ends": [name_ends],
            "vectors": [gallery.vectors_ND],
            "probe": [np.asarray(gallery.model_identity.probe_D, np.float32)],
            "network": [np.frombuffer(self.network or b"", np.uint8)],
        }
        write_blocks(path, said, blocks)
        return path

    @classmethod
    def load(cls, path: str | Path) -> ApprovedSet:
        """Raises DataError when it is missing, damaged, of another kind or of a later version."""
        said, blocks = read_blocks(Path(path))
        if said.get("kind") != KIND:
            raise DataError(f"{path} holds no approved assets", expected="a file that unalike verify --save wrote")
        if said.get("set_version") != FORMAT_VERSION:
            raise DataError(f"{path} has set version {said.get('set_version')}", remedy="update unalike")
        names = PackedTexts(blocks["names"], blocks["name_ends"]).unpack()
        content, ends = blocks["layers"].check().tobytes(), blocks["layer_ends"].check().tolist()
        assets = tuple(
            Asset(name, _pixels(content[start:end]), ground[0], (ground[1], ground[2], ground[3]))
            for name, start, end, ground in zip(names, [0, *ends[:-1]], ends, said["grounds"], strict=True)
        )
        vectors_ND = blocks["vectors"].check()
        gallery = Gallery(vectors_ND.shape[1], ModelIdentity(blocks["probe"].check().copy(), **said["maker"]))
        gallery.enrol(np.array(vectors_ND), said["vector_names"])
        network = blocks["network"].check().tobytes() or None
        limits = Limits.from_dict(said["limits"]) if said["limits"] else None
        return cls(assets, gallery, limits, network, tuple((a, b) for a, b in said["twins"]))


def faces(asset: Asset) -> list[np.ndarray]:
    """What of an asset is embedded: it on its own ground and on others, close and with room around it; uint8 each."""
    grounds: Sequence[Any] = [None] if asset.ground == "none" else [asset.ground_colour, *GROUNDS]
    seen: list[np.ndarray] = []
    for ground in dict.fromkeys(grounds):
        seen += [asset.on(ground, margin) for margin in ((0.06, 0.35) if ground is not None else (0.0,))]
    return seen


def _png(layer_HW4: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(layer_HW4).save(file, "PNG")
    return file.getvalue()


def _pixels(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content), formats=("PNG",)).convert("RGBA"), np.uint8)
