"""Metadata of an exported network: one JSON text under the key ``unalike`` of ONNX ``metadata_props``.

Every engine reads it, so that one file gives the same embeddings wherever it is loaded: the normalization that the network
expects, the evaluation view of its images, its class names and the origin of its weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from unalike.errors import ModelError
from unalike.storage.digests import content_sha256
from unalike.storage.outside_files import reader_errors

KEY = "unalike"
FORMAT_VERSION = 1
PREPROCESSING = ("none", "embedded")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True)
class MapFacts:
    """One feature map of a network.

    Attributes:
        name: the layer that it is taken from.
        stride: pixels of the image between neighboring positions.
        channels, height, width: its shape.
    """

    name: str
    stride: int
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class NetworkFacts:
    """The facts that are stored with a network.

    Attributes:
        mean, std: normalization, one value a channel, on the scale 0..1.
        preprocessing: ``none`` (float32 input, normalized by the engine) or ``embedded`` (uint8 input, normalized in the
            graph).
        unit_length: whether the graph normalizes embeddings to unit length.
        precision: number format of the file: fp32, fp16, bf16 or int8.
        dim: width of an embedding; 0 where the network gives feature maps alone.
        view: ``View.to_dict()``, or None where it is not known.
        classes: names of the classes that it was trained on.
        trunk, licence: name of the trunk, and the license of its weights.
        network: key of the float network, the same in every format: of its weights (``model.checkpoint.network_key``) or
            of the file that was quantized (``file_key``); empty where it is not known.
        versions: of the packages that wrote the file.
        extra: what else the exporter stored.
        maps: the feature maps, in the order of the outputs after the embedding.
        format_version: of this metadata.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    preprocessing: str = "none"
    unit_length: bool = False
    precision: str = "fp32"
    dim: int = 0
    view: dict[str, Any] | None = None
    classes: tuple[str, ...] = ()
    trunk: str = ""
    licence: str = ""
    network: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    maps: tuple[MapFacts, ...] = ()
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.preprocessing not in PREPROCESSING:
            raise ModelError(f"preprocessing {self.preprocessing!r}", expected=" or ".join(PREPROCESSING))
        if self.precision not in PRECISIONS:
            raise ModelError(f"precision {self.precision!r}", expected=" or ".join(PRECISIONS))
        if len(self.mean) != len(self.std) or not all(value > 0 for value in self.std):
            raise ModelError(
                f"mean {list(self.mean)} and std {list(self.std)}", expected="one mean and one positive std a channel"
            )

    def to_json(self) -> str:
        """The text that is stored in the model file."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)


def file_key(content: bytes) -> str:
    """Key of a network whose metadata holds none: a digest of its file."""
    return digest_file_key(content_sha256(content))


def digest_file_key(sha256: str) -> str:
    """``file_key`` of a file whose SHA-256 (hexadecimal) is known."""
    return f"file {sha256[:32]}"


def read_facts(
    text: str | None, source: str, mean: Sequence[float] | None, std: Sequence[float] | None
) -> NetworkFacts:
    """Parse the metadata of a network.

    Args:
        text: the JSON text, or None for a network without.
        source: the model's name, for messages.
        mean, std: normalization of a network without metadata, per channel, on the scale 0..1.

    Raises:
        ModelError: there is neither metadata nor ``mean`` and ``std``, these are not on that scale, the text is damaged, or a newer release wrote it.
    """
    if text is None:
        if mean is None or std is None:
            raise ModelError(
                f"{source} does not say how its images must be normalized (no '{KEY}' metadata)",
                remedy="give mean and std (per channel, on the scale 0..1), or export it with this tool",
            )
        return NetworkFacts(mean=_on_unit_scale("mean", mean), std=_on_unit_scale("std", std))
    with reader_errors(f"the '{KEY}' metadata of {source} is damaged", remedy="export it again", error=ModelError):
        return _parse_facts(text, source)


def _on_unit_scale(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """The caller's mean or std as numbers. Raises ModelError for values of the scale 0..255, which would be taken without a word."""
    try:
        numbers = tuple(map(float, values))
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(0 <= number <= 1 for number in numbers):
        raise ModelError(f"{name}={values!r}", expected="one number a channel, on the scale 0..1",
                         remedy="divide values of the scale 0..255 by 255")  # fmt: skip
    return numbers


def _parse_facts(text: str, source: str) -> NetworkFacts:
    values: Any = json.loads(text)
    if not isinstance(values, Mapping) or not {"mean", "std", "format_version"} <= set(values):
        raise ModelError(
            f"the '{KEY}' metadata of {source} lacks mean, std or format_version", remedy="export it again"
        )
    if int(values["format_version"]) > FORMAT_VERSION:
        raise ModelError(
            f"{source} has format version {values['format_version']}",
            expected=f"at most {FORMAT_VERSION}",
            remedy="it was written by a newer release: update unalike",
        )
    fields = {key: value for key, value in values.items() if key in NetworkFacts.__dataclass_fields__}
    fields["mean"], fields["std"] = tuple(fields["mean"]), tuple(fields["std"])
    fields["classes"] = tuple(fields.get("classes") or ())
    fields["maps"] = tuple(MapFacts(**entry) for entry in fields.get("maps") or ())
    facts = NetworkFacts(**fields)
    texts = (*facts.classes, facts.preprocessing, facts.precision, facts.trunk, facts.licence, facts.network)
    if not all(isinstance(value, str) for value in texts):
        raise ValueError("a name that is no text")
    if not all(type(value) in (int, float) and math.isfinite(value) for value in (*facts.mean, *facts.std, facts.dim)):
        raise ValueError("mean, std or dim that are no numbers")
    if not all(isinstance(value, dict) for value in (facts.view or {}, facts.versions, facts.extra)):
        raise ValueError("view, versions or extra that are no mappings")
    return facts
