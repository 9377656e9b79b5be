"""The connection to a Ray cluster; with Ray itself: tests/flow/test_searching.py and test_sharded_embedding.py."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from unalike.errors import DeviceError, MissingExtra, SpecError
from unalike.runs import ray_cluster
from unalike.runs.ray_cluster import check_cluster, connect_ray, refuse_cluster_options, worker_resources
from unalike.spec import load_spec


def ray_that(initialized: bool = False, error: Exception | None = None) -> Any:
    """A module that notes how it is connected."""
    calls: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        calls.append(options)
        if error is not None:
            raise error

    return SimpleNamespace(init=init, is_initialized=lambda: initialized, calls=calls)


@pytest.fixture(autouse=True)
def listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody listens at every address."""
    monkeypatch.setattr(ray_cluster, "_require_listener", lambda address: None)


@pytest.mark.parametrize(("modules", "package"), [(("ray",), "ray"), (("ray", "ray.data"), r"ray\[data\]")])
def test_without_ray_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, modules: tuple[str, ...], package: str
) -> None:
    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(ray_cluster, "import_module", refuse)
    with pytest.raises(MissingExtra, match=rf"embed\.cluster: ray[^;]*{package}[^\[].*cluster"):
        connect_ray(None, section="embed", modules=modules)
    with pytest.raises(MissingExtra, match=package):
        check_cluster(None, section="embed", modules=modules)


def test_a_check_connects_to_a_cluster_at_an_address_and_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = ray_that()
    monkeypatch.setattr(ray_cluster, "import_module", lambda name: ray)
    check_cluster(None, section="embed")
    assert ray.calls == []
    check_cluster("10.0.0.1:6379", section="embed")
    assert [call["address"] for call in ray.calls] == ["10.0.0.1:6379"]


def test_a_local_cluster_has_no_dashboard_and_one_at_an_address_is_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = ray_that()
    monkeypatch.setattr(ray_cluster, "import_module", lambda name: ray)
    assert connect_ray(None, section="automl") is ray
    assert connect_ray("10.0.0.1:6379", section="automl") is ray
    connect_ray(None, section="evaluate", store_bytes=2**30)
    here, there, larger = ray.calls
    assert (here["object_store_memory"], larger["object_store_memory"]) == (100 * 2**20, 2**30)
    assert here["include_dashboard"] is False and here["address"] is None
    assert there["address"] == "10.0.0.1:6379" and not {"include_dashboard", "object_store_memory"} & there.keys()


def test_a_connection_that_is_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = ray_that(initialized=True)
    monkeypatch.setattr(ray_cluster, "import_module", lambda name: ray)
    connect_ray("10.0.0.1:6379", section="embed")
    assert ray.calls == []


@pytest.mark.parametrize(
    ("address", "where"),
    [("10.0.0.1:6379", "at 10.0.0.1:6379"), (None, "could be started on this machine")],
)
def test_a_cluster_that_does_not_answer_is_named_with_its_fields(
    monkeypatch: pytest.MonkeyPatch, address: str | None, where: str
) -> None:
    ray = ray_that(error=TimeoutError("no\n answer"))
    monkeypatch.setattr(ray_cluster, "import_module", lambda name: ray)
    with pytest.raises(DeviceError, match=f"no Ray cluster {where}: no answer") as caught:
        connect_ray(address, section="automl")
    assert "automl.address" in caught.value.remedy and "automl.cluster" in caught.value.remedy


@pytest.mark.parametrize("section", ["evaluate", "embed"])
def test_options_of_a_cluster_without_one_are_refused(section: str) -> None:
    for override in ("address=auto", "workers=2"):
        with pytest.raises(
            SpecError, match=rf"{section}.{override.partition('=')[0]} is set, {section}.cluster is local"
        ):
            refuse_cluster_options(load_spec(section, None, [f"{section}.{override}"]), section)
    refuse_cluster_options(load_spec(section, None, [f"{section}.workers=2", f"{section}.cluster=ray"]), section)
    refuse_cluster_options(load_spec(section), section)


def cluster_of(cpus: int, gpus: int, nodes: int) -> Any:
    return SimpleNamespace(
        cluster_resources=lambda: {"CPU": float(cpus), "GPU": float(gpus)}, nodes=lambda: [{"Alive": True}] * nodes
    )


@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes", "workers", "count", "cpus_each", "gpus_each"),
    [
        (32, 0, 2, None, 2, 16, 0),
        (32, 4, 2, None, 4, 8, 1),
        (32, 4, 2, 8, 8, 4, 0.5),
        (2, 0, 1, 2, 2, 1, 0),
        (7, 0, 1, 2, 2, 3, 0),
        (1, 0, 1, None, 1, 1, 0),
    ],
)
def test_workers_share_the_cores_of_the_cluster(
    cpus: int, gpus: int, nodes: int, workers: int | None, count: int, cpus_each: int, gpus_each: float
) -> None:
    number, resources = worker_resources(cluster_of(cpus, gpus, nodes), workers, section="embed")
    assert (number, resources["num_cpus"], resources.get("num_gpus", 0)) == (count, cpus_each, gpus_each)


def test_more_workers_than_cores_are_refused() -> None:
    with pytest.raises(DeviceError, match="3 workers on 2 cores of the cluster.*set train.workers"):
        worker_resources(cluster_of(2, 0, 1), 3, section="train")


def unused_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "localhost:{}", "127.0.0.1:{}999999"])
def test_ray_is_not_asked_where_nobody_listens(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """It would try for more than five minutes."""
    ray, address = ray_that(), form.format(unused_port())
    monkeypatch.undo()
    monkeypatch.setattr(ray_cluster, "import_module", lambda name: ray)
    with pytest.raises(DeviceError, match=f"no Ray cluster at {address}: .*ray start --head"):
        connect_ray(address, section="train")
    assert ray.calls == []


def test_where_somebody_listens_or_the_address_is_of_another_form_ray_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = ray_that()
    monkeypatch.undo()
    monkeypatch.setattr(ray_cluster, "import_module", lambda name: ray)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}", "auto"):
            connect_ray(address, section="train")
    assert len(ray.calls) == 3
