"""The class Explainer: loads a model, takes a query and a reference, returns their evidence maps.

With a network whose embedding is a mean over positions and a linear head, run by OpenVINO, the values of all positions sum to the score
exactly; for any other network regions are occluded one by one and the score is computed again. Neither needs torch or gradients.

Shape letters: H, W height and width of the network's input, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike import progress
from unalike.data.decode import ImageInput
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.errors import DataError, DeviceError, ExportError, MissingExtra, ModelError, WeightsError, closest
from unalike.explanation.evidence import Evidence, decompose_similarity, occlude, occlusion_evidence
from unalike.explanation.exported_network import export, export_source
from unalike.numerics.normalization import l2_normalize

if TYPE_CHECKING:
    from unalike.explanation.class_activation import PooledNetwork
    from unalike.inference.loaded_model import LoadedModel

METHODS = ("auto", "exact", "covers")
# Positions on each side of the occlusion grid: 49 copies of each image of a pair.
GRID = 7


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why two images match.

    Attributes:
        query, reference: Evidence in each image, both about the same score.
        query_HWC, reference_HWC: The network's input, uint8.
    """

    query: Evidence
    reference: Evidence
    query_HWC: np.ndarray
    reference_HWC: np.ndarray

    @property
    def score(self) -> float:
        """The cosine of both embeddings."""
        return self.query.score

    @property
    def method(self) -> str:
        """``exact``, or ``covers`` (occlusion)."""
        return "exact" if self.query.exact else "covers"

    def to_dict(self) -> dict[str, Any]:
        """Plain data: maps as nested lists, rows from the top."""
        return {
            "score": round(self.score, 6),
            "method": self.method,
            "query": _to_plain(self.query),
            "reference": _to_plain(self.reference),
        }


class Explainer:
    """Explains pairs of images by one network.

    Examples:
        >>> explainer = Explainer.load("model.onnx")                      # doctest: +SKIP
        >>> why = explainer.explain("query.jpg", "reference.jpg")
        >>> why.query.for_hw, why.query.against_hw

    Args:
        engine: Runs the network.
        view: Turns an image into the network's input.
        pooled_network: The network cut at its mean over positions; without it regions are occluded.
    """

    def __init__(self, engine: Engine, view: View, pooled_network: PooledNetwork | None = None) -> None:
        self.engine, self.view, self.pooled_network = engine, view, pooled_network

    @classmethod
    def load(
        cls, model: str | Path, *, runtime: str = "auto", precision: str = "auto", method: str = "auto"
    ) -> Explainer:
        """Load an exported network, a checkpoint or ``pretrained`` (the latter two need the extra ``train``).

        Args:
            model: Path or URI of the network, ``pretrained`` or ``pretrained:NAME``.
            runtime, precision: Of the engine.
            method: ``exact``, ``covers`` (occlusion), or ``auto``: exact where the network allows it.

        Raises:
            ModelError: There is no such method, or ``exact`` is not possible; and the errors of ``load_model``.
        """
        from unalike.inference.feature_map_model import load_feature_maps
        from unalike.inference.loaded_model import LoadedModel, load_model
        from unalike.inference.model_files import is_pretrained

        if is_pretrained(model):
            trunk = load_feature_maps(model, runtime=runtime, precision=precision)
            opened_model = LoadedModel(trunk.engine, trunk.preprocessing, (), Path(trunk.source), trunk.trunk)
        else:
            opened_model = load_model(model, runtime=runtime, precision=precision)
        return cls.from_model(opened_model, method=method)

    @classmethod
    def from_model(
        cls, model: LoadedModel, *, method: str = "auto", exported: Path | None = None, threads: int | None = None
    ) -> Explainer:
        """Create an explainer for a loaded model; a message is printed when only occlusion is possible.

        Args:
            model: The model.
            method: As in ``load``.
            exported: File of ``explanation.exported_network.write_export``; a checkpoint or a pretrained trunk is exported
                here without one.
            threads: CPU cores that the cut network may use; OpenVINO's choice if unset.

        Raises:
            ModelError: There is no such method, or ``exact`` is not possible.
        """
        if method not in METHODS:
            raise ModelError(f"method {method!r}", expected=", ".join(METHODS), remedy=closest(method, METHODS))
        pooled_network = None
        if method != "covers":
            try:
                pooled_network = _load_pooled(model, exported, threads)
            except (ModelError, MissingExtra, DeviceError, ExportError, WeightsError) as error:
                if method == "exact":
                    raise
                progress.say(f"explaining by occlusion: {error}", once=True)
        return cls(model.engine, model.view, pooled_network)

    @property
    def method(self) -> str:
        """``exact``, or ``covers`` (occlusion)."""
        return "covers" if self.pooled_network is None else "exact"

    def explain(self, query: ImageInput, reference: ImageInput) -> Explanation:
        """Explain why two images match as they do. Raises UnreadableImage, DataError."""
        return self.explain_all([(query, reference)])[0]

    def explain_all(self, pairs: Sequence[tuple[ImageInput, ImageInput]]) -> list[Explanation]:
        """Explain many pairs of query and reference."""
        return [self._explain_views(self.view(query), self.view(reference)) for query, reference in pairs]

    def _explain_views(self, query_HWC: np.ndarray, reference_HWC: np.ndarray) -> Explanation:
        images = np.stack([query_HWC, reference_HWC])
        if self.pooled_network is not None:
            features = self.pooled_network.features(images)
            weight, bias = self.pooled_network.weight_DC, self.pooled_network.bias_D
            vectors = features.astype(np.float64).mean(axis=(1, 2)) @ weight.astype(np.float64).T + bias
            evidence = [decompose_similarity(features[i], weight, bias, vectors[1 - i]) for i in (0, 1)]
        else:
            vectors = l2_normalize(self.engine(images))
            if not np.isfinite(vectors).all():
                raise DataError("a vector that is not finite", remedy="check the network")
            score = float(vectors[0].astype(np.float64) @ vectors[1])
            evidence = []
            for image, other in ((query_HWC, vectors[1]), (reference_HWC, vectors[0])):
                copies, masks = occlude(image, GRID)
                evidence.append(occlusion_evidence(score, l2_normalize(self.engine(copies)) @ other, masks))
        return Explanation(evidence[0], evidence[1], query_HWC, reference_HWC)


def _load_pooled(model: LoadedModel, exported: Path | None, threads: int | None) -> PooledNetwork:
    """Cut a model's network at its mean; a checkpoint or a pretrained trunk is exported in memory for it."""
    from unalike.explanation.class_activation import load_pooled_network

    source = export_source(model)
    if source is None:
        pooled_network = load_pooled_network(Path(model.source), threads)
        if (first := getattr(model.engine, "source", None)) is not None:
            pooled_network.source.require(first.sha256)
        return pooled_network
    return load_pooled_network(exported or export(source, model.preprocessing.input_size), threads)


def _to_plain(evidence: Evidence) -> dict[str, Any]:
    values: dict[str, Any] = {
        "for": np.round(evidence.for_hw, 6).tolist(),
        "against": np.round(evidence.against_hw, 6).tolist(),
    }
    if evidence.exact:
        values |= {"constant": round(evidence.constant, 6), "constant_against": round(evidence.constant_against, 6)}
    return values
