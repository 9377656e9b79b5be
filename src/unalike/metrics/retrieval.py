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

How it is fast: a row of scores is never sorted, nor even partitioned. The columns are dealt into groups, and only the
largest score of each group is looked at: when ``reach`` groups have a score of at least t, so have ``reach``
references, and everything that can stand within ``reach`` is among the candidates, the scores of at least t. These, a
third more than needed, are sorted as 32-bit keys that carry one bit for "relevant". Equal scores are ordered by
reference index; a key alone cannot tell that, so rows where it matters are ordered again with longer keys.

Shape letters: Q queries, R references, D width, B rows ranked together, G groups of columns, N candidates of all rows,
W the most candidates of a row, K the ranks that are looked at.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from unalike.errors import UnalikeError
from unalike.metrics.labels import as_labels
from unalike.numerics.nearest_neighbors import EXCLUDED
from unalike.numerics.normalization import check_widths, l2_normalize
from unalike.runs.environment import usable_cores

# Scores of all workers' products held at once; at least MIN_ROWS rows each whatever the number of references.
SCORE_BYTES = 256 * 2**20
MIN_ROWS, MAX_ROWS = 16, 512
# Queries of the last chunks, which get smaller.
MIN_CHUNK = 128
MAX_WORKERS = 8
# Scores ranked together: as many rows as hold them, so that the 5 MB stay in cache.
RANK_SCORES = 1_280_000
# Below every score, as EXCLUDED is; it fills up rows that have fewer candidates than others.
PADDING = np.float32(-1.9375)
# Columns a group at most; more would save no time.
MAX_GROUP = 32
# From this reach on, thresholds are found by counting; below, partitioning the few groups that there are is quicker.
COUNTING_REACH, COUNTS = 256, 10
# numpy finds what is set without branching where a tenth is, else by one search a hit: 9 us against 23 for 20,000 of
# which a twentieth is set (own measurement, 2026-11-26). Where more than the first share is set, it is made the second.
SEARCHED, BRANCHLESS = 0.01, 0.11


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


def evaluate_ranking(
    query_QD: np.ndarray,
    query_labels_Q: np.ndarray | Sequence[int],
    reference_RD: np.ndarray,
    reference_labels_R: np.ndarray | Sequence[int],
    *,
    ks: Sequence[int] = (1, 5, 10),
    same: bool = False,
    query_name: str = "query",
    reference_name: str = "reference",
    advance: Callable[[int], object] | None = None,
) -> Ranking:
    """Rank all references by cosine for every query and measure where those of its class stand.

    Exact; memory beside unit copies of the inputs is bounded (about 250 MB up to a million references).

    Args:
        query_QD: Query vectors (Q, D), of any length and float type.
        query_labels_Q: Class index of each query.
        reference_RD: Reference vectors (R, D).
        reference_labels_R: Class index of each reference.
        ks: Ranks of recall at k, at least 1.
        same: Whether the queries are the first Q rows of the references; each query then leaves itself out.
        query_name: Name of the queries in error messages.
        reference_name: Name of the references in error messages.
        advance: Called with the number of queries that were ranked since the last call.

    Raises:
        UnalikeError: No queries or no references, NaN, widths or lengths that differ, or no class in common.
    """
    query_QD, reference_RD, labels_Q, labels_R = _checked(
        query_QD, query_labels_Q, reference_RD, reference_labels_R, same, query_name, reference_name
    )
    own = threading.local()

    def scores_of(top: int, bottom: int) -> list[np.ndarray]:
        chosen_CD = query_QD[top:bottom]
        if not hasattr(own, "buffer"):  # a worker's first chunk is its largest
            own.buffer = np.empty((len(chosen_CD), len(reference_RD)), np.float32)
        scores_CR = np.matmul(chosen_CD, reference_RD.T, out=own.buffer[: len(chosen_CD)])
        if same:
            np.fill_diagonal(scores_CR[:, top:], EXCLUDED)
        return [scores_CR]

    return _ranked(scores_of, 1, labels_Q, labels_R, ks, same, query_name, reference_name, advance)[0]


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
    return _ranked(scores_of, ways, labels_Q, labels_R, ks, False, "query", "reference", None)


def _ranked(
    scores_of: Callable[[int, int], Iterable[np.ndarray]],
    ways: int,
    labels_Q: np.ndarray,
    labels_R: np.ndarray,
    ks: Sequence[int],
    same: bool,
    query_name: str,
    reference_name: str,
    advance: Callable[[int], object] | None,
) -> list[Ranking]:
    """Chunks of queries through scoring and ranking; every worker does both for its own chunk."""
    classes, codes = np.unique(np.concatenate([labels_Q, labels_R]), return_inverse=True)
    codes_Q, codes_R = np.split(codes.astype(np.int32), [len(labels_Q)])
    relevant_Q = np.bincount(codes_R, minlength=len(classes))[codes_Q] - int(same)
    if not relevant_Q.any():
        raise _disjoint(labels_Q, labels_R, same, query_name, reference_name)
    ks = sorted({int(k) for k in ks})
    if ks and ks[0] < 1:
        raise UnalikeError(f"ks holds {ks[0]}", expected="ranks of at least 1")
    depth = int(relevant_Q.max())
    reach = min(max([depth, *ks]), len(labels_R) - int(same))
    tallies = [_Tally(codes_Q, codes_R, relevant_Q, depth, reach) for _ in range(ways)]
    references, threads = len(labels_R), min(usable_cores(), MAX_WORKERS)
    rows = int(np.clip(SCORE_BYTES // (4 * references * threads), MIN_ROWS, MAX_ROWS))
    together = max(1, RANK_SCORES // references)

    def work(edge: tuple[int, int]) -> int:
        top, bottom = edge
        for tally, scores_CR in zip(tallies, scores_of(top, bottom), strict=True):
            for at in range(0, bottom - top, together):
                _rank(scores_CR[at : at + together], top + at, tally)
        return bottom - top

    with _ONE_CORE_A_PRODUCT, ThreadPoolExecutor(threads) as pool:
        for block in pool.map(work, _edges(len(labels_Q), rows, threads)):
            if advance is not None:
                advance(block)
    return [_finish(tally, labels_Q, labels_R, ks, same) for tally in tallies]


def _edges(queries: int, rows: int, threads: int) -> list[tuple[int, int]]:
    """(first, after the last) of every chunk: ``rows`` each, towards the end fewer, so that all workers end together."""
    edges, first = [], 0
    while first < queries:
        after = first + min(rows, max(MIN_CHUNK, -(-(queries - first) // (2 * threads))))
        edges.append((first, min(after, queries)))
        first = after
    return edges


class _OneCoreAProduct(contextlib.AbstractContextManager[None]):
    """While any ranking is inside, a matrix product keeps to the core of the thread that asks for it.

    Products that spread over all cores wait for the slower of their threads, and those spin while another worker ranks:
    2.1 x the product's time against 1.5 (20,000 x 20,000, 20 classes, two cores; own measurement, 2026-11-26).
    threadpoolctl comes with scikit-learn; without it products spread as numpy has them. No result depends on it.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.limits = threading.Lock(), 0, None

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                try:
                    from threadpoolctl import threadpool_limits
                except ImportError:
                    return
                self.limits = threadpool_limits(1, user_api="blas")

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside and self.limits is not None:
                self.limits.restore_original_limits()
                self.limits = None


_ONE_CORE_A_PRODUCT = _OneCoreAProduct()


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


class _Tally:
    """What ranking needs of the labels, and per-query results that the workers fill, each its own queries."""

    def __init__(
        self, codes_Q: np.ndarray, codes_R: np.ndarray, relevant_Q: np.ndarray, depth: int, reach: int
    ) -> None:
        queries = len(codes_Q)
        self.codes_Q, self.codes_R, self.relevant_Q = codes_Q, codes_R, relevant_Q
        self.depth, self.reach = depth, reach
        self.nearest = np.zeros(queries, np.int64)
        self.score = np.zeros(queries, np.float32)
        self.first = np.zeros(queries, np.int64)
        self.within_r = np.zeros(queries, np.int64)
        self.sum_at_r = np.zeros(queries)
        self.sum_at_depth = np.zeros(queries)


def _keys(scores: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """uint32 keys whose ascending order is that of descending scores, the unmarked before the marked when equal.

    A float32's bits, with the lower 31 flipped when negative, order as the numbers do; scores lie within (-2, 2),
    so that 31 bits hold them and the last bit is free for the mark.
    """
    bits = (scores + np.float32(0)).view(np.int32)  # adding zero turns -0.0 into 0.0
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)
    keys = np.subtract(np.int32(0x3FFFFFFF), bits, out=bits).view(np.uint32)
    keys <<= np.uint32(1)
    keys |= marks
    return keys


def _candidates(scores_BR: np.ndarray, reach: int) -> np.ndarray:
    """Places in the flattened scores, ascending, of all that may stand within reach in their row.

    They are complete: a score equal to a candidate's is one too. But for ties they are about 1.3 times reach
    a row, and never more than reach + 1 groups hold (a sixteenth more where they are counted), however the references
    are ordered.
    """
    rows, references = scores_BR.shape
    size = min(max(1, 2 * references // (5 * reach)), MAX_GROUP)
    groups = references // size
    largest_BG = scores_BR[:, : size * groups].reshape(rows, size, groups).max(axis=1)
    least_B = _counted(largest_BG, reach) if COUNTING_REACH <= reach < groups else _partitioned(largest_BG, reach)
    scores = scores_BR.size
    padding = int(BRANCHLESS * scores) if reach > SEARCHED * references else 0
    mask = np.empty(scores + padding, np.bool_)
    mask[scores:] = True
    np.greater_equal(scores_BR, least_B[:, None], out=mask[:scores].reshape(rows, -1))
    places = np.flatnonzero(mask)
    return places[: len(places) - padding]


def _partitioned(largest_BG: np.ndarray, reach: int) -> np.ndarray:
    """The score of number ``reach`` from above in every row, (B,); the rows are reordered."""
    kth = largest_BG.shape[1] - reach
    largest_BG.partition(kth, axis=1)
    return np.asarray(largest_BG[:, kth])


def _counted(largest_BG: np.ndarray, reach: int) -> np.ndarray:
    """A score in every row, (B,), that at least ``reach`` scores and few more attain.

    Counting is a plain pass over the row, partitioning is not: 7 us against 16 for 2,500 groups (own measurement,
    2026-11-26). Every count halves the interval at worst, near enough; rows that are not closed in by then (an outlier
    far from all others) are partitioned.
    """
    rows, groups = largest_BG.shape
    most = reach + reach // 16
    low_B, high_B = largest_BG.min(axis=1), largest_BG.max(axis=1)
    at_low_B, at_high_B = np.full(rows, groups, np.float32), np.ones(rows, np.float32)
    for _ in range(COUNTS):
        share_B = ((reach + most) / 2 - at_high_B) / np.maximum(at_low_B - at_high_B, 1)
        middle_B = high_B - (high_B - low_B) * np.clip(share_B, 0.1, 0.9).astype(np.float32)
        at_middle_B = (largest_BG >= middle_B[:, None]).view(np.uint8).sum(axis=1, dtype=np.uint32).astype(np.float32)
        enough_B = at_middle_B >= reach
        low_B, at_low_B = np.where(enough_B, (middle_B, at_middle_B), (low_B, at_low_B))
        high_B, at_high_B = np.where(enough_B, (high_B, at_high_B), (middle_B, at_middle_B))
        if (at_low_B <= most).all():
            return np.asarray(low_B)
    wide_B = at_low_B > most
    low_B[wide_B] = _partitioned(largest_BG[wide_B], reach)
    return np.asarray(low_B)


def _relevant_by_rank(scores_BW: np.ndarray, marks_BW: np.ndarray) -> np.ndarray:
    """The marks in the order of descending scores; where scores are equal in the order in which they stand."""
    keys_BW = _keys(scores_BW, marks_BW)
    keys_BW.sort(axis=1)
    ranked_BW = (keys_BW & np.uint32(1)).view(np.int32)
    mixed_B = ((keys_BW[:, 1:] ^ keys_BW[:, :-1]) == 1).any(axis=1)  # one score, both relevant and not
    if mixed_B.any():
        marks_TW = marks_BW[mixed_B]
        long_TW = (_keys(scores_BW[mixed_B], marks_TW) >> np.uint32(1)).astype(np.uint64) << np.uint64(32)
        long_TW |= np.arange(0, 2 * marks_TW.shape[1], 2, dtype=np.uint64)
        long_TW |= marks_TW
        long_TW.sort(axis=1)
        ranked_BW[mixed_B] = (long_TW & np.uint64(1)).astype(np.int32)
    return ranked_BW


def _rank(scores_BR: np.ndarray, top: int, tally: _Tally) -> None:
    """Rank the queries from number ``top`` on, as far as reach, and tally what follows."""
    rows, references = scores_BR.shape
    here = slice(top, top + rows)
    place_N = _candidates(scores_BR, tally.reach)
    start_B = np.arange(rows) * references
    first_B, after_B = place_N.searchsorted(start_B), place_N.searchsorted(start_B + references)
    count_B = after_B - first_B
    filled_BW = np.arange(count_B.max()) < count_B[:, None]
    scores_BW = np.full(filled_BW.shape, PADDING)
    scores_BW[filled_BW] = scores_BR.reshape(-1).take(place_N)
    best_B = scores_BW.argmax(axis=1)
    tally.nearest[here] = place_N[first_B + best_B] - start_B
    tally.score[here] = scores_BW[np.arange(rows), best_B]

    codes_N = tally.codes_R.take(place_N - start_B.repeat(count_B))
    marks_BW = np.zeros(filled_BW.shape, np.bool_)
    marks_BW[filled_BW] = codes_N == tally.codes_Q[here].repeat(count_B)
    ranked_BK = _relevant_by_rank(scores_BW, marks_BW)[:, : tally.reach]
    leading_B = ranked_BK.argmax(axis=1)
    tally.first[here] = np.where(ranked_BK[np.arange(rows), leading_B] == 1, leading_B + 1, 0)
    ranked_BK = ranked_BK[:, : tally.depth]
    rank_K = np.arange(1, ranked_BK.shape[1] + 1, dtype=np.int32)
    inside_BK = rank_K <= tally.relevant_Q[here, None].astype(np.int32)
    precision_BK = ranked_BK.cumsum(axis=1, dtype=np.int32) * (1.0 / rank_K)
    precision_BK *= ranked_BK
    tally.sum_at_depth[here] = precision_BK.sum(axis=1)
    tally.within_r[here] = np.einsum("bk,bk->b", ranked_BK, inside_BK)
    precision_BK *= inside_BK
    tally.sum_at_r[here] = precision_BK.sum(axis=1)


def _finish(tally: _Tally, labels_Q: np.ndarray, labels_R: np.ndarray, ks: Sequence[int], same: bool) -> Ranking:
    open_set = tally.relevant_Q == 0
    divisor_Q = np.where(open_set, np.nan, tally.relevant_Q)
    blank_Q = np.where(open_set, np.nan, 0.0)
    first = tally.first
    return Ranking(
        labels=labels_Q,
        predicted=labels_R[tally.nearest],
        nearest=tally.nearest,
        score=tally.score,
        open_set=open_set,
        relevant=tally.relevant_Q,
        first_relevant=np.where(first <= tally.depth, first, 0),
        precision_at_1=blank_Q + (first == 1),
        r_precision=tally.within_r / divisor_Q,
        average_precision_at_r=tally.sum_at_r / divisor_Q,
        average_precision=tally.sum_at_depth / divisor_Q,
        reciprocal_rank=blank_Q + np.divide(1.0, first, where=(first > 0) & (first <= tally.depth), out=blank_Q * 0),
        recall_at={k: blank_Q + ((first > 0) & (first <= k)) for k in ks},
        depth=tally.depth,
        references=len(labels_R),
        same=same,
    )
