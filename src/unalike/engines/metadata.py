"""What an exported network says about itself: one JSON text under the key ``unalike`` of ONNX ``metadata_props``.

Every engine reads it, so that the same file gives the same vectors wherever it is opened: the normalisation that the
network expects, the view its images had, its class names and where its weights came from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from unalike.errors import ModelError

KEY = "unalike"
FORMAT_VERSION = 1
PREPROCESSING = ("none", "embedded")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True)
class MapFacts:
    """One feature map that a network gives: where it is taken, pixels of the image a step, and its shape."""

    name: str
    stride: int
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class NetworkFacts:
    """The facts that travel with a network.

    ``preprocessing`` is ``none`` (float32 input, normalised by the engine) or ``embedded`` (uint8 input, normalised in
    the graph). ``precision`` is the number format that the file was written in: fp32, fp16, bf16 or int8. ``mean`` and
    ``std`` are per channel on the scale 0..1. ``view`` is ``View.to_dict()`` or None. ``network`` tells which float
    network it is, whatever format it was brought into: of its weights (``model.checkpoint.network_key``), or of the
    file that was quantised (``file_key``); empty where that is not known. ``maps`` are the feature maps that it gives
    behind its vector; ``dim`` is 0 where it gives maps alone.
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
        """The text that stands in the model file."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)


def file_key(content: bytes) -> str:
    """What a network that carries no key of its own is known by: its file's."""
    return f"file {hashlib.sha256(content).hexdigest()[:32]}"


def read_facts(
    text: str | None, source: str, mean: Sequence[float] | None, std: Sequence[float] | None
) -> NetworkFacts:
    """The facts in ``text``; for a network that carries none, those of the explicit ``mean`` and ``std``.

    Raises ModelError when there are neither, when the text is damaged, or when a newer release wrote it.
    """
    if text is None:
        if mean is None or std is None:
            raise ModelError(
                f"{source} does not say how its images must be normalised (no '{KEY}' metadata)",
                remedy="give mean and std (per channel, on the scale 0..1), or export it with this tool",
            )
        return NetworkFacts(mean=tuple(map(float, mean)), std=tuple(map(float, std)))
    try:
        held: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError(f"the '{KEY}' metadata of {source} is damaged ({error})", remedy="export it again") from error
    if not isinstance(held, Mapping) or not {"mean", "std", "format_version"} <= set(held):
        raise ModelError(
            f"the '{KEY}' metadata of {source} lacks mean, std or format_version", remedy="export it again"
        )
    if int(held["format_version"]) > FORMAT_VERSION:
        raise ModelError(
            f"{source} has format version {held['format_version']}",
            expected=f"at most {FORMAT_VERSION}",
            remedy="it was written by a newer release: update unalike",
        )
    known = {key: value for key, value in held.items() if key in NetworkFacts.__dataclass_fields__}
    known["mean"], known["std"] = tuple(known["mean"]), tuple(known["std"])
    known["classes"] = tuple(known.get("classes") or ())
    known["maps"] = tuple(MapFacts(**entry) for entry in known.get("maps") or ())
    return NetworkFacts(**known)
