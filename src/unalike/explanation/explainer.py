"""Why a query matched its reference: the parts of both that made it so, and those that speak against it.

With a network whose vector is a mean over positions and a linear head, run by OpenVINO, the parts sum to the score exactly;
for any other network parts are covered up, one after the other, and the score taken again. Neither needs torch or gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unalike import progress
from unalike.data.decode import ImageInput
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.errors import DataError, DeviceError, ExportError, MissingExtra, ModelError, WeightsError, closest
from unalike.explanation.evidence import Evidence, covers, decompose, from_covers
from unalike.metrics.knn import unit

METHODS = ("auto", "exact", "covers")
# Squares a side when parts are covered up: 49 images for each picture of a pair.
GRID = 7


@dataclass(frozen=True, eq=False)
class Explanation:
    """Evidence in the query and in the reference, each about the same score, and the views that the network saw (uint8)."""

    query: Evidence
    reference: Evidence
    query_HWC: np.ndarray
    reference_HWC: np.ndarray

    @property
    def score(self) -> float:
        """The cosine."""
        return self.query.score

    @property
    def method(self) -> str:
        """``exact`` or ``covers``."""
        return "exact" if self.query.exact else "covers"

    def to_dict(self) -> dict[str, Any]:
        """Plain data: maps as nested lists, rows from the top."""
        return {
            "score": round(self.score, 6),
            "method": self.method,
            "query": _plain(self.query),
            "reference": _plain(self.reference),
        }


class Explainer:
    """Explains pairs of pictures by one network.

    >>> explainer = Explainer.load("model.onnx")                      # doctest: +SKIP
    >>> why = explainer.explain("query.jpg", "reference.jpg")
    >>> why.query.for_hw, why.query.against_hw
    """

    def __init__(self, engine: Engine, view: View, positions: Any = None) -> None:
        self.engine, self.view, self.positions = engine, view, positions

    @classmethod
    def load(
        cls, model: str | Path, *, runtime: str = "auto", precision: str = "auto", method: str = "auto"
    ) -> Explainer:
        """From an exported network, a checkpoint or ``pretrained`` (the latter two need the extra ``train``)."""
        from unalike.inference.feature_map_model import load_feature_maps
        from unalike.inference.loaded_model import PRETRAINED, LoadedModel, load_model

        if str(model).split(":")[0] == PRETRAINED:
            found = load_feature_maps(model, runtime=runtime, precision=precision)
            opened = LoadedModel(found.engine, found.preprocessing, (), Path(found.source), found.trunk)
        else:
            opened = load_model(model, runtime=runtime, precision=precision)
        return cls.of(opened, method=method)

    @classmethod
    def of(cls, opened: Any, *, method: str = "auto") -> Explainer:
        """From an opened model; says once when only covering parts up is possible. Raises ModelError for ``exact`` then."""
        if method not in METHODS:
            raise ModelError(f"method {method!r}", expected=", ".join(METHODS), remedy=closest(method, METHODS))
        positions = None
        if method != "covers":
            try:
                positions = _positions(opened)
            except (ModelError, MissingExtra, DeviceError, ExportError, WeightsError) as error:
                if method == "exact":
                    raise
                progress.say(f"parts are found by covering them up: {error}", once=True)
        return cls(opened.engine, opened.view, positions)

    def explain(self, query: ImageInput, reference: ImageInput) -> Explanation:
        """Why the two are as alike as they are. Raises UnreadableImage, DataError."""
        return self.explain_all([(query, reference)])[0]

    def explain_all(self, pairs: Sequence[tuple[ImageInput, ImageInput]]) -> list[Explanation]:
        """The same for many pairs."""
        return [self._pair(self.view(query), self.view(reference)) for query, reference in pairs]

    def _pair(self, query_HWC: np.ndarray, reference_HWC: np.ndarray) -> Explanation:
        if self.positions is not None:
            both = self.positions.features(np.stack([query_HWC, reference_HWC]))
            weight, bias = self.positions.weight_DC, self.positions.bias_D
            vectors = both.astype(np.float64).mean(axis=(1, 2)) @ weight.astype(np.float64).T + bias
            told = [decompose(both[i], weight, bias, vectors[1 - i]) for i in (0, 1)]
        else:
            vectors = unit(self.engine(np.stack([query_HWC, reference_HWC])))
            if not np.isfinite(vectors).all():
                raise DataError("a vector that is not finite", remedy="check the network")
            score = float(vectors[0].astype(np.float64) @ vectors[1])
            told = []
            for own, other in ((query_HWC, vectors[1]), (reference_HWC, vectors[0])):
                images, hidden = covers(own, GRID)
                told.append(from_covers(score, unit(self.engine(images)) @ other, hidden))
        return Explanation(told[0], told[1], query_HWC, reference_HWC)


def _positions(opened: Any) -> Any:
    from unalike.explanation.class_activation import open_positions
    from unalike.inference.loaded_model import CHECKPOINTS, EXPORTED

    source = Path(opened.source)
    if source.suffix in (".onnx", ".xml"):
        return open_positions(source)
    if source.suffix in EXPORTED:
        raise ModelError(f"{source.name} cannot be cut where it averages", expected="an .onnx, .xml or checkpoint")
    from unalike.inference.feature_map_model import load_feature_maps
    from unalike.inference.loaded_model import PRETRAINED

    size = (opened.view.height, opened.view.width)
    name = opened.trunk or source.name  # a trunk as it came has its name for a source
    told = str(source) if source.suffix in CHECKPOINTS else PRETRAINED if name == PRETRAINED else f"{PRETRAINED}:{name}"
    content = load_feature_maps(told, size=size, runtime="openvino", precision="fp32").content
    if content is None:
        raise ModelError(f"{opened.source} cannot be cut where it averages")
    return open_positions(content)


def _plain(evidence: Evidence) -> dict[str, Any]:
    told: dict[str, Any] = {
        "for": np.round(evidence.for_hw, 6).tolist(),
        "against": np.round(evidence.against_hw, 6).tolist(),
    }
    if evidence.exact:
        told |= {"constant": round(evidence.constant, 6), "constant_against": round(evidence.constant_against, 6)}
    return told
