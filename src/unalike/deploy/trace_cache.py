"""Traced graphs of networks, kept in the cache folder: tracing takes 5 to 30 s, and the same network is opened again and again.

A graph is found again by all that it follows from: every weight and buffer, the class and the attributes of every module, the
source of classes that no version stands for, the metadata, and the versions of the packages that trace. A network of which
something cannot be described so is traced anew each time. The files of ``unalike export`` never come from here.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike.deploy.onnx_export import trace
from unalike.engines.metadata import NetworkFacts
from unalike.errors import DataError
from unalike.storage.atomic import atomic_write
from unalike.storage.cache import default_cache_dir
from unalike.storage.digests import content_sha256, file_sha256

if TYPE_CHECKING:
    import onnx
    import torch

FOLDER, SUFFIX = "graphs", ".graph"
# The graphs that were used last are kept, so many and so many bytes; 14 MB each with EfficientNet-Lite0.
MOST_GRAPHS, MOST_BYTES = 32, 1 << 30
LARGEST_BYTES = MOST_BYTES // 2
DIGEST_BYTES = 64
# Packages whose version stands for their source.
_VERSIONED = ("torch", "torchvision", "timm")
_TRACERS = ("torch", "torchvision", "timm", "onnx", "onnxscript", "onnx-ir", "numpy")
_MAX_DEPTH = 6


class NotDescribed(Exception):
    """A part of a network of which it cannot be said whether two are equal."""


def cached_trace(embedder: torch.nn.Module, input_size: tuple[int, int], facts: NetworkFacts) -> onnx.ModelProto:
    """Trace a network as ``onnx_export.trace`` without optimization, or take the graph that an earlier call traced.

    Args:
        embedder, input_size, facts: as of ``trace``.

    Raises:
        ExportError, MissingExtra: as of ``trace``.
    """
    try:
        key = graph_key(embedder, input_size, facts)
    except NotDescribed:
        return trace(embedder, input_size, facts, optimize=False)
    proto = _read(key)
    if proto is None:
        proto = trace(embedder, input_size, facts, optimize=False)
        _write(key, proto)
    return proto


# ---- the files ----


def _folder() -> Path:
    return default_cache_dir() / FOLDER


def _read(key: str) -> onnx.ModelProto | None:
    """The graph of a key; None where there is none, or its file is damaged."""
    try:
        path = _folder() / f"{key}{SUFFIX}"
        content = path.read_bytes()
        digest, graph = content[:DIGEST_BYTES], memoryview(content)[DIGEST_BYTES:]
        if content_sha256(graph).encode("ascii") != digest:
            return None
        os.utime(path)
    except (OSError, DataError):
        return None
    import onnx

    with contextlib.suppress(Exception):  # of another version of protobuf
        return onnx.load_model_from_string(bytes(graph))
    return None


def _write(key: str, proto: onnx.ModelProto) -> None:
    """Keep a graph, and remove those that were not used for longest. A cache that cannot be written only costs time."""
    if proto.ByteSize() > LARGEST_BYTES:
        return
    graph = proto.SerializeToString()
    with contextlib.suppress(OSError, DataError):
        folder = _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # weights are as private as their checkpoint
        with atomic_write(folder / f"{key}{SUFFIX}", sync=False) as partial:
            partial.write_bytes(content_sha256(graph).encode("ascii") + graph)
        _remove_old(folder)


def _remove_old(folder: Path) -> None:
    """Remove what is beyond the limits, the graphs that were not used for longest first."""
    entries = [(entry.stat(), entry.path) for entry in os.scandir(folder) if entry.name.endswith(SUFFIX)]
    total = 0
    for number, (status, path) in enumerate(sorted(entries, key=lambda entry: entry[0].st_mtime, reverse=True)):
        total += status.st_size
        if number >= MOST_GRAPHS or total > MOST_BYTES:
            Path(path).unlink(missing_ok=True)


# ---- what a graph follows from ----


def graph_key(embedder: torch.nn.Module, input_size: tuple[int, int], facts: NetworkFacts) -> str:
    """Compute the key of a network's graph, in 64 hexadecimal digits.

    Raises:
        NotDescribed: something of it cannot be described.
    """
    digest = hashlib.sha256()
    for text in _describe_network(embedder):
        digest.update(text.encode("utf-8", "surrogateescape") + b"\n")
    digest.update(f"{input_size} {facts.to_json()} {_versions()}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _describe_network(embedder: torch.nn.Module) -> Iterator[str]:
    for name, module in embedder.named_modules(remove_duplicate=False):
        kind = type(module)
        yield f"{name}: {kind.__module__}.{kind.__qualname__} {_source(kind.__module__)}"
        yield _describe(_own_attributes(module), 0)
    tensors: list[Iterable[tuple[str, torch.Tensor]]] = [
        embedder.named_parameters(remove_duplicate=False),
        embedder.named_buffers(remove_duplicate=False),
    ]
    for group in tensors:
        for name, tensor in group:
            yield f"{name} {_describe_tensor(tensor)}"


def _own_attributes(module: torch.nn.Module) -> dict[str, Any]:
    """Attributes of a module that are not torch's own of every module; hooks have to be absent."""
    for name, value in vars(module).items():
        if name in _bookkeeping() and name.endswith(("_hooks", "_pre_hooks")) and value:
            raise NotDescribed(name)
    return {name: value for name, value in vars(module).items() if name not in _bookkeeping()}


@functools.cache
def _bookkeeping() -> frozenset[str]:
    import torch

    return frozenset(vars(torch.nn.Module()))


def _describe_tensor(tensor: torch.Tensor) -> str:
    array = tensor.detach().cpu().contiguous()
    # Bytes whatever the type: numpy has no bfloat16.
    content = array.flatten().view(dtype=_byte_type()).numpy() if array.numel() else np.zeros(0, np.uint8)
    return f"{array.dtype} {tuple(array.shape)} {content_sha256(content.data)}"


def _byte_type() -> torch.dtype:
    import torch

    return torch.uint8


def _describe(value: Any, depth: int) -> str:
    """A text that is equal for equal values alone. Raises NotDescribed."""
    import torch

    if depth > _MAX_DEPTH:
        raise NotDescribed(type(value).__name__)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, torch.nn.Module):  # described in its own place, or kept beside the network
        if not value.state_dict():
            return f"{type(value).__module__}.{type(value).__qualname__} {_describe(_own_attributes(value), depth + 1)}"
        raise NotDescribed(type(value).__name__)
    if isinstance(value, torch.Tensor):
        return _describe_tensor(value)
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {content_sha256(np.ascontiguousarray(value).data)}"
    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_describe(k, depth + 1)}: {_describe(v, depth + 1)}" for k, v in value.items()) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(_describe(item, depth + 1) for item in value)) + "}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}(" + ", ".join(_describe(item, depth + 1) for item in value) + ")"
    return _describe_object(value, depth)


def _describe_object(value: Any, depth: int) -> str:
    """A class, a function, or an object with attributes."""
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__} {_source(value.__module__)}"
    if isinstance(value, functools.partial):
        return f"partial {_describe((value.func, value.args, value.keywords), depth + 1)}"
    if isinstance(value, MethodType):
        return f"method {value.__func__.__qualname__} of {_describe(value.__self__, depth + 1)}"
    if isinstance(value, FunctionType):
        if value.__closure__:
            raise NotDescribed(value.__qualname__)
        code = content_sha256(value.__code__.co_code + repr(value.__code__.co_consts).encode())
        defaults = _describe((value.__defaults__, value.__kwdefaults__), depth + 1)
        return f"{value.__module__}.{value.__qualname__} {code} {defaults} {_source(value.__module__)}"
    if isinstance(value, BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    attributes = {f.name: getattr(value, f.name) for f in fields(value)} if is_dataclass(value) else None
    if attributes is None and hasattr(value, "__dict__"):
        attributes = dict(vars(value))
    if attributes is None or inspect.ismodule(value) or isinstance(value, Path):
        raise NotDescribed(type(value).__name__)
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__} {_source(kind.__module__)} {_describe(attributes, depth + 1)}"


@functools.cache
def _source(module: str) -> str:
    """Digest of the file of a Python module, so that its changes are seen; empty where a version tells of them."""
    if module.partition(".")[0] in (*_VERSIONED, "builtins", "collections", "typing"):
        return ""
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file:
        raise NotDescribed(module)
    try:
        return file_sha256(Path(file))
    except OSError as error:
        raise NotDescribed(module) from error


@functools.cache
def _versions() -> str:
    versions = []
    for name in _TRACERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    return "; ".join([*versions, f"python {sys.version_info[:2]}", *map(file_sha256, _own_files())])


def _own_files() -> list[Path]:
    """Our own code that networks are made of, and that traces them: in a checkout it changes without its version."""
    package = Path(__file__).parents[1]
    return [*sorted((package / "model").rglob("*.py")), *sorted((package / "deploy").glob("onnx_*.py")), Path(__file__)]
