"""Ranking on a Ray cluster equals that of one machine to the last bit: with a stand-in, and with Ray itself (slow)."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.rankings import assert_equal_to_the_last_bit
from unalike import progress
from unalike.errors import DeviceError, MissingExtra, UnalikeError
from unalike.metrics import ray_ranking
from unalike.metrics.ray_ranking import evaluate_ranking_on_ray
from unalike.metrics.retrieval import evaluate_ranking
from unalike.runs import ray_cluster

ROOT = Path(__file__).parents[3]


class RayError(Exception):
    """The class of all errors of Ray."""


class Begun:
    """A task, which runs when its result is asked for."""

    def __init__(self, function: Any, arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, pickle.dumps(arguments)

    def run(self) -> Any:
        return self.function(*pickle.loads(self.arguments))


class StandIn:
    """What is used of Ray: arguments are copied, as they are to another process; the last task that was begun ends first."""

    def __init__(self, cores: int = 2, error: Exception | None = None) -> None:
        self.cores, self.error = cores, error
        self.options: dict[str, Any] = {}
        self.most = self.tasks = 0
        self.exceptions = SimpleNamespace(RayError=RayError)

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.cores)}

    def put(self, value: Any) -> Any:
        return value

    def remote(self, function: Any) -> Any:
        def options(**options: Any) -> Any:
            self.options = options
            return SimpleNamespace(remote=lambda *arguments: self._begin(function, arguments))

        return SimpleNamespace(options=options)

    def _begin(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        self.tasks += 1
        return Begun(function, arguments)

    def wait(self, tasks: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        self.most = max(self.most, len(tasks))
        return tasks[-1:], tasks[:-1]

    def get(self, task: Any) -> Any:
        if self.error is not None:
            raise self.error
        return task.run()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(ray_ranking, "connect_ray", lambda *args, **options: stand_in)
    monkeypatch.setattr(ray_ranking, "TASK_SCORES", 150_000)
    return stand_in


def sets(same: bool, ties: bool, queries: int = 513) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Queries, references and their labels; queries of classes 12 to 14 have no reference."""
    rng = np.random.default_rng(queries)
    reference_RD, labels_R = rng.standard_normal((1200, 33)).astype(np.float32), rng.integers(0, 12, 1200)
    query_QD, labels_Q = rng.standard_normal((queries, 33)).astype(np.float32), rng.integers(0, 15, queries)
    labels_Q[0] = 0
    if ties:  # few different vectors: most scores occur many times
        query_QD, reference_RD = np.sign(query_QD[:, :5]), np.sign(reference_RD[:, :5])
    if same:
        labels_R[7] = 12  # which can only find itself
        return reference_RD, labels_R, reference_RD, labels_R
    return query_QD, labels_Q, reference_RD, labels_R


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("queries", [1, 257, 900])
def test_a_cluster_gives_what_one_machine_gives(ray: StandIn, same: bool, ties: bool, queries: int) -> None:
    vectors = sets(same, ties, queries)
    done: list[int] = []
    here = evaluate_ranking(*vectors, same=same, neighbors=6)
    there = evaluate_ranking_on_ray(*vectors, same=same, neighbors=6, advance=done.append)
    assert_equal_to_the_last_bit(there, here)
    assert sum(done) == len(here) and len(done) == ray.tasks
    assert ray.options == {"num_cpus": 1, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}}}
    assert queries != 900 or (ray.tasks > 4 and here.open_set.any())


def test_queries_that_are_the_first_references(ray: StandIn) -> None:
    vectors, labels, *_ = sets(same=True, ties=False)
    options: dict[str, Any] = {"same": True, "neighbors": 3}
    here = evaluate_ranking(vectors[:400], labels[:400], vectors, labels, **options)
    assert_equal_to_the_last_bit(evaluate_ranking_on_ray(vectors[:400], labels[:400], vectors, labels, **options), here)


def test_a_set_of_one_block_among_itself(ray: StandIn) -> None:
    # The product of a set with itself is computed by another routine than that of two sets.
    vectors, labels, *_ = sets(same=True, ties=False)
    few, its = vectors[:100], labels[:100]
    assert_equal_to_the_last_bit(
        evaluate_ranking_on_ray(few, its, few, its, same=True), evaluate_ranking(few, its, few, its, same=True)
    )


@pytest.mark.parametrize(("workers", "most"), [(None, 4), (1, 1), (2, 2)])
def test_so_many_tasks_run_at_a_time(ray: StandIn, workers: int | None, most: int) -> None:
    evaluate_ranking_on_ray(*sets(False, False, 900), workers=workers)
    assert ray.most == most and ray.tasks > 4


def test_more_workers_than_cores_are_refused(ray: StandIn) -> None:
    with pytest.raises(DeviceError, match="3 workers on 2 cores of the cluster"):
        evaluate_ranking_on_ray(*sets(False, False), workers=3)


def test_a_worker_that_fails_again_and_again_is_named(ray: StandIn) -> None:
    ray.error = RayError("the node\n died")
    with pytest.raises(DeviceError, match="a worker of the Ray cluster failed: the node died"):
        evaluate_ranking_on_ray(*sets(False, False))


def test_inputs_are_checked_before_a_cluster_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_ranking, "connect_ray", lambda *args, **options: pytest.fail("connected"))
    with pytest.raises(UnalikeError, match="hold NaN"):
        evaluate_ranking_on_ray(np.full((2, 3), np.nan), [0, 1], np.ones((4, 3)), [0, 1, 0, 1])


def test_machines_that_round_in_another_way_are_told(
    ray: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    progress._said.clear()
    evaluate_ranking_on_ray(*sets(False, False))
    assert "round" not in capsys.readouterr().err
    digests = iter(["other", *["same"] * 99])
    monkeypatch.setattr(ray_ranking, "rounding_digest", lambda: next(digests))
    evaluate_ranking_on_ray(*sets(False, False))
    assert "round matrix products in another way" in capsys.readouterr().err


def test_a_local_cluster_has_room_for_the_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[int] = []

    def connect(address: str | None, *, section: str, store_bytes: int) -> StandIn:
        assert (address, section) == (None, "evaluate")
        rooms.append(store_bytes)
        return StandIn()

    monkeypatch.setattr(ray_ranking, "connect_ray", connect)
    query, labels, reference, reference_labels = sets(False, False)
    evaluate_ranking_on_ray(query, labels, reference, reference_labels)
    assert rooms == [ray_cluster.STORE_BYTES + query.nbytes + reference.nbytes]


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(ray_cluster, "import_module", refuse)
    with pytest.raises(MissingExtra, match=r"evaluate\.cluster: ray") as caught:
        evaluate_ranking_on_ray(*sets(False, False))
    assert "cluster" in str(caught.value) and "pip install" in str(caught.value) and "\n" not in str(caught.value)


ON_RAY = """
import os, signal, threading, time
from unalike.telemetry import disable_telemetry
disable_telemetry()
import psutil
import ray
from tests.support.rankings import assert_equal_to_the_last_bit
from tests.unit.metrics.test_ray_ranking import sets
from unalike.metrics import ray_ranking
from unalike.metrics.ray_ranking import evaluate_ranking_on_ray
from unalike.metrics.retrieval import evaluate_ranking

ray_ranking.TASK_SCORES = 100_000
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
for same in (False, True):
    for ties in (False, True):
        vectors = sets(same, ties, 900)
        here = evaluate_ranking(*vectors, same=same, neighbors=6)
        assert here.open_set.any()
        assert_equal_to_the_last_bit(evaluate_ranking_on_ray(*vectors, same=same, neighbors=6, workers=2), here)
print("equal")

killed = []
def kill(done):
    if not killed:
        for child in psutil.Process().children(recursive=True):
            if not killed and any(word.startswith("ray::rank_part") for word in child.cmdline()):
                child.kill()
                killed.append(child.pid)
vectors = sets(False, False, 40_000)
ray_ranking.TASK_SCORES = 1_000_000
here = evaluate_ranking(*vectors)
assert_equal_to_the_last_bit(evaluate_ranking_on_ray(*vectors, advance=kill), here)
assert killed, "no worker was killed"
print("equal after a kill")
"""


@pytest.mark.slow
def test_two_workers_of_ray_give_what_one_machine_gives_and_a_killed_one_loses_nothing() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install unalike[cluster]")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", ON_RAY], check=False, capture_output=True, text=True, timeout=500, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_USAGE_STATS_ENABLED": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert "equal\n" in done.stdout and "equal after a kill" in done.stdout
