"""What an evaluation measures: reference and query images that a model embeds, or vectors that ``unalike embed`` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.actions.model_from_spec import (
    embed_two_sets,
    explicit_batch_size,
    find_model_source,
    fit_decoding,
    load_models,
)
from unalike.data.from_spec import load_evaluation_sets
from unalike.data.imageset import ImageSet, align_labels
from unalike.data.notices import Notices
from unalike.errors import ModelError, SpecError
from unalike.inference.loaded_model import LoadedModel
from unalike.inference.shards.plan import ShardPlan
from unalike.inference.shards.vector_set import VectorSet, read_vector_set
from unalike.numerics.normalization import UnitVectors, unit_vectors
from unalike.progress import say, warn
from unalike.runs.vector_folder import is_vector_folder
from unalike.spec.dataset import Decoding, View
from unalike.storage.digests import text_sha256

if TYPE_CHECKING:
    from unalike.spec import Experiment

_MODEL_FIELDS = ("checkpoint", "onnx_file", "engine", "trt_engine")
# What runs a model or reads images, and has no part in an evaluation of vectors.
_UNUSED_FOR_VECTORS = (
    *(f"evaluate.{name}" for name in ("runtime", "precision", "threads", "streams", "device", "batch_size", "num_gpus", "gpu_ids")),
    *(f"dataset.{name}" for name in ("class_from", "class_map", "max_unreadable", "max_pixels", "workers", "pixel_mean", "pixel_std")),
    *(f"dataset.view.{name}" for name in View.model_fields), *(f"dataset.decoding.{name}" for name in Decoding.model_fields),
    *(f"model.{name}" for name in ("backbone", "feat_dim", "head", "input_height", "input_width")),
)  # fmt: skip


@dataclass(frozen=True)
class EvaluationSets:
    """Reference and query with their vectors, and where these come from.

    Attributes:
        reference, query: The images, with one list of classes.
        reference_vectors, query_vectors: Their vectors, of length 1; one object where both sets are the same.
        same: Whether the reference is its own query.
        model: The model that embedded them; None where they were embedded before.
        model_facts: What ``metrics.json`` says of the model.
        devices: What ``run.json`` says of each engine.
        data: Fingerprint of the query.
        title: What is evaluated, for the report.
    """

    reference: ImageSet
    reference_vectors: UnitVectors
    query: ImageSet
    query_vectors: UnitVectors
    same: bool
    model: LoadedModel | None
    model_facts: dict[str, Any]
    devices: Sequence[Any]
    data: str
    title: str

    @property
    def unseen(self) -> bool | None:
        """Whether the model's training saw no class of the query; None where that is not known."""
        if self.model is None:
            return None
        return not {self.query.classes[i] for i in np.unique(self.query.labels_N)} & set(self.model.classes)


def vector_fields(experiment: Experiment) -> list[str]:
    """Those of ``reference`` and ``query`` of ``dataset.val_dataset`` that name a folder of vectors."""
    return [name for name, source in _sources(experiment).items() if is_vector_folder(source)]


def _sources(experiment: Experiment) -> dict[str, str]:
    """Reference and query of ``dataset.val_dataset``, as far as they are set."""
    validation = experiment.dataset.val_dataset
    pairs = {} if validation is None else {"reference": validation.reference, "query": validation.query}
    return {name: str(source) for name, source in pairs.items() if source}


def evaluation_sets(experiment: Experiment, notices: Notices) -> EvaluationSets:
    """Read or embed the sets of ``dataset.val_dataset``: folders of shards hold vectors, everything else images.

    Raises:
        SpecError: No model for images, a model beside vectors, or vectors on one side alone.
        DataError: Images or vectors cannot be read.
        ModelError: The vectors of both sides are of different networks.
    """
    vectors = vector_fields(experiment)
    if not vectors:
        return _embed(experiment, notices)
    sources = _sources(experiment)
    others = [name for name in sources if name not in vectors]
    if others or "reference" not in sources:
        raise SpecError(f"dataset.val_dataset.{vectors[0]} holds vectors, {(others or ['the reference'])[0]} does not",
                        expected="vectors on both sides", remedy="embed the other side too: unalike embed DIR -o FOLDER --labeled")  # fmt: skip
    _refuse_model(experiment, sources[vectors[0]])
    if names := experiment.changed(_UNUSED_FOR_VECTORS):
        say(f"settings that are not used: {', '.join(names)} (the vectors are there already)")
    return _read(sources["reference"], sources.get("query", sources["reference"]), experiment.model_name or "")


def _refuse_model(experiment: Experiment, source: str) -> None:
    """Raise SpecError for a model, or for what needs one, beside vectors."""
    section = experiment.evaluate
    for name in (*_MODEL_FIELDS, "explain"):
        if getattr(section, name):
            raise SpecError(f"evaluate.{name} is set, and {source} holds vectors", expected="vectors alone, or a model and images",
                            remedy=f"leave evaluate.{name} out, or give the folders of the images")  # fmt: skip


def _read(reference_source: str, query_source: str, model_name: str) -> EvaluationSets:
    """Both sets from folders of shards."""
    reference = read_vector_set(reference_source)
    same = query_source == reference_source
    query = reference if same else read_vector_set(query_source)
    plan = reference.plan
    _check_one_network(plan, query.plan, reference.images.source, query.images.source)
    for vectors in (reference,) if same else (reference, query):
        if vectors.unlabeled:
            warn(f"{vectors.images.source}: {vectors.unlabeled} images without a class are left out")
    reference_images, query_images = align_labels(reference.images, query.images)
    reference_vectors = unit_vectors(reference.vectors_ND, name="vectors of reference")
    query_vectors = reference_vectors if same else unit_vectors(query.vectors_ND, name="vectors of query")
    engine = {"runtime": plan.runtime, "precision": plan.precision}
    say(f"{len(query_images):,} query and {len(reference_images):,} reference vectors of network {plan.network}")
    return EvaluationSets(
        reference_images, reference_vectors, query_images, query_vectors, same, None,
        {"name": model_name, "file": None, "network": plan.network, "engine": engine, "copies": 0, "view": plan.view},
        [engine], text_sha256(f"{query.plan.key}\0{_content(query)}"), f"network {plan.network[:24]}",
    )  # fmt: skip


def _content(vectors: VectorSet) -> str:
    """Digest of the names and classes of a set."""
    lines = (
        f"{name}\0{label}\n" for name, label in zip(vectors.images.paths, vectors.images.label_names(), strict=True)
    )
    return text_sha256("".join(lines))


def _check_one_network(reference: ShardPlan, query: ShardPlan, reference_source: str, query_source: str) -> None:
    if (reference.network, reference.dim) != (query.network, query.dim):
        raise ModelError(f"{query_source}: network {query.network}, width {query.dim}",
                         expected=f"those of {reference_source}: network {reference.network}, width {reference.dim}",
                         remedy="embed both with the same model")  # fmt: skip
    if reference.view != query.view:
        warn(f"{query_source} and {reference_source} were embedded with different views: their images were resized or decoded in "
             "different ways")  # fmt: skip


def _embed(experiment: Experiment, notices: Notices) -> EvaluationSets:
    """Both sets, embedded by the model of ``evaluate``."""
    section = experiment.evaluate
    source = find_model_source(section, "evaluate")
    reference, query = load_evaluation_sets(experiment, notices)
    models = load_models(experiment, section, "evaluate", source, len({*reference.paths, *query.paths}))
    model = models[0]
    same = reference.paths == query.paths
    models = fit_decoding(models, reference, query, experiment)
    reference, reference_vectors, query, query_vectors = embed_two_sets(
        models, reference, query, experiment, explicit_batch_size(experiment, "evaluate"), notices
    )
    # Normalized once, for everything that follows.
    query_units = unit_vectors(query_vectors, name="vectors of query")
    reference_units = query_units if same else unit_vectors(reference_vectors, name="vectors of reference")
    return EvaluationSets(
        reference, reference_units, query, query_units, same, models[0],
        {"name": experiment.model_name, "file": str(model.source), "engine": model.engine.describe(), "copies": len(models),
         "view": model.view.to_dict()},
        [each.engine.describe() for each in models], query.fingerprint(), model.source.name,
    )  # fmt: skip
