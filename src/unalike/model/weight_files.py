"""Read weight files (PyTorch, Lightning, safetensors) safely, without running code from them."""

from __future__ import annotations

import json
import math
import os
import pickle
import tarfile
import types
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch

from unalike.errors import WeightsError
from unalike.storage.fetch import local_path
from unalike.storage.outside_files import read_settled

MAX_RATIO = 20  # of an archive's content to its own size
MAX_VALUES, MAX_DEPTH = 1_000_000, 200  # of nested mappings
WEIGHT_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


class InertPlaceholder:
    """Stands in for every class and function that a foreign file names: it can be constructed, called and filled, and
    does nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __call__(self, *args: object, **kwargs: object) -> InertPlaceholder:
        return InertPlaceholder()

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, item: object) -> None: ...

    def extend(self, items: object) -> None: ...

    def add(self, item: object) -> None: ...


class OmegaConfNode(InertPlaceholder):
    """Stands in for OmegaConf's containers and values, without the package: keeps the plain state of the object."""

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}


def plain_config(value: object, depth: int = 0) -> Any:
    """Return plain dicts, lists and scalars for a configuration in a checkpoint, which may be objects of OmegaConf.

    Args:
        value: part of the content of ``read_content``.
        depth: levels above it; deeper than 32, what is left becomes None.
    """
    if depth > 32:
        return None
    if isinstance(value, OmegaConfNode):
        state: Mapping[str, Any] = getattr(value, "state", {})
        return plain_config(state.get("_content", state.get("_val")), depth + 1)
    if isinstance(value, Mapping):
        return {str(key): plain_config(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_config(item, depth + 1) for item in value]
    return value if isinstance(value, str | int | float | bool) else None


# Everything a foreign pickle may name. Anything else becomes an InertPlaceholder: torch.storage._load_from_bytes, for one,
# would unpickle once more without these limits.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): tuple,
    ("torch.storage", "UntypedStorage"): torch.UntypedStorage,
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (dict, list, tuple, set, frozenset, int, float, complex, bool, str, bytes, bytearray)
    },
    **{
        ("torch", name): value
        for name, value in vars(torch).items()
        if isinstance(value, torch.dtype) or (isinstance(value, type) and name.endswith("Storage"))
    },
}


class _BoundedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        foreign = OmegaConfNode if module.partition(".")[0] == "omegaconf" else InertPlaceholder
        return _ADMITTED.get((module, name), foreign)


def _bounded_load(file: Any, **kwargs: Any) -> Any:
    return _BoundedUnpickler(file, **kwargs).load()


# torch.load takes a module that looks like pickle, and uses its Unpickler and its load.
_bounded_pickle = types.ModuleType("bounded_pickle")
_bounded_pickle.Unpickler = _BoundedUnpickler  # type: ignore[attr-defined]
_bounded_pickle.load = _bounded_load  # type: ignore[attr-defined]


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """All tensors of a network in a ``.pth``, ``.ckpt`` or ``.safetensors`` file, on the CPU, by the file's own names.

    Optimizer states and the like are left out. No code from the file runs. Raises WeightsError, which says what the file is
    when it holds no weights.
    """
    return tensors_of(read_content(path), path)


def tensors_of(content: Any, path: str | Path) -> dict[str, torch.Tensor]:
    """As ``read_weights``, of a content that ``read_content`` returned; ``path`` is for messages."""
    if isinstance(content, Mapping) and content.get("state_dict_encrypted"):
        raise WeightsError(
            f"{path}: its tensors are encrypted (TAO's encryption_key)",
            remedy="save it once without a key in TAO, then name that file",
        )
    tensors = _flatten(_state_of(content))
    if not tensors:
        raise WeightsError(
            f"{path} holds no tensors by name",
            expected="a state dict, plain or inside a checkpoint",
            remedy="a pickled network must be saved anew as network.state_dict()",
        )
    return tensors


def read_content(path: str | Path) -> Any:
    """The content of a weight file, tensors and plain containers only; a URI is fetched. Raises WeightsError, DataError."""
    path = local_path(path)
    return read_settled(path, lambda: _read_content(path), error=WeightsError)


def _read_content(path: Path) -> Any:
    _check_kind(path)
    try:
        if _is_safetensors(path):
            return _read_safetensors(path)
        _check_archive(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            # It holds something besides tensors (Lightning files of TAO hold OmegaConf objects).
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_bounded_pickle)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # A damaged pickle or archive can raise anything.
        first = (str(error).splitlines() or [""])[0][:160]
        raise WeightsError(
            f"{path} is damaged, truncated or encrypted: {type(error).__name__}: {first}",
            expected="a PyTorch or safetensors file",
            remedy="fetch it again, and compare its size with the original's",
        ) from error


def _check_archive(path: Path) -> None:
    """Compare a file of torch (a zip archive) with its checksums, which torch does not. Raises BadZipFile.

    Files that were written without them (``torch.serialization.set_crc32_options``) hold zeros.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if any(entry.CRC for entry in archive.infolist()):
            bad_entry = archive.testzip()
            if bad_entry is not None:
                raise zipfile.BadZipFile(f"the checksum of {bad_entry} differs")


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON header, then that header."""
    with open(path, "rb") as file:
        head = file.read(9)
    length = int.from_bytes(head[:8], "little")
    return len(head) == 9 and head[8:9] == b"{" and 2 <= length < path.stat().st_size


# Types of tensors in safetensors files (https://huggingface.co/docs/safetensors).
_SAFETENSORS_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "BOOL": torch.bool, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "U16": torch.uint16,
    "U32": torch.uint32, "U64": torch.uint64,
}  # fmt: skip
_MAX_HEADER_BYTES = 100_000_000  # as the library's own


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors file into memory.

    The library maps the file, and a process that reads a map ends (SIGBUS) when somebody copies another file over it (seen
    2026-11-30). Raises ValueError and others for a damaged file.
    """
    tensors: dict[str, torch.Tensor] = {}
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, _MAX_HEADER_BYTES):
            raise ValueError(f"a header of {length} bytes")
        header, total = json.loads(file.read(length)), 0
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            dtype, shape, (start, end) = _SAFETENSORS_TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
            total += end - start
            if min([start, *shape], default=0) < 0 or max(end, total) > size - 8 - length:
                raise ValueError(f"{name} lies outside the file")
            if end - start != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name} has {end - start} bytes for {shape} of {entry['dtype']}")
            content = bytearray(end - start)
            file.seek(8 + length + start)
            if file.readinto(content) != len(content):
                raise ValueError(f"{name} is cut off")
            tensors[name] = (
                torch.frombuffer(content, dtype=dtype).reshape(shape) if content else torch.empty(shape, dtype=dtype)
            )
    return tensors


def _check_kind(path: Path) -> None:
    """Raise WeightsError, which says what a file is, unless it may be a weight file by its first bytes."""
    if path.is_dir():
        raise WeightsError(f"{path} is a folder", expected="one file of weights: " + ", ".join(WEIGHT_SUFFIXES))
    if not path.is_file():
        raise WeightsError(f"{path} does not exist", expected="a file of weights: " + ", ".join(WEIGHT_SUFFIXES))
    try:
        with open(path, "rb") as file:
            head = file.read(tarfile.BLOCKSIZE)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from error
    kind = _kind_of(path, head)
    if kind:
        raise WeightsError(f"{path} is {kind}", expected="a PyTorch or safetensors file")


def _kind_of(path: Path, head: bytes) -> str:
    """What a file is that is no weight file; empty where it may be one."""
    text = head.lstrip().lower()
    if not head:
        return "empty"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself (git lfs pull fetches it)"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not the file itself (the download met a login or error page)"
    if head.startswith(b"\x89HDF"):
        return "an HDF5 file (Keras?)"
    if head.startswith(b"PK"):
        return _kind_of_zip(path)
    if head[257:262] == b"ustar" or _is_tar(head):
        return "a tar archive: unpack it first"  # torch would unpack an old one by itself
    if head.startswith(b"\x80"):
        return ""  # a pickle: torch's format before 1.6
    if _is_safetensors(path):
        return ""
    if path.suffix in (".onnx", ".engine", ".tlt", ".etlt", ".hdf5"):
        return f"a {path.suffix} file, which holds no tensors that can be trained on (.tlt and .etlt are encrypted)"
    return "of no known kind: encrypted, or not weights at all"


def _is_tar(head: bytes) -> bool:
    """Whether a file begins with a header of tar, whose checksum is right; what follows is not read."""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            total_size = sum(entry.file_size for entry in archive.infolist())
    except Exception:  # noqa: BLE001  zipfile raises UnicodeDecodeError, struct.error and more on damaged directories
        return "a damaged or truncated archive"
    if total_size > MAX_RATIO * path.stat().st_size:  # torch stores tensors without compression
        return f"an archive that unpacks to {total_size >> 20} MiB"
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program, not weights"
    if not any(name.endswith("data.pkl") for name in names):
        return "a zip archive without tensors"
    return ""


# Keys under which files keep a state dict, in the order in which they are looked for; one level at a time.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "teacher", "network", "net")
_NOT_THE_NETWORK = ("optim", "train", "lr_sched", "sched", "callback", "loop", "hyper", "scaler", "loss", "miner")


def _state_of(content: Any) -> Any:
    """The state dict inside a checkpoint's wrappers."""
    for _ in range(4):
        if not isinstance(content, Mapping) or any(isinstance(v, torch.Tensor) for v in content.values()):
            return content
        inner = next((content[w] for w in _WRAPPERS if isinstance(content.get(w), Mapping) and content[w]), None)
        if inner is None:
            return content
        content = inner
    return content


def _flatten(content: Any, prefix: str = "", budget: list[int] | None = None) -> dict[str, torch.Tensor]:
    """Tensors of nested mappings under dotted names; ``budget`` holds how many values may still be looked at."""
    tensors: dict[str, torch.Tensor] = {}
    budget = [MAX_VALUES] if budget is None else budget
    if not isinstance(content, Mapping):
        return tensors
    for key, value in content.items():
        budget[0] -= 1
        if budget[0] < 0 or prefix.count(".") > MAX_DEPTH:  # pickle can repeat one mapping in another without end
            raise WeightsError("weights that are nested too deeply", expected="a state dict, plain or in a checkpoint")
        if isinstance(value, torch.Tensor):
            tensors[prefix + str(key)] = value.detach()
        elif isinstance(value, Mapping) and not str(key).startswith(_NOT_THE_NETWORK):
            tensors.update(_flatten(value, f"{prefix}{key}.", budget))
    return tensors
