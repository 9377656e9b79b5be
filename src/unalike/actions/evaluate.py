"""Evaluate: retrieval metrics of query images against references, with files and the HTML report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.actions.model_from_spec import (
    embed_two_sets,
    explicit_batch_size,
    find_model_source,
    fit_decoding,
    load_models,
)
from unalike.actions.result import Result
from unalike.actions.results_folder import run_action
from unalike.actions.spec_resolution import Overrides, Spec
from unalike.data.from_spec import load_evaluation_sets
from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.errors import UnalikeError
from unalike.inference.loaded_model import LoadedModel
from unalike.progress import say
from unalike.runs.filenames import METRICS_FILE, MODEL_CARD_FILE, MODEL_CARD_STEM, NOTICES_FILE, TRT_METRICS_FILE
from unalike.sanitize import redact
from unalike.storage.atomic import write_text

if TYPE_CHECKING:
    from unalike.metrics.retrieval import Ranking
    from unalike.numerics.nearest_neighbors import Neighbors
    from unalike.report.evaluation import ExplainedMatches
    from unalike.runs.run import Run
    from unalike.spec import Experiment
    from unalike.spec.evaluate import Evaluate


def run_evaluation(experiment: Experiment, run: Run) -> tuple[Path, Mapping[str, float]]:
    """Embed the images, rank the references and write all files; ``metrics.json``, and TAO's KPIs with the prefix ``test``."""
    from unalike.metrics.classification import classification_results
    from unalike.metrics.diagnostics import DUPLICATE_NEIGHBORS
    from unalike.metrics.files import write_metrics
    from unalike.metrics.open_set import format_open_set
    from unalike.metrics.summary import kpi_intervals, tao_kpis
    from unalike.numerics.nearest_neighbors import top_k
    from unalike.numerics.normalization import unit_vectors
    from unalike.report.model_card_format import add_section

    section, notices = experiment.evaluate, Notices()
    source = find_model_source(section, "evaluate")
    reference, query = load_evaluation_sets(experiment, notices)
    models = load_models(experiment, section, "evaluate", source, len({*reference.paths, *query.paths}))
    model = models[0]
    same = reference.paths == query.paths
    models = fit_decoding(models, reference, query, experiment)
    reference, reference_vectors, query, query_vectors = embed_two_sets(
        models, reference, query, experiment, explicit_batch_size(experiment, "evaluate"), notices
    )
    notices.say()
    notices.write(run.dir / NOTICES_FILE)
    # Normalized once, for everything that follows.
    query_vectors = unit_vectors(query_vectors, name="vectors of query")
    reference_vectors = query_vectors if same else unit_vectors(reference_vectors, name="vectors of reference")
    ranking, summary, open_set = _compute_metrics(
        section, model, query, query_vectors, reference, reference_vectors, same
    )
    summary["model"] = {
        "name": experiment.model_name,
        "file": str(model.source),
        "engine": model.engine.describe(),
        "copies": len(models),
        "view": model.view.to_dict(),
    }
    # One search serves the predictions and the report.
    neighbors = top_k(query_vectors, reference_vectors, max(section.topk, DUPLICATE_NEIGHBORS), exclude_self=same)
    nearest = neighbors.first(section.topk)
    if not section.report_accuracy_per_class:
        summary["per_class"] = []
    write_metrics(
        run.dir, summary, ranking, reference.classes, query_paths=query.paths, reference_paths=reference.paths,
        neighbors=nearest, reference_labels=reference.labels_N,
    )  # fmt: skip
    explanations = None
    if section.explain:
        from unalike.actions.explain import explain_misses

        explanations = explain_misses(run.dir / "misses", models[0], query, query_vectors, reference, reference_vectors,
                             section.explain, same=same)  # fmt: skip
    page = _evaluation_page(
        run.dir, summary, ranking, query, query_vectors, reference, reference_vectors, model, explanations, neighbors
    )
    run.own(*page)
    run.record(device=[model.engine.describe() for model in models], seed=section.seed, data=query.fingerprint())
    add_section(run.dir, "evaluation", {"data": summary["data"], "micro": summary["micro"], **open_set},
                source=model.source.parent / MODEL_CARD_FILE, stem=MODEL_CARD_STEM)  # fmt: skip
    if section.trt_engine:
        results = classification_results(
            reference.labels_N[nearest.indices_QK], query.labels_N, query.classes, topk=section.topk
        )
        run.own(_write_json(run.dir / TRT_METRICS_FILE, results))
    figures = tao_kpis(summary, "test")
    run.add_intervals(kpi_intervals(summary, "test"))
    for line in format_open_set(open_set):
        say(line)
    return run.dir / METRICS_FILE, figures


def _compute_metrics(
    section: Evaluate, model: LoadedModel, query: ImageSet, query_vectors: np.ndarray, reference: ImageSet,
    reference_vectors: np.ndarray, same: bool,
) -> tuple[Ranking, dict[str, Any], dict[str, Any]]:  # fmt: skip
    """The ranking, the content of ``metrics.json``, and the part of it about pairs and unknown classes."""
    from unalike.metrics.open_set import collect_trials, summarize_trials
    from unalike.metrics.retrieval import evaluate_ranking
    from unalike.metrics.summary import summarize

    sets = (query_vectors, query.labels_N, reference_vectors, reference.labels_N)
    n, confidence, seed = section.bootstrap, section.confidence, section.seed
    ranking = evaluate_ranking(*sets, ks=tuple(sorted({*section.ks, section.topk})), same=same)
    unseen = not {query.classes[i] for i in np.unique(query.labels_N)} & set(model.classes)
    clusters = _cluster_metrics(query_vectors, query.labels_N, seed)
    summary = summarize(
        ranking, reference.classes, clusters=clusters, reference_labels=reference.labels_N, resample=section.resample,
        series=query.groups, unseen_classes=unseen, n=n, confidence=confidence,
    )  # fmt: skip
    summary["data"] = {"reference": reference.source, "query": query.source, "same": same,
                       "query_classes_unseen_in_training": unseen}  # fmt: skip
    trials = collect_trials(*sets, same=same, seed=seed)
    open_set = summarize_trials(trials, n=n, confidence=confidence, resample=section.resample)
    return ranking, summary | open_set, open_set


def _evaluation_page(
    folder: Path, summary: Mapping[str, Any], ranking: Ranking, query: ImageSet, query_vectors: np.ndarray,
    reference: ImageSet, reference_vectors: np.ndarray, model: LoadedModel,
    explanations: ExplainedMatches | None, neighbors: Neighbors,
) -> list[Path]:  # fmt: skip
    from unalike.report.evaluation import EmbeddedImages, write_evaluation_report

    sizes = (
        f"{len(query):,} queries" if ranking.same else f"{len(query):,} queries against {len(reference):,} references"
    )
    return write_evaluation_report(
        folder, summary, ranking,
        EmbeddedImages.from_vectors(query_vectors, query.labels_N, query.classes, query.paths),
        EmbeddedImages.from_vectors(reference_vectors, reference.labels_N, reference.classes, reference.paths),
        title=f"Evaluation of {model.source.name}",
        subtitle=f"{sizes} of {len(np.unique(query.labels_N)):,} classes; {redact(query.source)}",
        explanations=explanations, neighbors=neighbors,
    )  # fmt: skip


def _cluster_metrics(vectors: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, float] | None:
    """AMI and NMI; None where scikit-learn is not installed, which a deployed recognizer does without."""
    from unalike.metrics.clustering import ami_nmi

    try:
        return ami_nmi(vectors, labels, seed=seed)
    except UnalikeError as error:
        say(f"AMI and NMI are left out: {error}")
        return None


def _write_json(path: Path, content: Mapping[str, Any]) -> Path:
    from unalike.runs.run import json_text

    write_text(path, json_text(content, indent=1) + "\n")
    return path


def evaluate(
    spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None, resume: bool = False,
    overwrite: bool = False,
) -> Result:  # fmt: skip
    """Measure retrieval of query images against references; ``path`` is ``metrics.json``."""
    return run_action(
        "evaluate", run_evaluation, spec, overrides, data, resume=resume, overwrite=overwrite, message="evaluated"
    )
