"""HTML report of a training: curves, metrics, misses, embedding map, hard pairs, suspected labels, near-duplicates.

It uses vectors that training has computed already: those of the validation at the best epoch, or, after automatic training, the
frozen trunk's of all images and the delivered recognizer's of those that were held out. No network runs for it.

Shape letters: N images, D vector width, F features.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.data.imageset import ImageSet
from unalike.metrics.intervals import Interval
from unalike.metrics.retrieval import Ranking, evaluate_ranking
from unalike.metrics.summary import summarize
from unalike.report.evaluation import (
    EmbeddedImages,
    Matches,
    add_confusions,
    add_embedding_map,
    add_figures,
    add_hard_pairs,
    add_near_duplicates,
    add_retrieval,
    add_sentences,
    add_suspected_labels,
)
from unalike.report.html import Report
from unalike.report.sentences import MEAN_NOTE, count_of, range_note, share_sentence
from unalike.runs.filenames import NEAR_DUPLICATES_FILE, REPORT_FILE, SUSPECTED_LABELS_FILE
from unalike.runs.kpi_names import short_name
from unalike.sanitize import redact
from unalike.training.automatic.holdout_result import KIND_NAMES, HoldoutResult, describe_counts

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.training.history import History
    from unalike.training.trainer import TrainingResult

# Points of a curve; more cannot be distinguished.
MAX_POINTS = 300


def embedded_images(images: ImageSet, vectors_ND: np.ndarray) -> EmbeddedImages:
    """Join an image set with its vectors.

    Args:
        images: N images.
        vectors_ND: their vectors, in the same order.
    """
    return EmbeddedImages.from_vectors(vectors_ND, images.labels_N, images.classes, images.paths)


def write_training_report(folder: Path, experiment: Experiment, result: TrainingResult) -> list[Path]:
    """Write the report of a plain training, and the lists of suspected labels and near-duplicates.

    Args:
        folder: the run's folder.
        experiment: the settled spec.
        result: the result of the training.

    Returns:
        The files.
    """
    sets, embeddings = result.sets, result.embeddings
    report = Report(experiment.model_name or "Training", _subtitle(experiment, sets.train))
    if embeddings is not None and result.ranking is not None:
        query, reference = (embedded_images(images, vectors) for images, vectors in embeddings)
        summary = summarize(result.ranking, reference.classes, n=1000, unseen_classes=sets.unseen)
        about = "classes that training never saw" if sets.unseen else "images that training never saw"
        add_sentences(report, summary)
        add_retrieval(report, query, reference, result.ranking)
        add_figures(report, summary, title=f"In short: {_checkpoint_name(result)}",
                    note=f"Validation on {about} ({sets.validation}): the best of all validations, so slightly optimistic.")  # fmt: skip
    else:
        report.sentence(
            "How many images get the right name was not measured: none were named or held out for validation."
        )
        report.sentence("`unalike evaluate` measures the model on images of yours.")
    if result.history.steps or result.history.validations:
        report.curves("Curves", _curves(result.history, experiment.train.num_epochs))
    files = []
    if embeddings is not None and result.ranking is not None:
        files = _add_validation(report, query, reference, result.ranking, folder)
    return [report.write(folder / REPORT_FILE), *files]


def _checkpoint_name(result: TrainingResult) -> str:
    """Describe the weights of the checkpoint."""
    if result.refitted and not result.history.steps:
        return "the trunk as it is, with a fitted head"
    if result.refitted:
        return "after the last epoch, weights interpolated and head fitted again"
    return f"epoch {result.best_epoch + 1 if result.best_epoch is not None else '?'}, the best"


def _add_validation(
    report: Report, query: EmbeddedImages, reference: EmbeddedImages, ranking: Ranking, folder: Path
) -> list[Path]:
    add_confusions(report, ranking, query.classes)
    add_embedding_map(report, query, (ranking.predicted != ranking.labels) & ~ranking.open_set)
    everything = query if ranking.same else query.union(reference)
    add_hard_pairs(report, everything)
    add_suspected_labels(report, everything, folder, note="A network fits wrong labels of its training images too, "
               "so few of these are listed here.")  # fmt: skip
    add_near_duplicates(report, query, None if ranking.same else reference, folder)
    return [folder / SUSPECTED_LABELS_FILE, folder / NEAR_DUPLICATES_FILE]


def write_automatic_report(
    folder: Path,
    experiment: Experiment,
    record: Mapping[str, Any],
    history: History,
    images: ImageSet,
    frozen_NF: np.ndarray,
    result: HoldoutResult,
    seconds: float = math.inf,
) -> list[Path]:
    """Write the report of automatic training, and the lists of suspected labels and near-duplicates.

    Args:
        folder: the run's folder.
        experiment: the spec of the delivered model.
        record: content of ``automatic.json``.
        history: curves of fine-tuning.
        images: all images.
        frozen_NF: the frozen trunk's vectors of all images.
        result: the delivered candidate's results: figures, and the queries behind them.
        seconds: time limit; of many images a sample is compared with one another.

    Returns:
        The files.
    """
    report = Report(experiment.model_name or "Automatic training", _subtitle(experiment, images))
    base, choice = (next(c for c in record["candidates"] if c["name"] == name)
                    for name in (record["candidates"][0]["name"], record["chosen"]))  # fmt: skip
    counts = record["evaluation"]["counts"]
    figures = [(kind, name, value) for kind, row in choice["figures"].items() for name, value in row.items()]
    shares = {kind: Interval.from_dict(choice["figures"][kind]["R@1"]) for kind in counts}
    for kind, row in counts.items():
        report.sentence(describe_share(kind, shares[kind], row))
    basis = [f"{count_of(row['images'], 'image')} of {count_of(row['classes'], 'class', 'classes')} ({KIND_NAMES[kind]})"
                for kind, row in counts.items()]  # fmt: skip
    report.sentence(f"Measured with {' and '.join(basis)}{range_note(shares.values())}.")
    for kind in counts:
        _add_lookups(report, kind, result, images, counts[kind])
    report.figures(
        [("delivered", choice["name"]), ("minutes", f"{record['spent_minutes']:.1f} of {record['minutes']:g}"),
         *((f"{name}, {KIND_NAMES[kind]}", Interval.from_dict(value), describe_counts(counts[kind]) if kind in counts else "")
           for kind, name, value in figures)],
        note=" ".join(text for text in (_as_sentence(choice["statement"]), _describe_queries(record),
                                        _as_sentence(record["not_tested"]), OPTIMISTIC) if text),
    )  # fmt: skip
    if choice is not base:
        report.comparison(
            [(f"{name}, {KIND_NAMES[kind]}", Interval.from_dict(base["figures"][kind][name]), Interval.from_dict(value),
              Interval.from_dict(choice["gain_over_frozen"][kind][name], 2.0),
              describe_counts(counts[kind]) if kind in counts else "") for kind, name, value in figures],
            before="frozen trunk", after=choice["name"], title="Compared with the frozen trunk",
            note="Paired differences on the same queries; the frozen trunk is not trained at all.",
        )  # fmt: skip
    report.table("Candidates", [
        {"name": c["name"], **{f"{name}, {KIND_NAMES[kind]}": value["value"] for kind, row in c["figures"].items()
                               for name, value in row.items()},
         "delivered": "yes" if c is choice else "", "why": c["reason"]} for c in record["candidates"]
    ], note=f"On the same queries. The rule: {record['rule']}. `unalike train --take NAME` delivers another one.", stack=True)  # fmt: skip
    report.table("Heads on frozen features", [{"name": head["name"], "score": head["score"]} for head in record["heads"]], folded=True,
                 note="Mean of R@1 and MAP@R in cross-validation on the images to fit to; the best heads are among the candidates "
                 "above. A head trained with a loss is one of them only if its R@1 is significantly higher and MAP@R no lower.")  # fmt: skip
    if history.steps:
        report.curves("Fine-tuning", _curves(history, experiment.train.num_epochs), folded=True)
    for kind in counts:
        _add_confusions(report, kind, result, images, counts[kind])
    every = embedded_images(images, frozen_NF)
    count, quick = _comparisons_that_fit(every, seconds)
    frozen, _ = every.sample(count)
    note = OF_FROZEN
    if len(frozen) < len(every):
        note += f" {len(frozen):,} of {len(every):,} images, drawn at random: more did not fit into the time."
    nearest = _nearest(frozen)
    add_embedding_map(report, frozen, (nearest.predicted != nearest.labels) & ~nearest.open_set, note=note, quick=quick)
    add_hard_pairs(report, frozen)
    add_suspected_labels(report, frozen, folder, note=note)
    add_near_duplicates(report, frozen, None, folder)
    return [report.write(folder / REPORT_FILE), folder / SUSPECTED_LABELS_FILE, folder / NEAR_DUPLICATES_FILE]


OPTIMISTIC = f"With 95 % intervals. {MEAN_NOTE} It is the best of several candidates, so slightly optimistic; your own query images were not used."
# Comparing images with one another takes about so many times as long as finding the nearest neighbor of each, and t-SNE as
# long as so many times the nearest neighbors of PROBE_IMAGES (1,280 features, 2026-11-29).
COMPARISONS, TSNE_PROBES, PROBE_IMAGES = 6.0, 300.0, 500


def _nearest(images: EmbeddedImages) -> Ranking:
    vectors_ND, labels_N = images.vectors_ND, images.labels_N
    return evaluate_ranking(vectors_ND, labels_N, vectors_ND, labels_N, ks=(1,), same=True)


def _comparisons_that_fit(images: EmbeddedImages, seconds: float) -> tuple[int, bool]:
    """Return how many images can be compared with one another in ``seconds``, and whether there is no time for t-SNE."""
    if not math.isfinite(seconds):
        return len(images), False
    probe, _ = images.sample(PROBE_IMAGES)
    start = time.monotonic()
    _nearest(probe)
    elapsed = max(time.monotonic() - start, 1e-6)
    quick = TSNE_PROBES * elapsed > seconds / 2
    fitting = len(probe) * math.sqrt(max(seconds, 0.0) / 2 / (COMPARISONS * elapsed))
    return min(len(images), max(len(probe), int(fitting))), quick


OF_FROZEN = "From the frozen trunk's vectors, which do not depend on your labels."


def _as_sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _describe_queries(record: Mapping[str, Any]) -> str:
    """Say which queries are behind the figures."""
    evaluation = record["evaluation"]
    return f"Measured by {evaluation['method']}. " + " ".join(
        f"{_as_sentence(KIND_NAMES[kind])[:-1]}: {describe_counts(row)} ({evaluation['meaning'][kind]})."
        for kind, row in evaluation["counts"].items()
    )


# What the images of a kind are called in a sentence.
KIND_SUBJECTS = {
    "new": "images of new things",
    "known": "new images of known things, from another place or another day",
    "same": "new images of known things, taken like those here",
}


def describe_share(kind: str, share: Interval, counts: Mapping[str, int]) -> str:
    """Say how many of a hundred images of a kind get the right name.

    Args:
        kind: a key of ``KIND_NAMES``.
        share: R@1 of the kind.
        counts: the entry of the kind in ``HoldoutResult.counts``.
    """
    few = count_of(counts["classes"], "class", "classes")
    subject = KIND_SUBJECTS[kind]
    return share_sentence(share, subject, "get the right name", images=counts["images"], few=few)


def _add_lookups(report: Report, kind: str, result: HoldoutResult, images: ImageSet, counts: Mapping[str, int]) -> None:
    """Add misses and hits of the queries of one kind: those that its figures are computed from."""
    if result.lookups is not None:
        query, reference, matches = _matches(kind, result, images)
        add_retrieval(report, query, reference, matches, about=f"{KIND_NAMES[kind]}, {describe_counts(counts)}")


def _add_confusions(
    report: Report, kind: str, result: HoldoutResult, images: ImageSet, counts: Mapping[str, int]
) -> None:
    """Add the confused classes of the queries of one kind."""
    if result.lookups is not None:
        _, _, matches = _matches(kind, result, images)
        add_confusions(report, matches, images.classes, about=f"{KIND_NAMES[kind]}, {describe_counts(counts)}")


def _matches(kind: str, result: HoldoutResult, images: ImageSet) -> tuple[EmbeddedImages, EmbeddedImages, Matches]:
    """The queries of one kind, all images as their references, and what was found."""
    assert result.lookups is not None
    lookups, labels_N = result.lookups.select(result.kind_Q == kind), images.labels_N
    query = EmbeddedImages.from_vectors(np.zeros((len(lookups.query_Q), 1)), labels_N[lookups.query_Q], images.classes,
                           [images.paths[i] for i in lookups.query_Q.tolist()])  # fmt: skip
    reference = EmbeddedImages.from_vectors(np.zeros((len(images), 1)), labels_N, images.classes, images.paths)
    matches = Matches(query.labels_N, labels_N[lookups.nearest_Q], lookups.nearest_Q, lookups.score_Q, lookups.own_Q,
                      lookups.own_score_Q)  # fmt: skip
    return query, reference, matches


def _subtitle(experiment: Experiment, images: ImageSet) -> str:
    return (f"{redact(str(experiment.dataset.train_dataset))}: {len(images):,} images of {len(np.unique(images.labels_N)):,} "
            f"classes; trunk {experiment.model.backbone}")  # fmt: skip


def _curves(history: History, epochs: int) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return points by plot title and line name; x is the epoch, fractional for steps."""
    plots: dict[str, dict[str, list[tuple[float, float]]]] = {}
    if history.steps:
        last = max(row["step"] for row in history.steps) or 1
        sampled = history.steps[:: -(-len(history.steps) // MAX_POINTS)]
        plots["training loss"] = {"loss": [(epochs * row["step"] / last, row["train_loss"]) for row in sampled]}
        plots["learning rate"] = {name: [(epochs * row["step"] / last, row[f"{name}_base_lr"]) for row in sampled]
                                  for name in ("trunk", "embedder")}  # fmt: skip
    if history.validations:
        plots["validation"] = {
            short_name(name.removeprefix("val ")): [
                (row["epoch"] + 1, row[name]) for row in history.validations if name in row
            ]
            for name in ("val Precision at Rank 1", "val Mean Average Precision")
        }
    return plots
