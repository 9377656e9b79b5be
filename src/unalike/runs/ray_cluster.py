"""The connection to a Ray cluster, which searches, sharded embeddings and evaluations share."""

from __future__ import annotations

import logging
import os
import re
import socket
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from unalike.errors import DeviceError, SpecError, missing_extra
from unalike.telemetry import disable_telemetry

if TYPE_CHECKING:
    from unalike.spec import Experiment

# Room for objects of a cluster that is started on this machine: what tasks of searches and shards pass to one another.
STORE_BYTES = 100 * 2**20
# HOST:PORT of a cluster, or of Ray's client server. Where nobody listens there, Ray itself tries for more than five minutes.
_SERVER = re.compile(r"(?:ray://)?(\[[^\]\s]+\]|[^:/\s\[\]]+):([0-9]+)")
LISTENS_TIMEOUT_S = 10.0


def refuse_cluster_options(experiment: Experiment, section: str) -> None:
    """Raise SpecError for options of a cluster (``address``, ``workers``) where this machine does the work.

    Args:
        experiment: the spec.
        section: ``train``, ``evaluate`` or ``embed``.
    """
    settings = getattr(experiment, section)
    for name in ("address", "workers"):
        if settings.cluster == "local" and getattr(settings, name) is not None:
            raise SpecError(f"{section}.{name} is set, {section}.cluster is local", expected="a cluster",
                            remedy=f"add --cluster ray, or leave {section}.{name} out")  # fmt: skip


def require_ray(section: str, modules: tuple[str, ...] = ("ray",)) -> ModuleType:
    """The module ``ray``, with others of it imported.

    Args:
        section: of the spec, whose field ``cluster`` a message names.
        modules: of Ray.

    Raises:
        MissingExtra: one is not installed.
    """
    disable_telemetry()
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else the core prints into the lines of this program
    try:
        for name in modules:
            import_module(name)
    except ImportError as error:
        package = "ray" if modules == ("ray",) else f"ray[{modules[-1].rpartition('.')[2]}]"
        raise missing_extra(package, "cluster", f"{section}.cluster: ray") from error
    return import_module("ray")


def check_cluster(address: str | None, *, section: str, modules: tuple[str, ...] = ("ray",)) -> None:
    """Find out before a long work whether a cluster can be used afterwards; none is started on this machine yet.

    Args:
        address: of the cluster, to which the connection stays; None where one is to be started.
        section, modules: as of ``connect_ray``.

    Raises:
        MissingExtra: a module is not installed.
        DeviceError: no cluster answers at the address.
    """
    require_ray(section, modules)
    if address is not None:
        connect_ray(address, section=section, modules=modules)


def connect_ray(
    address: str | None, *, section: str, modules: tuple[str, ...] = ("ray",), store_bytes: int = STORE_BYTES
) -> ModuleType:
    """Connect to a cluster, or start one on this machine that has only what tasks need; a connection that is there stays.

    Args:
        address: of the cluster; None starts one.
        section: of the spec, whose fields ``address`` and ``cluster`` messages name.
        modules: of Ray, which are imported.
        store_bytes: room for objects, where a cluster is started.

    Returns:
        The module ``ray``.

    Raises:
        MissingExtra: a module is not installed.
        DeviceError: no cluster answers or starts.
    """
    ray = require_ray(section, modules)
    if ray.is_initialized():
        return ray
    local: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": store_bytes}
    try:
        if address is not None:
            _require_listener(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except Exception as error:  # Ray raises plain exceptions when a node does not start in time, sockets theirs
        where = f"at {address}" if address else "could be started on this machine"
        raise DeviceError(f"no Ray cluster {where}: {' '.join(str(error).split())[:200]}",
                          remedy=f"start one with `ray start --head` and name it in {section}.address, or leave "
                          f"{section}.cluster out") from error  # fmt: skip
    return ray


def _require_listener(address: str) -> None:
    """Raise OSError where nobody listens at the host and port of an address; without effect for another form, such as ``auto``."""
    match = _SERVER.fullmatch(address)
    if match is None:
        return
    if int(match[2]) >= 2**16:
        raise OSError(f"port {match[2]}")
    socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=LISTENS_TIMEOUT_S).close()


def worker_resources(ray: ModuleType, workers: int | None, *, section: str) -> tuple[int, dict[str, Any]]:
    """Divide a cluster between workers.

    Args:
        ray: the module, connected.
        workers: number of workers; None: one a GPU, or one a machine where there are no GPUs.
        section: of the spec, whose field ``workers`` a message names.

    Returns:
        The number of workers, and what each of them takes: ``num_cpus``, and ``num_gpus`` where there are GPUs.

    Raises:
        DeviceError: there are more workers than cores.
    """
    total = ray.cluster_resources()
    cpus, gpus = max(1, int(total.get("CPU", 1))), int(total.get("GPU", 0))
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    count = workers or gpus or nodes
    if count > cpus:
        raise DeviceError(f"{count} workers on {cpus} cores of the cluster", expected=f"at most {cpus}",
                          remedy=f"set {section}.workers, or add machines")  # fmt: skip
    # Ray gives the tasks of Ray Data that are no actors a core of their own; here the actors do all the work.
    resources: dict[str, Any] = {"num_cpus": max(1, cpus // count)}
    if gpus:
        resources["num_gpus"] = min(1.0, gpus / count)  # more workers than GPUs share them
    return count, resources
