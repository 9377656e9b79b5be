"""Which network embeddings were computed with, and whether two sets of them can be compared.

Shape letters: D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from unalike.data.decoding import Decoding
from unalike.errors import ModelError
from unalike.numerics.normalization import l2_normalize
from unalike.storage.stored_values import require_types

# Cosine of two networks' embeddings of the probe image from which they count as one network where their keys do not tell:
# below what rounding to bfloat16 leaves, above what other weights give.
SAME_NETWORK = 0.98


@dataclass(frozen=True, eq=False)
class ModelIdentity:
    """The network that embeddings were computed with; an empty attribute is not known.

    Attributes:
        probe_D: embedding of a fixed image (``recognizer.probe_embedding``), compared where no key decides.
        view: the evaluation view, plain data.
        file: where the model lay when the gallery was made.
        trunk: name of its trunk.
        network: key that goes with a network into every format (``engines.metadata.NetworkFacts``): an INT8 file has that
            of the network it was quantized from, and two epochs of one training have different ones.
    """

    probe_D: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    view: Mapping[str, Any] | None = None
    file: str = ""
    trunk: str = ""
    network: str = ""

    @property
    def decoding(self) -> Decoding:
        """How the images became 8-bit RGB; of a view that does not say, version 1. Not chosen without a view."""
        return Decoding() if self.view is None else Decoding.from_dict(self.view.get("decoding"))

    def with_decoding(self, decoding: Decoding) -> ModelIdentity:
        """This network with another decoding in its view."""
        if self.view is None or decoding.version == 1:
            return self
        return replace(self, view={**self.view, "decoding": decoding.to_dict()})

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a file's head; ``probe_D`` is kept apart, as an array."""
        view = None if self.view is None else dict(self.view)
        return {"view": view, "file": self.file, "trunk": self.trunk, "network": self.network}

    def equals(self, other: ModelIdentity) -> bool:
        """Whether both say the same of the network."""
        return self.to_dict() == other.to_dict() and np.array_equal(self.probe_D, other.probe_D)

    def check_compatible(self, other: ModelIdentity) -> None:
        """Raise ModelError when embeddings of this network cannot be compared with those of ``other``."""
        remedy = "enrol the references again with this network"
        if not self._same_network(other):
            source = f" ({self.file})" if self.file else ""
            raise ModelError(f"the gallery was made with another network{source}", remedy=remedy)
        if self.view is None or other.view is None:
            return
        conflict = self.decoding.conflict(other.decoding)
        if conflict:
            raise ModelError(f"the gallery was made with another decoding of images: {conflict}", remedy=remedy)
        differences = [
            f"{key} {self.view.get(key)}, not {value}"
            for key, value in other.view.items()
            if key != "decoding" and self.view.get(key) != value
        ]
        if differences:
            raise ModelError(f"the gallery was made with another view: {', '.join(differences)}", remedy=remedy)

    def _same_network(self, other: ModelIdentity) -> bool:
        if self.network and self.network == other.network:
            return True
        if self.network.startswith("weights") and other.network.startswith("weights"):
            return False
        if not len(self.probe_D) or len(self.probe_D) != len(other.probe_D):
            return True  # another width is found where the vectors are compared
        return float(l2_normalize(self.probe_D[None])[0] @ l2_normalize(other.probe_D[None])[0]) >= SAME_NETWORK


def read_identity(probe_D: np.ndarray, values: Mapping[str, Any]) -> ModelIdentity:
    """The network of a file that ``to_dict`` was written to. Raises ValueError or SpecError for what does not fit."""
    identity = require_types(ModelIdentity(probe_D, **values), "network")
    _ = identity.decoding  # which checks it
    return identity
