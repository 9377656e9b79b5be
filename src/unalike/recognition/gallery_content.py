"""The content of a gallery file, checked: vectors, classes, names and calibration that fit together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unalike.data.class_names import normalize_class_name
from unalike.recognition.attributes import ReferenceAttributes, read_reference_attributes
from unalike.recognition.decision import RULES, GalleryCalibration
from unalike.recognition.model_identity import ModelIdentity, read_identity
from unalike.storage.blockfile import Block, PackedTexts
from unalike.storage.stored_values import require_types

MAX_DIM = 1 << 20


@dataclass(frozen=True)
class GalleryContent:
    """What a gallery file holds.

    Attributes:
        dim: width D of the vectors.
        vectors: (N, D), float32 or float16.
        codes_N: int32, index of each vector's class in ``classes``.
        ids_N: int64, a number for each vector that no other of this gallery ever had.
        classes: class names in Unicode's composed form (NFC), each once.
        names: what each vector was computed from.
        revision: number of changes.
        next_id: the next number of ``ids_N``.
        calibration: threshold and margin, or None.
        model_identity: the network that the vectors come from.
        attributes: of the vectors; None where none has any.
    """

    dim: int
    vectors: Block
    codes_N: np.ndarray
    ids_N: np.ndarray
    classes: list[str]
    names: PackedTexts
    revision: int
    next_id: int
    calibration: GalleryCalibration | None
    model_identity: ModelIdentity
    attributes: ReferenceAttributes | None = None

    @classmethod
    def read(cls, header: Mapping[str, Any], blocks: Mapping[str, Block]) -> GalleryContent:
        """Read the header and the small blocks. Raises what does not fit, to be named by ``blockfile.content_errors``."""
        vectors, codes_N = blocks["vectors"], blocks["codes"].load()
        count, dim = len(codes_N), _whole(header["dim"], 1, MAX_DIM)
        _require(
            vectors.shape == (count, dim) and vectors.dtype in (np.float32, np.float16), "the shape of the vectors"
        )
        _require(codes_N.ndim == 1 and codes_N.dtype == np.int32, "the list of classes")
        ids_N = blocks["ids"].load() if "ids" in blocks else np.arange(count)
        _require(ids_N.shape == (count,) and ids_N.dtype == np.int64, "the list of numbers")
        names, ends = blocks["names"], blocks["name_ends"]
        _require(names.dtype == np.uint8 and len(names.shape) == 1, "the list of names")
        _require(ends.shape == (count,) and ends.dtype == np.int64, "the list of names")
        probe_D = blocks["probe"].load()
        _require(probe_D.ndim == 1 and probe_D.dtype == np.float32, "the embedding of the probe image")
        classes = list(header["classes"])
        _require(all(isinstance(name, str) and name for name in classes), "a name of a class")
        if count and not 0 <= codes_N.min() <= codes_N.max() < len(classes):
            raise ValueError("a class without a name")
        classes, codes_N = _merge_equal_names(classes, codes_N)
        calibration, attributes = header["calibration"], None
        if "attributes" in header:
            attributes = read_reference_attributes(header["attributes"], blocks["attributes"].load(), count)
        return cls(
            dim, vectors, codes_N, ids_N, classes, PackedTexts(names, ends), _whole(header.get("revision", 0)),
            _whole(header.get("next_id", count)),
            read_calibration(calibration) if calibration else None,
            read_identity(probe_D, header["maker"]), attributes,
        )  # fmt: skip


def _merge_equal_names(classes: list[str], codes_N: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Classes whose names differ by Unicode's form alone become one: files of earlier versions hold them."""
    names = [normalize_class_name(name) for name in classes]
    if names == classes and len(set(names)) == len(names):
        return classes, codes_N
    code_of = {name: code for code, name in enumerate(dict.fromkeys(names))}
    return list(code_of), np.array([code_of[name] for name in names], np.int32)[codes_N]


def read_calibration(values: Mapping[str, Any]) -> GalleryCalibration:
    """Make a calibration of plain data. Raises what does not fit, to be named by ``blockfile.content_errors``."""
    calibration = require_types(GalleryCalibration.from_dict(values), "calibration")
    _require(calibration.rule in RULES, "the calibration")
    for name, value in calibration.figures.items():
        _require(value is None or type(value) in (int, float), f"the figure {name} of the calibration")
    return calibration


def _whole(value: Any, low: int = 0, high: int = 2**62) -> int:
    _require(type(value) is int and low <= value <= high, f"a count of {value!r}")
    return int(value)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} does not fit")
