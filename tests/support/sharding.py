"""Small sets, tars and networks for the tests of sharded embedding."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.inference.loaded_model import LoadedModel

SIZE = (12, 8)


class MeanEngine:
    """Vectors that say which image they came from: the mean color."""

    name, precision, dim, input_size, batch = "mean", "fp32", 3, SIZE, 8

    def describe(self) -> dict:
        return {"runtime": "mean"}

    def __call__(self, images_BHWC: np.ndarray) -> np.ndarray:
        return images_BHWC.astype(np.float32).mean((1, 2))


def mean_model(network: str = "weights mean") -> LoadedModel:
    """A network of ``MeanEngine``."""
    return LoadedModel(
        MeanEngine(), Preprocessing(View(*SIZE), (0.0,) * 3, (1.0,) * 3), (), Path("mean"), network=network
    )


def image_bytes(number: int, kind: str = "PNG") -> bytes:
    """An image of one color, which ``number`` (0..65535) names."""
    buffer = io.BytesIO()
    Image.new("RGB", SIZE[::-1], (number % 256, number // 256, 7)).save(buffer, kind)
    return buffer.getvalue()


def write_images(folder: Path, count: int, *, classes: int = 3, bad: tuple[int, ...] = ()) -> list[Path]:
    """``count`` images in class folders ``c0``, ``c1``, ...; those of ``bad`` are no images."""
    paths = []
    for number in range(count):
        path = folder / f"c{number % classes}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image" if number in bad else image_bytes(number))
        paths.append(path)
    return paths


def write_tar(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    """A tar of these members, in their order."""
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def read_shards(folder: Path) -> pa.Table:
    """All rows of the shards of a folder."""
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("vectors-*.parquet"))])


def numbers_of(table: pa.Table) -> list[int]:
    """The numbers that ``image_bytes`` painted into the images of a table's vectors."""
    return [round(r) + 256 * round(g) for r, g, _ in table["vector"].to_pylist()]
