"""Report of an evaluation: misses, confused classes, embedding map, hard pairs, suspected labels, near-duplicates.

Every section samples large sets and notes that; the full lists of suspected labels and near-duplicates are CSV files beside
the page.

Shape letters: N images, Q queries, R references, D vector width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unalike.metrics.diagnostics import (
    Pairs,
    Suspicion,
    confused_classes,
    embedding_map,
    hardest_pairs,
    near_duplicates,
    suspected_labels,
)
from unalike.metrics.files import write_rows
from unalike.metrics.intervals import Interval
from unalike.metrics.retrieval import Ranking
from unalike.numerics.nearest_neighbors import Neighbors
from unalike.numerics.normalization import UnitVectors, unit_vectors
from unalike.report.html import Report, ReportImage
from unalike.report.plots import ScatterPlot
from unalike.report.sentences import MEAN_NOTE, count_of, range_note, share_sentence
from unalike.runs.filenames import NEAR_DUPLICATES_FILE, REPORT_FILE, SUSPECTED_LABELS_FILE
from unalike.source_names import source_name

# Images of the map (t-SNE of 1,000 takes some seconds), and of what compares all with all.
MAX_MAP_IMAGES, MAX_COMPARED_IMAGES = 1000, 20_000
# Entries of each section; some 250 images in all, about 1.5 MB.
MAX_MISSES, MAX_HITS, MAX_PAIRS, MAX_SUSPECTED, MAX_EXPLAINED, MAX_CONFUSED = 18, 6, 9, 12, 5, 60
SUSPECTED_COLUMNS = ("path", "class", "looks_like", "chance", "margin")
DUPLICATE_COLUMNS = ("path", "class", "other_path", "other_class", "cosine")
# Headings of the images of an explained match.
EXPLAINED_COLUMNS = ("query", "query: alike", "query: unlike", "reference", "reference: alike", "reference: unlike")
# Metrics shown first: key in metrics.json -> name.
HEADLINES = {"precision_at_1": "R@1", "recall_at_5": "R@5", "mean_average_precision_at_r": "MAP@R",
             "r_precision": "R-precision"}  # fmt: skip


@dataclass(frozen=True)
class EmbeddedImages:
    """The images of a set with their vectors.

    Attributes:
        vectors_ND: Vectors of length 1.
        labels_N: Class index of each image.
        classes: Name of each class.
        paths: Path of each image.
    """

    vectors_ND: UnitVectors
    labels_N: np.ndarray
    classes: Sequence[str]
    paths: Sequence[str | Path]

    @classmethod
    def from_vectors(
        cls, vectors_ND: np.ndarray, labels_N: np.ndarray, classes: Sequence[str], paths: Sequence[str | Path]
    ) -> EmbeddedImages:
        """The images with their vectors, of any length."""
        return cls(unit_vectors(vectors_ND), labels_N, classes, paths)

    def __len__(self) -> int:
        return len(self.labels_N)

    def class_name(self, index: int) -> str:
        """The class of an image."""
        return self.classes[int(self.labels_N[index])]

    def image(
        self, index: int, score: float | None = None, correct: bool | None = None, caption: str = ""
    ) -> ReportImage:
        """An image for a report; without a caption, its class is the caption."""
        return ReportImage(self.paths[index], caption or self.class_name(index), score, correct)

    def select(self, rows: np.ndarray) -> EmbeddedImages:
        """The images at these indices."""
        rows = np.asarray(rows, np.int64)
        return replace(self, vectors_ND=self.vectors_ND.rows(rows), labels_N=self.labels_N[rows],
                       paths=[self.paths[i] for i in rows])  # fmt: skip

    def sample(self, count: int, seed: int = 0) -> tuple[EmbeddedImages, np.ndarray]:
        """At most ``count`` images, drawn by ``seed``, in their order; also returns their indices."""
        rows = np.arange(len(self))
        if len(rows) > count:
            rows = np.sort(np.random.default_rng(seed).choice(len(rows), count, replace=False))
        return self.select(rows), rows

    def union(self, other: EmbeddedImages) -> EmbeddedImages:
        """The images of both sets, each path once. Both must have the same classes."""
        own_paths = {str(path) for path in self.paths}
        rows = np.array([i for i, path in enumerate(other.paths) if str(path) not in own_paths], np.int64)
        new = other.select(rows)
        return replace(self, vectors_ND=self.vectors_ND.join(new.vectors_ND),
                       labels_N=np.concatenate([self.labels_N, new.labels_N]),
                       paths=[*self.paths, *new.paths])  # fmt: skip


@dataclass(frozen=True)
class Matches:
    """Queries with their nearest references, where these were found before: arrays of length Q.

    Attributes:
        labels, predicted: Class index of the query and of its nearest reference.
        nearest, score: Index of the nearest reference, and the cosine to it.
        own_nearest, own_score: The same of the nearest reference of the query's class, for misses; -1 and NaN where there is
            none.
    """

    labels: np.ndarray
    predicted: np.ndarray
    nearest: np.ndarray
    score: np.ndarray
    own_nearest: np.ndarray
    own_score: np.ndarray

    @property
    def open_set(self) -> np.ndarray:
        """Whether the query's class has no reference: never."""
        return np.zeros(len(self.labels), bool)


@dataclass(frozen=True)
class ExplainedMatches:
    """Explanations of matches, for a section of a report.

    Attributes:
        rows: A row of images for each match; for a miss two rows, with the wrong reference, then with the right one.
        note: How the maps were made.
        page: The page of all explanations.
    """

    rows: Sequence[tuple[ReportImage, Sequence[ReportImage]]]
    note: str
    page: Path


def write_evaluation_report(
    folder: Path,
    summary: Mapping[str, Any],
    ranking: Ranking,
    query: EmbeddedImages,
    reference: EmbeddedImages,
    *,
    title: str,
    subtitle: str,
    explanations: ExplainedMatches | None = None,
    neighbors: Neighbors | None = None,
) -> list[Path]:
    """Write ``report.html`` of an evaluation and the CSV files beside it.

    Args:
        folder: The results folder.
        summary: The content of ``metrics.json``.
        ranking: The ranking of ``query`` against ``reference``.
        query: The queries.
        reference: The references.
        title: Heading of the page.
        subtitle: The line below it.
        explanations: Explanations of the first misses.
        neighbors: DUPLICATE_NEIGHBORS references nearest to each query, where they are known; else they are searched.

    Returns:
        The files.
    """
    report = Report(title, subtitle)
    add_sentences(report, summary)
    add_retrieval(report, query, reference, ranking)
    if explanations is not None:
        add_explanations(report, explanations, folder)
    add_figures(report, summary)
    add_confusions(report, ranking, query.classes)
    add_embedding_map(report, query, (ranking.predicted != ranking.labels) & ~ranking.open_set)
    all_images = query if ranking.same else query.union(reference)
    add_hard_pairs(report, all_images)
    add_suspected_labels(report, all_images, folder, neighbors=neighbors if ranking.same else None)
    add_near_duplicates(report, query, None if ranking.same else reference, folder, neighbors=neighbors)
    if summary.get("per_class"):
        columns = {key: HEADLINES.get(key, key) for key in ("class", "queries", "references", *HEADLINES)}
        rows = [{name: row[key] for key, name in columns.items() if key in row} for row in summary["per_class"]]
        report.table("Every class", rows, note="Means over the queries of each class.")
    return [report.write(folder / REPORT_FILE), folder / SUSPECTED_LABELS_FILE, folder / NEAR_DUPLICATES_FILE]


def add_sentences(report: Report, summary: Mapping[str, Any]) -> None:
    """Add the sentences of an evaluation: how many of a hundred images get the right name, and what that is measured with.

    Args:
        report: The report.
        summary: The content of ``metrics.json``.
    """
    about, images, classes = summary["intervals"], summary["measured"], summary["classes"]
    sizes = f"{count_of(images, 'image')} of {count_of(classes, 'class', 'classes')}"
    by_class = about["resampled"] == "classes"
    subject = "images of new things" if about["unseen_classes"] else "images of things like these"
    if not by_class:
        subject = f"further images of these {count_of(classes, 'class', 'classes')}"
    share = Interval.from_dict(summary["micro"]["precision_at_1"])
    few = count_of(classes, "class", "classes") if by_class or classes < 2 else count_of(images, "image")
    if share.too_few:
        subject = "images of new things" if about["unseen_classes"] else "images"
    report.sentence(
        share_sentence(
            share,
            subject,
            "get the right name",
            images=images,
            few=few if about["method"] else "",
            confidence=about["confidence"],
        )
    )
    unseen = " that training never saw" if about["unseen_classes"] else ""
    text = f"Measured with {sizes}{unseen}{range_note([share], about['confidence'])}."
    others = summary["queries"] - images
    if others:
        text += f" {count_of(others, 'more image')} {'shows' if others == 1 else 'show'} classes without a reference."
    report.sentence(text)


def add_figures(report: Report, summary: Mapping[str, Any], *, title: str = "In short", note: str = "") -> None:
    """Add the headline figures of an evaluation, each with what it is measured with.

    Args:
        report: The report.
        summary: The content of ``metrics.json``.
        title: Heading of the section.
        note: Text before the section's own note.
    """
    micro, about = summary["micro"], summary["intervals"]
    sizes = f"{count_of(summary['measured'], 'query', 'queries')}, {count_of(summary['classes'], 'class', 'classes')}"
    report.figures(
        [(name, Interval.from_dict(micro[key]), sizes) for key, name in HEADLINES.items() if key in micro], title=title,
        note=f"{note} Means over queries, from 0 to 1, each with its {100 * about['confidence']:g} % interval for "
        f"{about['claim']}. {MEAN_NOTE if about['method'] else ''}".strip(),
    )  # fmt: skip


def add_retrieval(
    report: Report, query: EmbeddedImages, reference: EmbeddedImages, ranking: Ranking | Matches, *, about: str = ""
) -> None:
    """Add misses and hits with their nearest references.

    Args:
        report: The report.
        query, reference: The images.
        ranking: The ranking of ``query`` against ``reference``, or the nearest references alone.
        about: What is added to the headings, in parentheses.
    """
    about = f" ({about})" if about else ""
    in_gallery = np.flatnonzero(~ranking.open_set)
    wrong = in_gallery[ranking.predicted[in_gallery] != ranking.labels[in_gallery]]
    correct = in_gallery[ranking.predicted[in_gallery] == ranking.labels[in_gallery]]
    share = (
        f"{len(wrong):,} of {len(in_gallery):,} queries" if len(in_gallery) else "no query has a reference of its class"
    )
    report.gallery(
        f"Misses{about}", [_miss_row(query, reference, ranking, q) for q in _select_misses(ranking, wrong)],
        note=f"{share}. Highest cosines first, each pair of classes once before any is repeated.",
        columns=("query", "nearest reference", "its own class"),
    )  # fmt: skip
    some = correct[:: max(1, len(correct) // MAX_HITS)][:MAX_HITS]
    report.gallery(
        f"Hits{about}",
        [(query.image(q), [reference.image(int(ranking.nearest[q]), float(ranking.score[q]), True)]) for q in some],
        note=f"{len(correct):,} of {len(in_gallery):,} queries; some of them.",
        columns=("query", "nearest reference"),
    )


def add_confusions(report: Report, ranking: Ranking | Matches, classes: Sequence[str], *, about: str = "") -> None:
    """Add a table of the confused classes; ``about`` is added to its heading, in parentheses."""
    about = f" ({about})" if about else ""
    in_gallery = np.flatnonzero(~ranking.open_set)
    rows = _confusion_rows(ranking.labels[in_gallery], ranking.predicted[in_gallery], classes)
    more = f" {len(rows) - MAX_CONFUSED} more pairs." if len(rows) > MAX_CONFUSED else ""
    report.table(f"Confused classes{about}", rows[:MAX_CONFUSED], note="Pairs of classes, the most frequent first; share is "
                 f"that of the class's own queries.{more}")  # fmt: skip


def _select_misses(ranking: Ranking | Matches, wrong: np.ndarray) -> list[int]:
    """Select misses for the report: highest scores first, each pair of classes once before any is repeated."""
    times: Counter[tuple[int, int]] = Counter()
    order: list[tuple[int, int, int]] = []
    for q in wrong[np.argsort(-ranking.score[wrong], kind="stable")]:
        pair = (int(ranking.labels[q]), int(ranking.predicted[q]))
        order.append((times[pair], len(order), int(q)))
        times[pair] += 1
    return [q for _, _, q in sorted(order)[:MAX_MISSES]]


def _miss_row(
    query: EmbeddedImages, reference: EmbeddedImages, ranking: Ranking | Matches, q: int
) -> tuple[ReportImage, list[ReportImage]]:
    """A missed query, the wrong reference, and the nearest reference of its own class."""
    label = int(ranking.labels[q])
    images = [reference.image(int(ranking.nearest[q]), float(ranking.score[q]), False)]
    if isinstance(ranking, Matches):
        if ranking.own_nearest[q] >= 0:
            images.append(reference.image(int(ranking.own_nearest[q]), float(ranking.own_score[q]), True))
        return query.image(q), images
    own = np.flatnonzero(reference.labels_N == label)
    own = own[[str(reference.paths[i]) != str(query.paths[q]) for i in own.tolist()]]
    if len(own):
        cosines = np.asarray(reference.vectors_ND)[own] @ np.asarray(query.vectors_ND)[q]
        best = int(cosines.argmax())
        images.append(reference.image(int(own[best]), float(cosines[best]), True))
    return query.image(q), images


def _confusion_rows(labels_Q: np.ndarray, predicted_Q: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """A table row for each pair of confused classes; the more frequent direction comes first."""
    rows = []
    for pair in confused_classes(labels_Q, predicted_Q):
        directions = [(pair.a, pair.b, pair.a_as_b, pair.a_rate), (pair.b, pair.a, pair.b_as_a, pair.b_rate)]
        if pair.a_as_b < pair.b_as_a:
            directions.reverse()
        (true, predicted, times, share), (_, _, times_back, share_back) = directions
        rows.append({
            "class": classes[true], "taken for": classes[predicted], "times": times, "share": share,
            "the other way, times": times_back, "share of the other": share_back,
        })  # fmt: skip
    return rows


def add_explanations(report: Report, explanations: ExplainedMatches, folder: Path) -> None:
    """Add the first misses with the regions that are evidence for the wrong reference and against the right one."""
    report.gallery(
        "Why the worst were missed", explanations.rows[: 2 * MAX_EXPLAINED],
        note="Two rows for each miss: compared with the nearest reference, of a wrong class, then with the nearest of its own "
        f"class. {explanations.note}", columns=EXPLAINED_COLUMNS,
        link=(explanations.page.relative_to(folder).as_posix(), "All explained misses with their maps"),
    )  # fmt: skip


def add_embedding_map(
    report: Report, images: EmbeddedImages, wrong_N: np.ndarray | None = None, *, note: str = "", quick: bool = False
) -> None:
    """Add the embedding map; nothing below three images.

    Args:
        report: The report.
        images: The images.
        wrong_N: Whether the nearest neighbor of each image is of another class (bool); these are red crosses.
        note: Text after the section's own note.
        quick: Whether to project to the principal axes, in no time, in place of t-SNE.
    """
    sample, rows = images.sample(MAX_MAP_IMAGES)
    if len(sample) < 3:
        return
    wrong = np.zeros(len(sample), bool) if wrong_N is None else np.asarray(wrong_N, bool)[rows]
    texts = [f"{sample.class_name(i)}: {Path(source_name(path)).name}" for i, path in enumerate(sample.paths)]
    points = embedding_map(sample.vectors_ND, **({"most": 0} if quick else {}))
    plot = ScatterPlot.from_points(points, sample.labels_N, sample.classes, texts, wrong)
    text = (
        "Each point is an image; a line joins it to the middle of its class, where the class is named. Near points are similar, "
        "axes have no meaning. Point at an image for its name."
    )
    text += " A red cross: the nearest reference is of another class." if wrong.any() else ""
    unnamed = plot.classes - len(plot.names)
    text += f" {unnamed:,} of {plot.classes:,} classes are not named for lack of room." if unnamed else ""
    text += f" {len(sample):,} of {len(images):,} images, drawn at random." if len(sample) < len(images) else ""
    report.scatter("Embedding map", plot, note=f"{text} {note}".strip())


def add_hard_pairs(report: Report, images: EmbeddedImages) -> None:
    """Add the nearest pairs of different classes and the farthest pairs within a class."""
    sample, _ = images.sample(MAX_COMPARED_IMAGES)
    sampled = f" Of {len(sample):,} images drawn from {len(images):,}." if len(sample) < len(images) else ""
    # One image may be near many of another class: each image is used in one pair.
    across, within = (
        _disjoint(pairs, MAX_PAIRS) for pairs in hardest_pairs(sample.vectors_ND, sample.labels_N, 4 * MAX_PAIRS)
    )
    report.image_pairs("Hardest pairs: different classes, nearly equal vectors", _pair_rows(sample, sample, across),
                       columns=("image", "its look-alike"),
                       note=f"The images that the network can hardly tell apart; an image appears once.{sampled}")  # fmt: skip
    report.image_pairs("Hardest pairs: one class, vectors far apart", _pair_rows(sample, sample, within), columns=("image", "same class"),
                       note=f"Images of one class that the network separates: another view, other lighting, or a wrong label.{sampled}")  # fmt: skip


def _disjoint(pairs: Pairs, count: int) -> Pairs:
    """The first ``count`` pairs that share no image."""
    taken_rows: set[int] = set()
    rows: list[int] = []
    for row, (a, b) in enumerate(pairs.pairs_P2.tolist()):
        if len(rows) < count and a not in taken_rows and b not in taken_rows:
            rows.append(row)
            taken_rows |= {a, b}
    return Pairs(pairs.pairs_P2[rows], pairs.scores_P[rows])


def _pair_rows(left: EmbeddedImages, right: EmbeddedImages, pairs: Pairs) -> list[tuple[ReportImage, ReportImage, str]]:
    return [(left.image(a), right.image(b), f"cosine {score:.3f}")
            for (a, b), score in zip(pairs.pairs_P2.tolist(), pairs.scores_P.tolist(), strict=True)]  # fmt: skip


def add_suspected_labels(
    report: Report, images: EmbeddedImages, folder: Path, *, note: str = "", neighbors: Neighbors | None = None
) -> list[Suspicion]:
    """Add the images whose neighbors contradict their label, and write all of them to ``suspected_labels.csv``.

    Args:
        report: The report.
        images: The images.
        folder: The folder of the CSV file.
        note: Text after the section's own note.
        neighbors: VOTING_NEIGHBORS neighbors of each image, where they are known.
    """
    sample, _ = images.sample(MAX_COMPARED_IMAGES)
    neighbors = neighbors if len(sample) == len(images) else None
    suspicions = []
    if len(sample) > 2:
        suspicions = suspected_labels(sample.vectors_ND, sample.labels_N, neighbors=neighbors)
    rows = [{"path": source_name(sample.paths[s.image]), "class": sample.class_name(s.image),
             "looks_like": sample.classes[s.suggested], "chance": f"{s.chance:.2e}", "margin": round(s.score, 3)}
            for s in suspicions]  # fmt: skip
    write_rows(folder / SUSPECTED_LABELS_FILE, rows, SUSPECTED_COLUMNS)
    image_rows = [
        (sample.image(s.image, caption=f"labeled {sample.class_name(s.image)}; looks like {sample.classes[s.suggested]}"),
         [sample.image(i) for i in s.neighbors[:5]])
        for s in suspicions[:MAX_SUSPECTED]
    ]  # fmt: skip
    text = f"{len(suspicions):,} images whose nearest neighbors agree on another class, beyond chance. "
    text += f"A list to review, not a decision; all of them are in {SUSPECTED_LABELS_FILE}. " if suspicions else ""
    report.gallery("Suspected wrong labels", image_rows, note=text + note, columns=("image", "nearest neighbors"))
    return suspicions


def add_near_duplicates(
    report: Report, images: EmbeddedImages, other: EmbeddedImages | None, folder: Path, *,
    neighbors: Neighbors | None = None,
) -> Pairs:  # fmt: skip
    """Add nearly equal images within a set, or between two, and write all pairs to ``near_duplicates.csv``.

    Args:
        report: The report.
        images: The images.
        other: The set that they are compared with; None for pairs within ``images``.
        folder: The folder of the CSV file.
        neighbors: DUPLICATE_NEIGHBORS neighbors of each image in ``other``, or in the set itself, where they are known.
    """
    left, _ = images.sample(MAX_COMPARED_IMAGES)
    right = left if other is None else other.sample(MAX_COMPARED_IMAGES)[0]
    complete = len(left) == len(images) and (other is None or len(right) == len(other))
    duplicates = near_duplicates(
        left.vectors_ND, None if other is None else right.vectors_ND, neighbors=neighbors if complete else None
    )
    rows = [{"path": source_name(left.paths[a]), "class": left.class_name(a), "other_path": source_name(right.paths[b]),
             "other_class": right.class_name(b), "cosine": round(score, 6)}
            for (a, b), score in zip(duplicates.pairs_P2.tolist(), duplicates.scores_P.tolist(), strict=True)]  # fmt: skip
    write_rows(folder / NEAR_DUPLICATES_FILE, rows, DUPLICATE_COLUMNS)
    between = "of the set" if other is None else "between query and reference"
    text = f"{len(duplicates):,} pairs {between}, at a cosine of {duplicates.threshold:.4f} or more"
    text += f"; all of them are in {NEAR_DUPLICATES_FILE}." if len(duplicates) else "."
    text += "" if other is None else " A query that is among the references too makes every metric look better."
    first = Pairs(duplicates.pairs_P2[:MAX_PAIRS], duplicates.scores_P[:MAX_PAIRS])
    columns = ("image", "nearly equal") if other is None else ("query", "reference")
    report.image_pairs("Near-duplicates", _pair_rows(left, right, first), note=text, columns=columns)
    return duplicates
