"""Ranking metrics of queries against references, one value a query, without ever sorting a whole ranking.

The definitions are those of pytorch-metric-learning's ``AccuracyCalculator`` with ``k="max_bin_count"``. With R_q the
number of references of the query's class (less the query itself when it is among them) and depth the largest R_q:

- precision at 1: the nearest reference has the query's class;
- R-precision: the share of the first R_q references that have it;
- MAP@R: sum over relevant ranks r <= R_q of (relevant up to r) / r, divided by R_q (Musgrave et al., "A Metric
  Learning Reality Check", 2020);
- average precision: the same sum over r <= depth, divided by R_q;
- reciprocal rank: 1 / rank of the first relevant reference, 0 when that rank is beyond depth;
- recall at k: 1 when a relevant reference is among the first k.

Rows of scores are ranked by ``score_ranking``, in blocks of queries that ``query_blocks`` forms.

Shape letters: Q queries, R references, D width, K neighbors of a query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from unalike.errors import UnalikeError
from unalike.metrics.labels import as_labels
from unalike.metrics.query_blocks import ONE_CORE_A_PRODUCT, CosineScores, block_edges
from unalike.metrics.score_ranking import Relevance, Tally, rank_scores_of_block
from unalike.numerics.nearest_neighbors import Neighbors
from unalike.numerics.normalization import check_widths, l2_normalize
from unalike.runs.environment import usable_cores

MAX_WORKERS = 8


@dataclass(frozen=True)
class Ranking:
    """Metrics per query (arrays of length Q); float64 in 0..1, NaN for open-set queries.

    Attributes:
        labels: Class index of each query.
        predicted: Class index of its nearest reference.
        nearest: Index of its nearest reference.
        score: Cosine to the nearest reference, -1..1.
        open_set: Whether its class has no (other) reference.
        relevant: R_q, the number of (other) references of its class.
        first_relevant: Rank of the first relevant reference, from 1; 0 when it lies beyond ``depth``.
        precision_at_1, r_precision, average_precision_at_r, average_precision, reciprocal_rank: The metrics, defined above.
        recall_at: Recall at k, by k.
        depth: Largest R_q.
        references: Number of references R.
        same: Whether the queries are among the references.
        neighbors: The references nearest to each query, where they were asked for.
    """

    labels: np.ndarray
    predicted: np.ndarray
    nearest: np.ndarray
    score: np.ndarray
    open_set: np.ndarray
    relevant: np.ndarray
    first_relevant: np.ndarray
    precision_at_1: np.ndarray
    r_precision: np.ndarray
    average_precision_at_r: np.ndarray
    average_precision: np.ndarray
    reciprocal_rank: np.ndarray
    recall_at: dict[int, np.ndarray] = field(default_factory=dict)
    depth: int = 0
    references: int = 0
    same: bool = False
    neighbors: Neighbors | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def metrics(self) -> dict[str, np.ndarray]:
        """Return the per-query values under the names of metrics.json, in the order of printing."""
        recalls = {f"recall_at_{k}": values for k, values in self.recall_at.items()}
        return {
            "precision_at_1": self.precision_at_1,
            **recalls,
            "mean_average_precision_at_r": self.average_precision_at_r,
            "r_precision": self.r_precision,
            "mean_reciprocal_rank": self.reciprocal_rank,
            "mean_average_precision": self.average_precision,
        }


@dataclass(frozen=True)
class RankingTask:
    """A ranking that was checked: unit vectors, labels, and what is asked for.

    Attributes:
        query_QD, reference_RD: Vectors of length 1, float32, in C order; one object where a set is ranked among itself.
        labels_Q, labels_R: Class indices.
        relevance: What ranking needs to know of them.
        ks: Ranks of recall at k.
        same: Whether the queries are the first references.
        neighbors: References listed for each query.
    """

    query_QD: np.ndarray
    reference_RD: np.ndarray
    labels_Q: np.ndarray
    labels_R: np.ndarray
    relevance: Relevance
    ks: tuple[int, ...]
    same: bool
    neighbors: int

    @classmethod
    def check(
        cls,
        query_QD: np.ndarray,
        query_labels_Q: np.ndarray | Sequence[int],
        reference_RD: np.ndarray,
        reference_labels_R: np.ndarray | Sequence[int],
        *,
        ks: Sequence[int],
        same: bool,
        neighbors: int,
        query_name: str,
        reference_name: str,
    ) -> RankingTask:
        """Check what ``evaluate_ranking`` is given; see there."""
        query_QD, reference_RD, labels_Q, labels_R = _checked(
            query_QD, query_labels_Q, reference_RD, reference_labels_R, same, query_name, reference_name
        )
        relevance, ks = _relevance(labels_Q, labels_R, ks, same, query_name, reference_name)
        neighbors = max(0, min(neighbors, len(labels_R) - int(same)))
        return cls(query_QD, reference_RD, labels_Q, labels_R, relevance, ks, same, neighbors)

    def finish(self, tally: Tally) -> Ranking:
        """The ranking whose results a tally of all queries holds."""
        return _finish(tally, self.labels_Q, self.labels_R, self.ks, self.same)


def evaluate_ranking(
    query_QD: np.ndarray,
    query_labels_Q: np.ndarray | Sequence[int],
    reference_RD: np.ndarray,
    reference_labels_R: np.ndarray | Sequence[int],
    *,
    ks: Sequence[int] = (1, 5, 10),
    same: bool = False,
    neighbors: int = 0,
    query_name: str = "query",
    reference_name: str = "reference",
    advance: Callable[[int], object] | None = None,
) -> Ranking:
    """Rank all references by cosine for every query and measure where those of its class stand.

    Exact; memory beside unit copies of the inputs is bounded: about 64 MB a core up to 250,000 references, 256 MB at a
    million. The result does not depend on the number of cores (see ``query_blocks``).

    Args:
        query_QD: Query vectors (Q, D), of any length and float type.
        query_labels_Q: Class index of each query.
        reference_RD: Reference vectors (R, D).
        reference_labels_R: Class index of each reference.
        ks: Ranks of recall at k, at least 1.
        same: Whether the queries are the first Q rows of the references; each query then leaves itself out.
        neighbors: List so many nearest references of each query, fewer where there are fewer.
        query_name: Name of the queries in error messages.
        reference_name: Name of the references in error messages.
        advance: Called with the number of queries that were ranked since the last call.

    Raises:
        UnalikeError: No queries or no references, NaN, widths or lengths that differ, or no class in common.
    """
    task = RankingTask.check(
        query_QD, query_labels_Q, reference_RD, reference_labels_R, ks=ks, same=same, neighbors=neighbors,
        query_name=query_name, reference_name=reference_name,
    )  # fmt: skip
    tally = Tally(task.relevance, task.neighbors)
    scores_of = CosineScores(task.query_QD, task.reference_RD, same=same)
    _rank_blocks(lambda top, bottom: [scores_of(top, bottom)], [tally], advance)
    return task.finish(tally)


def rank_scores(
    scores_of: Callable[[int, int], Iterable[np.ndarray]],
    ways: int,
    query_labels_Q: np.ndarray | Sequence[int],
    reference_labels_R: np.ndarray | Sequence[int],
    *,
    ks: Sequence[int] = (1,),
) -> list[Ranking]:
    """Rank references by several kinds of scores of the same pairs, as ``evaluate_ranking`` does by cosine.

    Args:
        scores_of: ``scores_of(top, bottom)`` yields one array (bottom - top, R) for each kind of score, float32 within
            (-1.9, 1.9), for the queries from ``top`` to before ``bottom``. Several threads call it at once; an array may
            be reused for the next kind.
        ways: Number of kinds of scores.
        query_labels_Q: Class index of each query.
        reference_labels_R: Class index of each reference.
        ks: Ranks of recall at k, at least 1.

    Returns:
        A ranking for each kind of score.

    Raises:
        UnalikeError: No queries or no references, or no class in common.
    """
    labels_Q, labels_R = np.asarray(query_labels_Q), np.asarray(reference_labels_R)
    if not len(labels_Q) or not len(labels_R):
        raise UnalikeError(f"{len(labels_Q)} queries and {len(labels_R)} references", expected="at least one of each")
    relevance, ks = _relevance(labels_Q, labels_R, ks, False, "query", "reference")
    tallies = [Tally(relevance) for _ in range(ways)]
    _rank_blocks(scores_of, tallies, None)
    return [_finish(tally, labels_Q, labels_R, ks, False) for tally in tallies]


def _relevance(
    labels_Q: np.ndarray, labels_R: np.ndarray, ks: Sequence[int], same: bool, query_name: str, reference_name: str
) -> tuple[Relevance, tuple[int, ...]]:
    """What ranking needs to know of the labels; and the ranks of recall at k, ascending."""
    classes, codes = np.unique(np.concatenate([labels_Q, labels_R]), return_inverse=True)
    codes_Q, codes_R = np.split(codes.astype(np.int32), [len(labels_Q)])
    relevant_Q = np.bincount(codes_R, minlength=len(classes))[codes_Q] - int(same)
    if not relevant_Q.any():
        raise _disjoint(labels_Q, labels_R, same, query_name, reference_name)
    ks = tuple(sorted({int(k) for k in ks}))
    if ks and ks[0] < 1:
        raise UnalikeError(f"ks holds {ks[0]}", expected="ranks of at least 1")
    depth = int(relevant_Q.max())
    reach = min(max([depth, *ks]), len(labels_R) - int(same))
    return Relevance(codes_Q, codes_R, relevant_Q, depth, reach), ks


def _rank_blocks(
    scores_of: Callable[[int, int], Iterable[np.ndarray]],
    tallies: Sequence[Tally],
    advance: Callable[[int], object] | None,
) -> None:
    """Blocks of queries through scoring and ranking; every worker does both for its own block."""
    relevance = tallies[0].relevance

    def work(edge: tuple[int, int]) -> int:
        top, bottom = edge
        for tally, scores_BR in zip(tallies, scores_of(top, bottom), strict=True):
            rank_scores_of_block(scores_BR, top, tally)
        return bottom - top

    with ONE_CORE_A_PRODUCT, ThreadPoolExecutor(min(usable_cores(), MAX_WORKERS)) as pool:
        for block in pool.map(work, block_edges(len(relevance.codes_Q), len(relevance.codes_R))):
            if advance is not None:
                advance(block)


def _checked(
    query_QD: np.ndarray,
    query_labels_Q: np.ndarray | Sequence[int],
    reference_RD: np.ndarray,
    reference_labels_R: np.ndarray | Sequence[int],
    same: bool,
    query_name: str,
    reference_name: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    for vectors, name in ((query_QD, query_name), (reference_RD, reference_name)):
        if len(vectors) == 0:
            raise UnalikeError(f"{name} holds no vectors", expected="at least one image on each side")
    unit_query_QD = l2_normalize(query_QD, name=f"vectors of {query_name}")
    is_same = query_QD is reference_RD
    unit_reference_RD = unit_query_QD if is_same else l2_normalize(reference_RD, name=f"vectors of {reference_name}")
    check_widths(unit_query_QD, unit_reference_RD)
    labels_Q = as_labels(query_labels_Q, len(unit_query_QD), query_name)
    labels_R = as_labels(reference_labels_R, len(unit_reference_RD), reference_name)
    if same and (len(labels_Q) > len(labels_R) or not np.array_equal(labels_Q, labels_R[: len(labels_Q)])):
        raise UnalikeError(
            f"{query_name} is not the beginning of {reference_name}",
            expected="queries that are the first rows of the references, with the same labels",
        )
    return unit_query_QD, unit_reference_RD, labels_Q, labels_R


def _disjoint(
    labels_Q: np.ndarray, labels_R: np.ndarray, same: bool, query_name: str, reference_name: str
) -> UnalikeError:
    if same:
        return UnalikeError(
            f"every class of {query_name} has one image only ({len(np.unique(labels_Q))} classes)",
            expected="classes of at least two images, so that one can find another",
            remedy="add images, or give separate query and reference folders",
        )
    return UnalikeError(
        f"{query_name} ({len(np.unique(labels_Q))} classes) and {reference_name} ({len(np.unique(labels_R))} classes) "
        "have no class in common",
        expected="folders of the same class names on both sides",
        remedy="compare the folder names of both, and dataset.class_from and class_map",
    )


def _finish(tally: Tally, labels_Q: np.ndarray, labels_R: np.ndarray, ks: Sequence[int], same: bool) -> Ranking:
    relevance, first = tally.relevance, tally.first
    relevant_Q, depth = relevance.relevant_Q, relevance.depth
    open_set = relevant_Q == 0
    divisor_Q = np.where(open_set, np.nan, relevant_Q)
    blank_Q = np.where(open_set, np.nan, 0.0)
    return Ranking(
        labels=labels_Q,
        predicted=labels_R[tally.nearest],
        nearest=tally.nearest,
        score=tally.score,
        open_set=open_set,
        relevant=relevant_Q,
        first_relevant=np.where(first <= depth, first, 0),
        precision_at_1=blank_Q + (first == 1),
        r_precision=tally.within_r / divisor_Q,
        average_precision_at_r=tally.sum_at_r / divisor_Q,
        average_precision=tally.sum_at_depth / divisor_Q,
        reciprocal_rank=blank_Q + np.divide(1.0, first, where=(first > 0) & (first <= depth), out=blank_Q * 0),
        recall_at={k: blank_Q + ((first > 0) & (first <= k)) for k in ks},
        depth=depth,
        references=len(labels_R),
        same=same,
        neighbors=Neighbors(tally.neighbor_scores_QK, tally.neighbors_QK) if tally.neighbors_QK.shape[1] else None,
    )
