"""Evaluate: retrieval metrics of query images against references, with files and the HTML report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.actions.evaluation_sets import EvaluationSets, evaluation_sets
from unalike.actions.result import Result
from unalike.actions.results_folder import run_action
from unalike.actions.spec_resolution import Overrides, Spec
from unalike.data.notices import Notices
from unalike.errors import UnalikeError
from unalike.progress import progress, say
from unalike.runs.filenames import METRICS_FILE, MODEL_CARD_FILE, MODEL_CARD_STEM, NOTICES_FILE, TRT_METRICS_FILE
from unalike.runs.ray_cluster import check_cluster, refuse_cluster_options
from unalike.sanitize import redact
from unalike.storage.atomic import write_text

if TYPE_CHECKING:
    from unalike.metrics.retrieval import Ranking
    from unalike.report.evaluation import ExplainedMatches
    from unalike.runs.run import Run
    from unalike.spec import Experiment
    from unalike.spec.evaluate import Evaluate


def run_evaluation(experiment: Experiment, run: Run) -> tuple[Path, Mapping[str, float]]:
    """Embed the images, rank the references and write all files; ``metrics.json``, and TAO's KPIs with the prefix ``test``."""
    from unalike.metrics.classification import classification_results
    from unalike.metrics.files import write_metrics
    from unalike.metrics.open_set import format_open_set
    from unalike.metrics.summary import kpi_intervals, tao_kpis
    from unalike.report.model_card_format import add_section

    section, notices = experiment.evaluate, Notices()
    refuse_cluster_options(experiment, "evaluate")
    if section.cluster == "ray":  # before images are embedded
        check_cluster(section.address, section="evaluate")
    sets = evaluation_sets(experiment, notices)
    reference, query = sets.reference, sets.query
    notices.say()
    notices.write(run.dir / NOTICES_FILE)
    ranking, summary, open_set = _compute_metrics(section, sets)
    summary["model"] = sets.model_facts
    neighbors = ranking.neighbors  # of one product with the metrics; they serve the predictions and the report
    assert neighbors is not None
    nearest = neighbors.first(section.topk)
    if not section.report_accuracy_per_class:
        summary["per_class"] = []
    write_metrics(
        run.dir, summary, ranking, reference.classes, query_paths=query.paths, reference_paths=reference.paths,
        neighbors=nearest, reference_labels=reference.labels_N,
    )  # fmt: skip
    explanations = None
    if section.explain and sets.model is not None:
        from unalike.actions.explain import explain_misses

        explanations = explain_misses(run.dir / "misses", sets.model, query, sets.query_vectors, reference,
                             sets.reference_vectors, section.explain, same=sets.same)  # fmt: skip
    run.own(*_evaluation_page(run.dir, summary, ranking, sets, explanations))
    run.record(device=sets.devices, seed=section.seed, data=sets.data)
    card = None if sets.model is None else sets.model.source.parent / MODEL_CARD_FILE
    add_section(run.dir, "evaluation", {"data": summary["data"], "micro": summary["micro"], **open_set}, source=card,
                stem=MODEL_CARD_STEM)  # fmt: skip
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


def _compute_metrics(section: Evaluate, sets: EvaluationSets) -> tuple[Ranking, dict[str, Any], dict[str, Any]]:
    """The ranking, the content of ``metrics.json``, and the part of it about pairs and unknown classes."""
    from unalike.metrics.open_set import collect_trials, summarize_trials
    from unalike.metrics.summary import summarize
    from unalike.recognition.calibration_trials import SECOND_WEIGHTS

    reference, query, same = sets.reference, sets.query, sets.same
    n, confidence, seed = section.bootstrap, section.confidence, section.seed
    ranking = _rank(section, sets)
    clusters = _cluster_metrics(sets.query_vectors, query.labels_N, seed)
    summary = summarize(
        ranking, reference.classes, clusters=clusters, reference_labels=reference.labels_N, resample=section.resample,
        series=query.groups, unseen_classes=bool(sets.unseen), n=n, confidence=confidence,
    )  # fmt: skip
    summary["data"] = {"reference": reference.source, "query": query.source, "same": same,
                       "query_classes_unseen_in_training": sets.unseen}  # fmt: skip
    trials = collect_trials(
        sets.query_vectors, query.labels_N, sets.reference_vectors, reference.labels_N, same=same, seed=seed
    )
    open_set = summarize_trials(
        trials, n=n, confidence=confidence, resample=section.resample, second_weight=SECOND_WEIGHTS[0]
    )
    return ranking, summary | open_set, open_set


def _rank(section: Evaluate, sets: EvaluationSets) -> Ranking:
    """Rank the references for every query, here or on a cluster."""
    from unalike.metrics.diagnostics import DUPLICATE_NEIGHBORS
    from unalike.metrics.ray_ranking import evaluate_ranking_on_ray
    from unalike.metrics.retrieval import evaluate_ranking

    vectors = (sets.query_vectors, sets.query.labels_N, sets.reference_vectors, sets.reference.labels_N)
    options: dict[str, Any] = {"ks": tuple(sorted({*section.ks, section.topk})), "same": sets.same,
                               "neighbors": max(section.topk, DUPLICATE_NEIGHBORS)}  # fmt: skip
    with progress("ranking", len(sets.query), "queries") as advance:
        if section.cluster == "ray":
            return evaluate_ranking_on_ray(
                *vectors, **options, workers=section.workers, address=section.address, advance=advance
            )
        return evaluate_ranking(*vectors, **options, advance=advance)


def _evaluation_page(
    folder: Path, summary: Mapping[str, Any], ranking: Ranking, sets: EvaluationSets, explanations: ExplainedMatches | None
) -> list[Path]:  # fmt: skip
    from unalike.report.evaluation import EmbeddedImages, write_evaluation_report

    query, reference = sets.query, sets.reference
    sizes = (
        f"{len(query):,} queries" if ranking.same else f"{len(query):,} queries against {len(reference):,} references"
    )
    return write_evaluation_report(
        folder, summary, ranking,
        EmbeddedImages.from_vectors(sets.query_vectors, query.labels_N, query.classes, query.paths),
        EmbeddedImages.from_vectors(sets.reference_vectors, reference.labels_N, reference.classes, reference.paths),
        title=f"Evaluation of {sets.title}",
        subtitle=f"{sizes} of {len(np.unique(query.labels_N)):,} classes; {redact(query.source)}",
        explanations=explanations, neighbors=ranking.neighbors,
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
