"""What vectors say about a data set, as sections of a page: misses, confusions, a map, hard pairs, doubts, duplicates.

Every section samples large sets and says so; what is to be acted on stands whole in CSV files beside the page.

Shape letters: N images, Q queries, R references, D vector width.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
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
from unalike.metrics.knn import unit
from unalike.metrics.retrieval import Ranking
from unalike.report.html import Report, Tile
from unalike.runs.filenames import NEAR_DUPLICATES_FILE, REPORT_FILE, SUSPECTED_LABELS_FILE

# Images of the map (t-SNE of 1,000 takes some seconds), and of what compares all with all.
MAPPED, COMPARED = 1000, 20_000
# What is shown; some 250 pictures in all, about 1.5 MB.
MISSES, HITS, COUPLES, DOUBTED, NAMED, EXPLAINED = 18, 6, 9, 12, 24, 5


@dataclass(frozen=True)
class Shown:
    """Images of one set: vectors (N, D) of any length, labels (N,) into ``classes``, a path each."""

    vectors_ND: np.ndarray
    labels_N: np.ndarray
    classes: Sequence[str]
    paths: Sequence[str | Path]

    def __len__(self) -> int:
        return len(self.labels_N)

    def name(self, i: int) -> str:
        """The class of image ``i``."""
        return self.classes[int(self.labels_N[i])]

    def tile(self, i: int, score: float | None = None, right: bool | None = None, label: str = "") -> Tile:
        """Image ``i`` as a picture of a report."""
        return Tile(self.paths[i], label or self.name(i), score, right)

    def select(self, rows: np.ndarray) -> Shown:
        """The images at these places."""
        rows = np.asarray(rows, np.int64)
        return replace(self, vectors_ND=self.vectors_ND[rows], labels_N=self.labels_N[rows],
                       paths=[self.paths[i] for i in rows])  # fmt: skip

    def sample(self, most: int, seed: int = 0) -> tuple[Shown, np.ndarray]:
        """At most so many images, seeded, in their order, and their places."""
        rows = np.arange(len(self))
        if len(rows) > most:
            rows = np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))
        return self.select(rows), rows

    def joined(self, other: Shown) -> Shown:
        """Both sets, an image that stands in both once. Their classes must be the same list."""
        known = {str(path) for path in self.paths}
        rows = np.array([i for i, path in enumerate(other.paths) if str(path) not in known], np.int64)
        new = other.select(rows)
        return replace(self, vectors_ND=np.concatenate([self.vectors_ND, new.vectors_ND]),
                       labels_N=np.concatenate([self.labels_N, new.labels_N]),
                       paths=[*self.paths, *new.paths])  # fmt: skip


@dataclass(frozen=True)
class Reasons:
    """Why queries matched their references: a row of pictures a pair, what is to be said of them, and the page of all.

    For misses two rows each: against the wrong reference, then against the right one.
    """

    rows: Sequence[tuple[Tile, Sequence[Tile]]]
    note: str
    page: Path


def add_reasons(report: Report, reasons: Reasons, folder: Path) -> None:
    """The first few misses, with the regions that spoke for the wrong reference and against the right one."""
    shown = reasons.rows[: 2 * EXPLAINED]
    report.gallery(
        "Why the worst were missed", shown,
        note="Two rows a miss: held against the wrong reference (red) that won, then against the nearest of its own class "
        f"(green). {reasons.note}",
        link=(reasons.page.relative_to(folder).as_posix(), "All that were explained, each with its maps"),
    )  # fmt: skip


def add_retrieval(report: Report, query: Shown, reference: Shown, ranking: Ranking, *, about: str = "") -> None:
    """Misses and hits with the nearest references, and the confused classes. ``ranking`` is that of ``query``."""
    about = f" ({about})" if about else ""
    closed = np.flatnonzero(~ranking.open_set)
    wrong = closed[ranking.predicted[closed] != ranking.labels[closed]]
    right = closed[ranking.predicted[closed] == ranking.labels[closed]]
    # The surest misses tell most; a pair of classes shows once before it shows again.
    seen: Counter[tuple[int, int]] = Counter()
    turn: list[tuple[int, int, int]] = []
    for q in wrong[np.argsort(-ranking.score[wrong], kind="stable")]:
        pair = (int(ranking.labels[q]), int(ranking.predicted[q]))
        turn.append((seen[pair], len(turn), int(q)))
        seen[pair] += 1
    chosen = [q for _, _, q in sorted(turn)[:MISSES]]
    share = f"{len(wrong):,} of {len(closed):,} queries" if len(closed) else "no query can be judged"
    report.gallery(
        f"Misses{about}", [_miss(query, reference, ranking, q) for q in chosen],
        note=f"{share}. Each row: the query, what it was taken for (red), and the nearest reference of its own class "
        "(green). The surest mistakes first, each pair of classes once before it comes again; numbers are cosines.",
    )  # fmt: skip
    some = right[:: max(1, len(right) // HITS)][:HITS]
    report.gallery(f"Hits{about}", [(query.tile(q), [reference.tile(int(ranking.nearest[q]), float(ranking.score[q]), True)])
                            for q in some], note=f"{len(right):,} of {len(closed):,} queries; some of them.")  # fmt: skip
    rows = [
        {"class": query.classes[c.a], "taken for": query.classes[c.b], "times": c.a_as_b, "share": _share(c.a_rate),
         "the other way, times": c.b_as_a, "share of the other": _share(c.b_rate)}
        if c.a_as_b >= c.b_as_a else
        {"class": query.classes[c.b], "taken for": query.classes[c.a], "times": c.b_as_a, "share": _share(c.b_rate),
         "the other way, times": c.a_as_b, "share of the other": _share(c.a_rate)}
        for c in confused_classes(ranking.labels[closed], ranking.predicted[closed])
    ]  # fmt: skip
    report.table(f"Confused classes{about}", rows[:60], note="Pairs of classes, the most frequent first; share is that of the "
                 "class's own queries." + (f" {len(rows) - 60} more pairs." if len(rows) > 60 else ""))  # fmt: skip


def _share(rate: float) -> float | None:
    return None if math.isnan(rate) else rate


def _miss(query: Shown, reference: Shown, ranking: Ranking, q: int) -> tuple[Tile, list[Tile]]:
    label = int(ranking.labels[q])
    tiles = [reference.tile(int(ranking.nearest[q]), float(ranking.score[q]), False)]
    own = np.flatnonzero(reference.labels_N == label)
    own = own[[str(reference.paths[i]) != str(query.paths[q]) for i in own.tolist()]]
    if len(own):
        cosines = (unit(reference.vectors_ND[own]) @ unit(query.vectors_ND[q : q + 1]).T)[:, 0]
        best = int(cosines.argmax())
        tiles.append(reference.tile(int(own[best]), float(cosines[best]), True))
    return query.tile(q), tiles


def add_map(report: Report, shown: Shown, wrong_N: np.ndarray | None = None, *, note: str = "") -> None:
    """The embedding map; ``wrong_N`` (bool) rings the images whose nearest neighbour is of another class."""
    part, rows = shown.sample(MAPPED)
    if len(part) < 3:
        return
    plane_N2 = embedding_map(part.vectors_ND)
    ringed = np.zeros(len(part), bool) if wrong_N is None else np.asarray(wrong_N, bool)[rows]
    told = "A point an image, a colour a class; near points are alike, axes have no meaning; pointing at one names it."
    told += " Ringed in red: the nearest reference is of another class." if ringed.any() else ""
    told += f" {len(part):,} of {len(shown):,} images, drawn at random." if len(part) < len(shown) else ""
    report.drawing("Embedding map", _scatter(plane_N2, part, ringed), note=f"{told} {note}".strip())


def _scatter(plane_N2: np.ndarray, part: Shown, ringed: np.ndarray) -> str:
    width, height, margin = 1000, 620, 24
    low, high = plane_N2.min(axis=0), plane_N2.max(axis=0)
    at_N2 = margin + (plane_N2 - low) / np.maximum(high - low, 1e-12) * ([width - 2 * margin, height - 2 * margin])
    labels, counts = np.unique(part.labels_N, return_counts=True)
    # Hues by the golden angle, so that classes of neighbouring numbers differ; three depths of colour.
    colour = {int(c): f"hsl({137.508 * i % 360:.0f} {(70, 55, 85)[i % 3]}% {(50, 42, 58)[i // 3 % 3]}%)"
              for i, c in enumerate(labels)}  # fmt: skip
    dots = [
        f"<circle cx={x:.1f} cy={y:.1f} r=4.5 fill='{colour[int(c)]}' {ring}><title>{escape(part.classes[int(c)])}: "
        f"{escape(Path(path).name)}</title></circle>"
        for (x, y), c, path, ring in zip(
            at_N2, part.labels_N, part.paths,
            ("stroke='var(--bad)' stroke-width=2" if r else "fill-opacity=.8" for r in ringed), strict=True,
        )
    ]  # fmt: skip
    names: list[str] = []
    taken: list[tuple[float, float, int]] = []
    for c in labels[np.argsort(-counts, kind="stable")]:
        x, y = np.median(at_N2[part.labels_N == c], axis=0) - (0, 8)  # above the points
        text = part.classes[int(c)]
        text = text if len(text) <= 24 else text[:23] + "…"
        x = float(np.clip(x, 3.6 * len(text), width - 3.6 * len(text)))
        if len(names) == NAMED or any(abs(y - v) < 17 and abs(x - u) < 3.6 * (len(text) + n) for u, v, n in taken):
            continue  # no name over another
        taken.append((x, float(y), len(text)))
        names.append(f"<text class=name x={x:.1f} y={y:.1f} text-anchor=middle>{escape(text)}</text>")
    return (
        f"<svg viewBox='0 0 {width} {height}' width={width} height={height} role=img aria-label='embedding map'>"
        f"{''.join(dots)}{''.join(names)}</svg>"
    )


def add_pairs(report: Report, shown: Shown) -> None:
    """The nearest pairs of different classes and the farthest pairs within a class."""
    part, _ = shown.sample(COMPARED)
    said = f" Of {len(part):,} images drawn from {len(shown):,}." if len(part) < len(shown) else ""
    # One image may be near many of another class: each image stands in one pair.
    across, within = (_apart(found, COUPLES) for found in hardest_pairs(part.vectors_ND, part.labels_N, 4 * COUPLES))
    report.couples("Hardest pairs: different classes, nearly equal vectors", _couples(part, part, across),
                   note=f"The images that the network can hardly tell apart; an image stands once.{said}")  # fmt: skip
    report.couples("Hardest pairs: one class, vectors far apart", _couples(part, part, within),
                   note=f"What the network does not see as one thing: other sides, other light, or a wrong label.{said}")  # fmt: skip


def _apart(pairs: Pairs, most: int) -> Pairs:
    """The first pairs that share no image."""
    seen: set[int] = set()
    kept: list[int] = []
    for p, (a, b) in enumerate(pairs.pairs_P2.tolist()):
        if len(kept) < most and a not in seen and b not in seen:
            kept.append(p)
            seen |= {a, b}
    return Pairs(pairs.pairs_P2[kept], pairs.scores_P[kept])


def _couples(left: Shown, right: Shown, pairs: Pairs) -> list[tuple[Tile, Tile, str]]:
    return [(left.tile(a), right.tile(b), f"cosine {score:.3f}")
            for (a, b), score in zip(pairs.pairs_P2.tolist(), pairs.scores_P.tolist(), strict=True)]  # fmt: skip


def add_doubts(report: Report, shown: Shown, folder: Path, *, note: str = "") -> list[Suspicion]:
    """Labels that the neighbours contradict: the first on the page, all in ``suspected_labels.csv``."""
    part, _ = shown.sample(COMPARED)
    found = suspected_labels(part.vectors_ND, part.labels_N) if len(part) > 2 else []
    rows = [{"path": str(part.paths[s.image]), "class": part.name(s.image), "looks_like": part.classes[s.suggested],
             "chance": f"{s.chance:.2e}", "margin": round(s.score, 3)} for s in found]  # fmt: skip
    write_rows(folder / SUSPECTED_LABELS_FILE, rows, ("path", "class", "looks_like", "chance", "margin"))
    shown_rows = [
        (part.tile(s.image, label=f"labelled {part.name(s.image)}; looks like {part.classes[s.suggested]}"),
         [part.tile(i) for i in s.neighbours[:5]])
        for s in found[:DOUBTED]
    ]  # fmt: skip
    told = f"{len(found):,} images whose nearest neighbours (to the right) agree on another class, beyond chance. "
    told += f"A list to look at, not a verdict; all of them are in {SUSPECTED_LABELS_FILE}. " if found else ""
    report.gallery("Suspected wrong labels", shown_rows, note=told + note)
    return found


def add_duplicates(report: Report, shown: Shown, other: Shown | None, folder: Path) -> Pairs:
    """Nearly equal images within a set, or between two: the first on the page, all in ``near_duplicates.csv``."""
    left, _ = shown.sample(COMPARED)
    right = left if other is None else other.sample(COMPARED)[0]
    found = near_duplicates(left.vectors_ND, None if other is None else right.vectors_ND)
    rows = [{"path": str(left.paths[a]), "class": left.name(a), "other_path": str(right.paths[b]), "other_class": right.name(b),
             "cosine": round(score, 6)}
            for (a, b), score in zip(found.pairs_P2.tolist(), found.scores_P.tolist(), strict=True)]  # fmt: skip
    write_rows(folder / NEAR_DUPLICATES_FILE, rows, ("path", "class", "other_path", "other_class", "cosine"))
    between = "of the set" if other is None else "between query and reference"
    why = "" if other is None else " A query that stands among the references too makes every figure look better."
    told = f"{len(found):,} pairs {between}, at a cosine of {found.threshold:.4f} or more"
    told += f"; all of them are in {NEAR_DUPLICATES_FILE}." if len(found) else "."
    report.couples("Near-duplicates", _couples(left, right, Pairs(found.pairs_P2[:COUPLES], found.scores_P[:COUPLES])),
                   note=told + why)  # fmt: skip
    return found


def interval_of(value: Mapping[str, Any]) -> Interval:
    """An interval as JSON has it."""
    return Interval(*(math.nan if value.get(end) is None else value[end] for end in ("value", "low", "high")))


HEADLINES = {"precision_at_1": "R@1", "recall_at_5": "R@5", "mean_average_precision_at_r": "MAP@R",
             "r_precision": "R-precision"}  # fmt: skip


def write_evaluation_page(
    folder: Path,
    summary: Mapping[str, Any],
    ranking: Ranking,
    query: Shown,
    reference: Shown,
    *,
    title: str,
    subtitle: str,
    reasons: Reasons | None = None,
) -> list[Path]:
    """``report.html`` of an evaluation, and the lists beside it; gives the files. ``ranking`` is that of ``query``."""
    report = Report(title, subtitle)
    micro = summary["micro"]
    report.figures([(name, interval_of(micro[key])) for key, name in HEADLINES.items() if key in micro],
                   note="Means over queries, each with its 95 % interval."
                   if summary.get("confidence", 0.95) == 0.95 else "Means over queries, with their intervals.")  # fmt: skip
    add_retrieval(report, query, reference, ranking)
    if reasons is not None:
        add_reasons(report, reasons, folder)
    add_map(report, query, (ranking.predicted != ranking.labels) & ~ranking.open_set)
    everything = query if ranking.same else query.joined(reference)
    add_pairs(report, everything)
    add_doubts(report, everything, folder)
    add_duplicates(report, query, None if ranking.same else reference, folder)
    if summary.get("per_class"):
        kept = ("class", "queries", "references", *(key for key in HEADLINES if key in micro))
        report.table("Every class", [{key: row[key] for key in kept} for row in summary["per_class"]])
    return [report.write(folder / REPORT_FILE), folder / SUSPECTED_LABELS_FILE, folder / NEAR_DUPLICATES_FILE]
