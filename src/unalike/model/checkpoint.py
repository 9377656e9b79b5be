"""Checkpoint files: tensors and plain data in one file, written atomically and read without running code.

The payload's keys: ``format_version``, ``model`` (state dict), ``spec`` (the resolved spec, a dict), ``classes``,
``facts`` (mean, std, view, licence, weights: where they came from), ``epoch``, ``step``, ``metrics`` and, for resuming, ``training``.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unalike.errors import RunError, WeightsError
from unalike.installation import upgrade_command
from unalike.model.backbones import PretrainedConfig
from unalike.model.embedder import Embedder, EmbedderConfig, create_embedder
from unalike.model.tao_checkpoint import convert_tao_checkpoint, is_tao_checkpoint
from unalike.model.weight_files import read_content
from unalike.storage.atomic import atomic_write
from unalike.storage.deferred_signals import deferred_signals
from unalike.storage.outside_files import reader_errors

if TYPE_CHECKING:
    from unalike.spec import Experiment

FORMAT_VERSION = 1
_KINDS: dict[str, tuple[type, ...]] = {
    "model": (Mapping,),
    "spec": (Mapping,),
    "facts": (Mapping,),
    "classes": (list, tuple),
}
_PLAIN = (str, bytes, int, float, bool, type(None), torch.Tensor)


def write_checkpoint(path: str | Path, payload: Mapping[str, Any], *, follow_links: bool = False) -> Path:
    """Write ``payload`` and return its path; an older file of that name stays complete until the new one is.

    A symbolic link is replaced by the file: in the folder of a run it is one of ours, or of a program that keeps files by
    their content. ``follow_links`` writes the file that it leads to, for a path that the user named.

    Raises RunError when the disk is full or not writable, TypeError when the payload holds what ``read_checkpoint``
    could not read back.
    """
    path = Path(path)
    content = {**payload, "format_version": FORMAT_VERSION}
    _require_plain(content, "payload")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, follow_links=follow_links) as partial, partial.open("wb") as file, deferred_signals():
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        # torch reports a failed write as RuntimeError, whatever the cause.
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space" in str(error)
        raise RunError(
            f"{path} cannot be written: {'the disk is full' if full else reason}",
            remedy="free some space or name another results_dir" if full else "",
        ) from error
    return path


def _require_plain(value: Any, place: str) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _require_plain(inner, f"{place}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            _require_plain(inner, f"{place}[{number}]")
    elif not isinstance(value, _PLAIN) or type(value).__module__.startswith("numpy"):
        raise TypeError(f"{place} is a {type(value).__name__}: checkpoints hold tensors and plain data only")


def read_checkpoint(path: str | Path, experiment: Experiment | None = None) -> dict[str, Any]:
    """The payload of a checkpoint, tensors on the CPU; no code from the file runs.

    Args:
        path: the file; one of TAO's ml_recog is converted (``model.tao_checkpoint``).
        experiment: the spec of the action, which describes the network of a file of TAO; one of ours describes itself.

    Raises:
        WeightsError: the file is damaged, is of another program, or was written by a newer version.
    """
    content = read_content(path)
    if not (isinstance(content, dict) and "format_version" in content) and is_tao_checkpoint(content, path):
        return convert_tao_checkpoint(content, path, experiment)
    if not isinstance(content, dict) or "format_version" not in content or "spec" not in content:
        raise WeightsError(
            f"{path} is not a checkpoint of unalike",
            expected="a .pth file written by unalike train or by TAO's ml_recog",
            remedy="weights of other programs go into model.pretrained_model_path or model.pretrained_trunk_path",
        )
    version = content["format_version"]
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise WeightsError(
            f"{path} has format version {version}",
            expected=f"at most {FORMAT_VERSION}",
            remedy=f"it was written by a newer unalike: {upgrade_command()}",
        )
    for key, kind in _KINDS.items():
        if key in content and not isinstance(content[key], kind):
            raise WeightsError(f"{path} is damaged: its {key} is a {type(content[key]).__name__}", remedy="take a copy")
    return content


def load_embedder(path: str | Path, experiment: Experiment | None = None) -> tuple[Embedder, dict[str, Any]]:
    """Rebuild the network of a checkpoint, in eval mode; returns it and the rest of the payload.

    ``experiment`` describes the network of a file of TAO, as in ``read_checkpoint``. No pretrained weights are looked for: all tensors come from the file, and all must be there.
    """
    payload = read_checkpoint(path, experiment)
    return embedder_from_payload(payload, source=str(path)), {
        k: v for k, v in payload.items() if k not in ("model", "training")
    }


def network_key(embedder: torch.nn.Module, mean: Sequence[float], std: Sequence[float]) -> str:
    """A digest of a network's tensors and of its images' normalization, which identifies the network.

    It goes with the network into every format, so that an INT8 file is known to come from this network.
    """
    digest = hashlib.sha256(repr([[float(value) for value in part] for part in (mean, std)]).encode())
    for name, tensor in sorted(embedder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return f"weights {digest.hexdigest()[:32]}"


def embedder_from_payload(payload: Mapping[str, Any], *, source: str = "checkpoint") -> Embedder:
    """The network of a payload that was read before, in eval mode. Raises WeightsError when tensors do not fit."""
    with reader_errors(f"{source}: its spec does not describe a network", error=WeightsError):
        config = EmbedderConfig.from_spec(payload["spec"]["model"])
        embedder = create_embedder(config)
    with reader_errors(f"{source}: its tensors do not fit {config.backbone}", error=WeightsError):
        embedder.load_state_dict(payload["model"], strict=True)
    with reader_errors(f"{source}: its facts are damaged", error=WeightsError):
        embedder.trunk.facts = _facts_of(embedder.trunk.facts, payload.get("facts") or {})
    return embedder.eval()


def _facts_of(facts: PretrainedConfig, values: Mapping[str, Any]) -> PretrainedConfig:
    """The trunk's facts as they were in training, where the checkpoint holds them."""
    source = str(values.get("weights", facts.source))
    return replace(
        facts,
        mean=tuple(values.get("mean", facts.mean)),
        std=tuple(values.get("std", facts.std)),
        license=str(values.get("licence", facts.license)),
        source=source,
        pretrained=source != "random",
    )
