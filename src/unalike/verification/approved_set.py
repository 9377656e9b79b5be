"""Approved set in one checksummed file: assets, vectors, thresholds and network; read without torch.

The file consists of blocks like a gallery's (``storage.blockfile``). Layers are stored as PNG, the network, where it is
included, as ONNX.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unalike import progress
from unalike.errors import DataError
from unalike.recognition.gallery import Gallery
from unalike.recognition.model_identity import read_identity
from unalike.storage.blockfile import PackedTexts, content_errors, read_blocks, write_blocks
from unalike.storage.stored_values import require_types
from unalike.verification.asset import BACKGROUNDS, Asset, Color
from unalike.verification.thresholds import FORMAT_VERSION as THRESHOLDS_VERSION
from unalike.verification.thresholds import VerificationThresholds

FORMAT_VERSION = 1
KIND = "approved assets"
# Backgrounds on which an asset is embedded besides its own, since an image may show it on any.
BACKGROUND_COLORS = ((255, 255, 255), (40, 40, 44), (150, 150, 145))
# Margins of the images that are embedded, as shares of the longer side; an asset without background has none.
MARGINS = (0.06, 0.35)


@dataclass(frozen=True, eq=False)
class ApprovedSet:
    """Approved assets and what verification needs of them.

    Attributes:
        assets: The assets.
        gallery: Their vectors; the labels are asset names.
        thresholds: None before calibration, and for a file that an earlier version calibrated.
        network: Content of the network's ONNX file; None if the network is not included.
        twins: Pairs of names of assets that cannot be told apart: an image of one is the same as the other.
    """

    assets: tuple[Asset, ...]
    gallery: Gallery
    thresholds: VerificationThresholds | None = None
    network: bytes | None = None
    twins: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the assets."""
        return tuple(asset.name for asset in self.assets)

    def save(self, path: str | Path) -> Path:
        """Write the file atomically and return its path."""
        path = Path(path)
        gallery, identity = self.gallery, self.gallery.model_identity
        layers = [_encode_png(asset.layer_HW4) for asset in self.assets]
        content, ends = np.frombuffer(b"".join(layers), np.uint8), np.cumsum([len(layer) for layer in layers])
        names, name_ends = PackedTexts.pack(self.names)
        header = {
            "kind": KIND,
            "set_version": FORMAT_VERSION,
            "grounds": [[asset.background, *asset.background_color] for asset in self.assets],
            "limits": None if self.thresholds is None else self.thresholds.to_dict(),
            "maker": identity.to_dict(),
            "twins": [list(pair) for pair in self.twins],
            "vector_names": list(gallery.labels),
        }  # fmt: skip
        blocks: dict[str, Any] = {
            "layers": [content],
            "layer_ends": [ends.astype(np.int64)],
            "names": [names],
            "name_ends": [name_ends],
            "vectors": [gallery.vectors_ND],
            "probe": [np.asarray(identity.probe_D, np.float32)],
            "network": [np.frombuffer(self.network or b"", np.uint8)],
        }
        write_blocks(path, header, blocks)
        return path

    @classmethod
    def load(cls, path: str | Path) -> ApprovedSet:
        """Read a file that ``save`` wrote.

        Raises:
            DataError: It is missing, damaged, of another kind or of a later version.
        """
        header, blocks = read_blocks(Path(path))
        if header.get("kind") != KIND:
            raise DataError(f"{path} holds no approved assets", expected="a file that unalike verify --save wrote")
        if header.get("set_version") != FORMAT_VERSION:
            raise DataError(f"{path} has set version {header.get('set_version')}", remedy="update unalike")
        with content_errors(path):
            names = PackedTexts(blocks["names"], blocks["name_ends"]).unpack()
            content, ends = blocks["layers"].load().tobytes(), blocks["layer_ends"].load().tolist()
            assets = tuple(
                _checked(Asset(name, _decode_png(content[start:end]), background, (red, green, blue)))
                for name, start, end, (background, red, green, blue) in zip(
                    names, [0, *ends[:-1]], ends, header["grounds"], strict=True
                )
            )
            vectors_ND = blocks["vectors"].load()
            identity = read_identity(blocks["probe"].load(), header["maker"])
            gallery = Gallery(vectors_ND.shape[1], identity)
            gallery.enrol(vectors_ND, header["vector_names"])
            network = blocks["network"].load().tobytes() or None
            thresholds = _read_thresholds(header["limits"], path)
            return cls(assets, gallery, thresholds, network, tuple((a, b) for a, b in header["twins"]))


def _checked(asset: Asset) -> Asset:
    require_types(asset, "asset")
    if asset.background not in BACKGROUNDS or not all(0 <= value <= 255 for value in asset.background_color):
        raise ValueError("the background of an asset does not fit")
    return asset


def _read_thresholds(values: dict[str, Any] | None, path: str | Path) -> VerificationThresholds | None:
    """The thresholds in a file; None, with a message, for those of an earlier version, which measured otherwise."""
    if values and values.get("format_version", 0) < THRESHOLDS_VERSION:
        progress.say(
            f"{path} was calibrated by an earlier version, which measured otherwise: it needs a new calibration; "
            f"save it anew (--save) to keep that"
        )
        return None
    return require_types(VerificationThresholds.from_dict(values), "thresholds") if values else None


def enrollment_images(asset: Asset) -> list[np.ndarray]:
    """Draw the images by which an asset is enrolled: on its own and on other backgrounds, with a small and a wide margin.

    Returns:
        uint8 (H, W, 3) each.
    """
    if asset.background == "none":
        return [asset.composite(None, 0.0)]
    colors: Sequence[Color] = (asset.background_color, *BACKGROUND_COLORS)
    return [asset.composite(color, margin) for color in dict.fromkeys(colors) for margin in MARGINS]


def _encode_png(layer_HW4: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(layer_HW4).save(file, "PNG")
    return file.getvalue()


def _decode_png(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content), formats=("PNG",)).convert("RGBA"), np.uint8)
