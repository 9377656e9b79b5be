"""Tensors of the Open Inference Protocol: JSON data, and the binary tensor data extension.

Protocol: https://github.com/kserve/open-inference-protocol, and Triton's extension "binary tensor data". A body with binary data is a
JSON object of ``Inference-Header-Content-Length`` bytes, followed by the data of the tensors in their order. An element of type
BYTES is its length in four bytes, little-endian, and its content.

Shape letters: N images, D width of an embedding.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LENGTH_HEADER = "inference-header-content-length"
BYTES = "BYTES"
DTYPES: dict[str, np.dtype[Any]] = {
    "UINT8": np.dtype("u1"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "FP16": np.dtype("<f2"),
}
MAX_ELEMENTS = 1 << 28
MAX_NESTED = 1 << 18  # lists and objects of the JSON


class ProtocolError(Exception):
    """A request that does not follow the protocol; ``status`` is that of the answer."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Tensor:
    """An input.

    Attributes:
        name, datatype, shape: as the request says them.
        values: an array of that shape, or for BYTES a list of contents.
    """

    name: str
    datatype: str
    shape: list[int]
    values: Any


@dataclass
class InferenceRequest:
    """A request for inference.

    Attributes:
        id: the client's id, given back.
        inputs: the tensors.
        outputs: names of the outputs that are asked for; empty: all.
        is_binary: whether the output is to be binary.
    """

    id: str = ""
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    is_binary: bool = False


def read_request(body: bytes, header_length: str | None) -> InferenceRequest:
    """Read a request for inference.

    Args:
        body: the whole body.
        header_length: the header ``Inference-Header-Content-Length``, if there is one.

    Raises:
        ProtocolError: the request does not follow the protocol.
    """
    length = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit()) or not 0 <= int(header_length) <= len(body):
            raise ProtocolError(f"{LENGTH_HEADER} is {header_length[:20]!r}, expected at most the length of the body")
        length = int(header_length)
    if body.count(b"[", 0, length) + body.count(b"{", 0, length) > MAX_NESTED:  # before anything is made of them
        raise ProtocolError(f"the JSON holds more than {MAX_NESTED} lists and objects; send binary tensors", 413)
    try:
        values = json.loads(body[:length])
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the request is no JSON: {str(error)[:200]}") from error
    if not isinstance(values, dict):
        raise ProtocolError("the request is no JSON object")
    request = InferenceRequest(str(values.get("id") or ""))
    data = memoryview(body)[length:]
    for entry in _objects(values, "inputs"):
        tensor, size = _read_tensor(entry, data)
        request.inputs.append(tensor)
        data = data[size:]
    if len(data):
        raise ProtocolError(f"{len(data)} bytes of binary data belong to no tensor")
    parameters = values.get("parameters")
    request.is_binary = isinstance(parameters, dict) and parameters.get("binary_data_output") is True
    for entry in _objects(values, "outputs"):
        request.outputs.append(str(entry.get("name", "")))
        own = entry.get("parameters")
        if isinstance(own, dict) and isinstance(own.get("binary_data"), bool):
            request.is_binary = own["binary_data"]
    return request


def _objects(values: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries = values.get(name, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ProtocolError(f"{name} is no list of objects")
    return entries


def _read_tensor(entry: dict[str, Any], data: memoryview) -> tuple[Tensor, int]:
    """A tensor of a request, and the number of bytes of binary data that it takes."""
    name, datatype, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    if not isinstance(name, str) or not isinstance(datatype, str):
        raise ProtocolError("an input without name or datatype")
    if not isinstance(shape, list) or not all(type(side) is int and 0 <= side <= MAX_ELEMENTS for side in shape):
        raise ProtocolError(f"input {name[:100]!r}: shape is no list of sizes")
    if math.prod(shape) > MAX_ELEMENTS:
        raise ProtocolError(f"input {name[:100]!r} is too large", 413)
    if datatype != BYTES and datatype not in DTYPES:
        raise ProtocolError(f"input {name[:100]!r}: datatype {datatype[:20]!r}, expected {BYTES}, {', '.join(DTYPES)}")
    parameters = entry.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if size is None:
        if "data" not in entry:
            raise ProtocolError(f"input {name[:100]!r} has no data")
        return Tensor(name, datatype, shape, _from_json(name, datatype, shape, entry["data"])), 0
    if type(size) is not int or not 0 <= size <= len(data):
        raise ProtocolError(f"input {name[:100]!r}: binary_data_size does not fit the body")
    return Tensor(name, datatype, shape, _from_binary(name, datatype, shape, data[:size])), size


def _from_binary(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> Any:
    count = math.prod(shape)
    if datatype != BYTES:
        dtype = DTYPES[datatype]
        if len(data) != count * dtype.itemsize:
            raise ProtocolError(f"input {name[:100]!r}: {len(data)} bytes for the shape {list(shape)} of {datatype}")
        return np.frombuffer(data, dtype).reshape(shape)
    contents: list[bytes] = []
    place = 0
    while place < len(data) and len(contents) < count:
        if place + 4 > len(data):
            raise ProtocolError(f"input {name[:100]!r}: its BYTES end early")
        (length,) = struct.unpack_from("<I", data, place)
        place += 4
        if place + length > len(data):
            raise ProtocolError(f"input {name[:100]!r}: its BYTES end early")
        contents.append(bytes(data[place : place + length]))
        place += length
    if len(contents) != count or place != len(data):
        raise ProtocolError(f"input {name[:100]!r}: its BYTES are not {count} elements")
    return contents


def _from_json(name: str, datatype: str, shape: Sequence[int], data: Any) -> Any:
    if datatype == BYTES:
        elements = _flatten(data)
        try:
            contents = [base64.b64decode(element, validate=True) for element in elements]
        except (binascii.Error, ValueError, TypeError) as error:
            raise ProtocolError(f"input {name[:100]!r}: BYTES in JSON are base64") from error
        if len(contents) != math.prod(shape):
            raise ProtocolError(f"input {name[:100]!r}: {len(contents)} elements for the shape {list(shape)}")
        return contents
    try:
        array = np.asarray(data, np.float64)
        if datatype == "UINT8" and (not np.isfinite(array).all() or (array != array.astype(np.uint8)).any()):
            raise ValueError(datatype)
        return array.astype(DTYPES[datatype]).reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise ProtocolError(f"input {name[:100]!r}: its data are no {datatype} of the shape {list(shape)}") from error


def _flatten(data: Any) -> list[Any]:
    elements, rest = [], [data]
    while rest:
        entry = rest.pop()
        if isinstance(entry, list):
            rest.extend(reversed(entry))
        else:
            elements.append(entry)
    return elements


def write_response(
    model: str, version: str, request: InferenceRequest, output: str, vectors_ND: np.ndarray
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of the answer with one FP32 output."""
    entry: dict[str, Any] = {"name": output, "datatype": "FP32", "shape": list(vectors_ND.shape)}
    values: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": [entry]}
    if request.id:
        values["id"] = request.id
    if not request.is_binary:
        entry["data"] = vectors_ND.ravel().tolist()
        return json.dumps(values).encode("ascii"), {"Content-Type": "application/json"}
    content = np.ascontiguousarray(vectors_ND, DTYPES["FP32"]).tobytes()
    entry["parameters"] = {"binary_data_size": len(content)}
    head = json.dumps(values).encode("ascii")
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return head + content, headers
