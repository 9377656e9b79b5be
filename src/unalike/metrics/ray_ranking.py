"""Ranking of queries on a Ray cluster: the blocks of one machine, as tasks; the references are sent to each machine once.

A task computes whole blocks (``query_blocks``), so that every product has the shape that it has on one machine, and the results
are equal to the last bit where processors round alike. Ray runs the task of a worker that died again.

Shape letters: Q queries, R references, D width, P queries of a task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from unalike.errors import DeviceError
from unalike.metrics.query_blocks import (
    ONE_CORE_A_PRODUCT,
    CosineScores,
    block_edges,
    groups_of_blocks,
    rounding_digest,
)
from unalike.metrics.retrieval import Ranking, RankingTask
from unalike.metrics.score_ranking import Relevance, Tally, rank_scores_of_block
from unalike.progress import say, warn
from unalike.runs.ray_cluster import STORE_BYTES, connect_ray

# Scores of a task, some seconds of one core.
TASK_SCORES = 100_000_000
# Tasks that are handed out, a core of the cluster: one runs, one waits.
TASKS_A_CORE = 2


@dataclass(frozen=True)
class Part:
    """Blocks of queries that one task ranks.

    Attributes:
        edges: (first, after the last) of each block, one after the other.
        codes_P, relevant_P: Class and R_q of each query.
        depth, reach: As in ``Relevance``, of all queries.
        same: Whether the queries are the first references.
        neighbors: References listed for each query.
    """

    edges: Sequence[tuple[int, int]]
    codes_P: np.ndarray
    relevant_P: np.ndarray
    depth: int
    reach: int
    same: bool
    neighbors: int


def rank_part(
    part: Part, query_PD: np.ndarray | None, reference_RD: np.ndarray, codes_R: np.ndarray
) -> tuple[dict[str, np.ndarray], str]:
    """Rank the blocks of one task.

    Args:
        part: What is ranked.
        query_PD: Its queries; None where the queries are the references.
        reference_RD: All references.
        codes_R: Their classes.

    Returns:
        The results of its queries by name, as in ``Tally``; and the digest of how this machine rounds.
    """
    tally = Tally(Relevance(part.codes_P, codes_R, part.relevant_P, part.depth, part.reach), part.neighbors)
    first = part.edges[0][0]
    if query_PD is None:
        scores_of = CosineScores(reference_RD, reference_RD, same=part.same)
    else:
        scores_of = CosineScores(query_PD, reference_RD, same=part.same, offset=first)
    digest = rounding_digest()
    with ONE_CORE_A_PRODUCT:
        for top, bottom in part.edges:
            rank_scores_of_block(scores_of(top, bottom), top - first, tally)
    return tally.results(), digest


def evaluate_ranking_on_ray(
    query_QD: np.ndarray,
    query_labels_Q: np.ndarray | Sequence[int],
    reference_RD: np.ndarray,
    reference_labels_R: np.ndarray | Sequence[int],
    *,
    ks: Sequence[int] = (1, 5, 10),
    same: bool = False,
    neighbors: int = 0,
    workers: int | None = None,
    address: str | None = None,
    advance: Callable[[int], object] | None = None,
) -> Ranking:
    """Rank as ``evaluate_ranking`` does, on a Ray cluster.

    Args:
        query_QD, query_labels_Q, reference_RD, reference_labels_R, ks, same, neighbors, advance: As there.
        workers: Tasks at a time, of one core each; None: as many as the cluster has cores.
        address: Address of the cluster; None starts one on this machine.

    Raises:
        UnalikeError: As there.
        DeviceError: There is no cluster, it has fewer cores than workers, or a task failed again and again.
        MissingExtra: Ray is not installed.
    """
    task = RankingTask.check(
        query_QD, query_labels_Q, reference_RD, reference_labels_R, ks=ks, same=same, neighbors=neighbors,
        query_name="query", reference_name="reference",
    )  # fmt: skip
    room = STORE_BYTES + task.reference_RD.nbytes + (0 if task.query_QD is task.reference_RD else task.query_QD.nbytes)
    start = time.monotonic()
    ray = connect_ray(address, section="evaluate", store_bytes=room)
    tally = Tally(task.relevance, task.neighbors)
    digests: set[str] = set()
    try:
        for first, results, digest in _run_tasks(ray, task, _tasks_at_a_time(ray, workers)):
            if not digests:
                say(f"Ray: {_cores(ray)} cores, the first results after {time.monotonic() - start:.1f} s", level=2)
            tally.fill(first, results)
            digests.add(digest)
            if advance is not None:
                advance(len(results["first"]))
    except ray.exceptions.RayError as error:
        raise DeviceError(f"a worker of the Ray cluster failed: {' '.join(str(error).split())[-300:]}",
                          expected="workers with the same version of unalike, and memory for the references",
                          remedy="run the command again, or leave evaluate.cluster out") from error  # fmt: skip
    if digests != {rounding_digest()}:
        warn("machines of the Ray cluster round matrix products in another way than this one (another processor or BLAS): last "
             "digits may differ from those of one machine")  # fmt: skip
    return task.finish(tally)


def _cores(ray: ModuleType) -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _tasks_at_a_time(ray: ModuleType, workers: int | None) -> int:
    cores = _cores(ray)
    if workers is not None and workers > cores:
        raise DeviceError(f"{workers} workers on {cores} cores of the cluster", expected=f"at most {cores}",
                          remedy="set evaluate.workers, or add machines")  # fmt: skip
    return workers or TASKS_A_CORE * cores


def _run_tasks(ray: ModuleType, task: RankingTask, at_a_time: int) -> Iterator[tuple[int, dict[str, np.ndarray], str]]:
    """Run a ranking's tasks; yields the first query, the results and the rounding of each, in the order in which they end."""
    remote = ray.remote(rank_part).options(num_cpus=1, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
    shared = task.query_QD is task.reference_RD
    references, codes = ray.put(task.reference_RD), ray.put(task.relevance.codes_R)
    running: dict[Any, int] = {}
    edges = block_edges(len(task.query_QD), len(task.reference_RD))
    for group in groups_of_blocks(edges, len(task.reference_RD), TASK_SCORES):
        while len(running) >= at_a_time:
            yield _next_result(ray, running)
        first, after = group[0][0], group[-1][1]
        relevance = task.relevance.of_queries(first, after)
        part = Part(group, relevance.codes_Q, relevance.relevant_Q, relevance.depth, relevance.reach, task.same, task.neighbors)  # fmt: skip
        queries = None if shared else task.query_QD[first:after]
        running[remote.remote(part, queries, references, codes)] = first
    while running:
        yield _next_result(ray, running)


def _next_result(ray: ModuleType, running: dict[Any, int]) -> tuple[int, dict[str, np.ndarray], str]:
    (task, *_), _ = ray.wait(list(running), num_returns=1)
    first = running.pop(task)
    results, digest = ray.get(task)
    return first, results, digest
