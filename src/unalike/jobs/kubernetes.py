"""A job as a Kubernetes manifest: one Pod that supervises the order in the job's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from unalike.errors import SpecError
from unalike.jobs.database import Job
from unalike.jobs.schedulers import refuse_unknown_options
from unalike.storage.atomic import write_text

MANIFEST_FILE = "kubernetes.yaml"
OPTION_NAMES = ("image", "namespace", "gpus", "cpus", "memory_gb", "claim", "mounts", "python", "service_account")


def make_manifest(job: Job, folder: Path, workspace: Path) -> dict[str, Any]:
    """Build the manifest of a job as plain data; every path is the same inside the container as outside.

    The job's options: ``image`` (needed), ``claim`` (a PersistentVolumeClaim that holds the workspace; without it the
    node's own folder), ``mounts`` (a list of CLAIM:PATH or of the node's folders, for data), ``gpus``, ``cpus``,
    ``memory_gb``, ``namespace``, ``service_account``, ``python``.

    Args:
        job: The job.
        folder: The job's folder.
        workspace: The workspace.

    Raises:
        SpecError: An option is unknown, or there is no image.
    """
    options = job.options
    refuse_unknown_options("kubernetes", options, OPTION_NAMES)
    if not options.get("image"):
        raise SpecError("kubernetes without an image", expected="a container image with unalike in it",
                        remedy="add --option image=NAME")  # fmt: skip
    claim, mount_options = options.get("claim"), options.get("mounts") or []
    mounts = [(str(claim) if claim else None, str(workspace))]
    for mount in [mount_options] if isinstance(mount_options, str) else mount_options:
        name, colon, path = str(mount).partition(":")
        mounts.append((name, path) if colon else (None, name))
    limits: dict[str, Any] = {}
    for name, key, unit in (("cpus", "cpu", ""), ("memory_gb", "memory", "Gi"), ("gpus", "nvidia.com/gpu", "")):
        if options.get(name):
            limits[key] = f"{options[name]}{unit}"
    container: dict[str, Any] = {
        "name": "action", "image": str(options["image"]),
        "command": [str(options.get("python", "python")), "-m", "unalike.jobs.supervisor", str(folder)],
        "volumeMounts": [{"name": f"part-{i}", "mountPath": path} for i, (_, path) in enumerate(mounts)],
    }  # fmt: skip
    if limits:
        container["resources"] = {"limits": limits, "requests": dict(limits)}
    pod: dict[str, Any] = {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 120, "containers": [container],
        "volumes": [_volume(f"part-{i}", name, path) for i, (name, path) in enumerate(mounts)],
    }  # fmt: skip
    if options.get("service_account"):
        pod["serviceAccountName"] = str(options["service_account"])
    labels = {"app.kubernetes.io/name": "unalike", "unalike/job": job.id, "unalike/action": job.action}
    metadata: dict[str, Any] = {"name": f"unalike-{job.id}-{job.attempt}", "labels": labels}
    if options.get("namespace"):
        metadata["namespace"] = str(options["namespace"])
    # 'unalike job resume' writes a new order for a failed attempt: Kubernetes must not repeat it.
    spec = {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _volume(name: str, claim: str | None, path: str) -> dict[str, Any]:
    if claim is None:
        return {"name": name, "hostPath": {"path": path, "type": "Directory"}}
    return {"name": name, "persistentVolumeClaim": {"claimName": claim}}


def write_manifest(job: Job, folder: Path, workspace: Path) -> Path:
    """Write the manifest into the job's folder; its path."""
    path = folder / MANIFEST_FILE
    write_text(path, yaml.safe_dump(make_manifest(job, folder, workspace), sort_keys=False, width=120))
    return path
