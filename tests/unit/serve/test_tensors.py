"""Tensors of the Open Inference Protocol."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from unalike.serve.tensors import MAX_NESTED, ProtocolError, read_request, write_response


def body_of(*entries: dict[str, Any], data: bytes = b"", **values: Any) -> tuple[bytes, str]:
    head = json.dumps({"inputs": list(entries), **values}).encode()
    return head + data, str(len(head))


def bytes_tensor(*contents: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(content)) + content for content in contents)


def entry(datatype: str, shape: list[int], size: int | None = None, **values: Any) -> dict[str, Any]:
    parameters = {} if size is None else {"parameters": {"binary_data_size": size}}
    return {"name": "x", "datatype": datatype, "shape": shape, **parameters, **values}


def test_binary_tensors_are_read_in_their_order() -> None:
    files, numbers = bytes_tensor(b"one", b"", b"three\0"), np.arange(6, dtype="<f4").tobytes()
    body, length = body_of(entry("BYTES", [3], len(files)), entry("FP32", [2, 3], len(numbers)), data=files + numbers)
    request = read_request(body, length)
    assert request.inputs[0].values == [b"one", b"", b"three\0"]
    assert request.inputs[1].values.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_json_tensors_are_read_flat_and_nested() -> None:
    nested = [[base64.b64encode(b"a").decode()], [base64.b64encode(b"b").decode()]]
    body, _ = body_of(entry("BYTES", [2, 1], data=nested), entry("UINT8", [2, 2], data=[1, 2, 3, 255]), id="7",
                      outputs=[{"name": "embedding", "parameters": {"binary_data": True}}])  # fmt: skip
    request = read_request(body, None)
    assert request.inputs[0].values == [b"a", b"b"] and request.inputs[1].values.tolist() == [[1, 2], [3, 255]]
    assert (request.id, request.outputs, request.is_binary) == ("7", ["embedding"], True)


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b"{", None), (b"[]", None), (b"{}", "9"), (b"{}", "-1"), (b"{}", "x"), (b"{}rest", "2"), (b'{"inputs": 5}', None),
        body_of({"name": "x"}), body_of(entry("BYTES", [1])), body_of(entry("INT3", [1], data=[1])),
        body_of(entry("FP32", [-1], data=[1])), body_of(entry("FP32", [2**40], data=[1])), body_of(entry("FP32", [2], data=[1])),
        body_of(entry("FP32", ["a"], data=[1])), body_of(entry("UINT8", [1], data=[256])), body_of(entry("UINT8", [1], data=[0.5])),
        body_of(entry("BYTES", [1], data=["?"])), body_of(entry("BYTES", [2], data=["YQ=="])), body_of(entry("FP32", [1], 9), data=b"1234"),
        body_of(entry("FP32", [2], 4), data=b"1234"), body_of(entry("BYTES", [1], 3), data=b"abc"),
        body_of(entry("BYTES", [1], 6), data=struct.pack("<I", 99) + b"ab"), body_of(entry("BYTES", [2], 5), data=bytes_tensor(b"a")),
        body_of(entry("BYTES", [0], 5), data=bytes_tensor(b"a")), body_of(entry("FP32", [1], True), data=b"1234"),
        body_of(entry("UINT8", [1], data=[float("nan")])), body_of(entry("FP32", [1], data={"a": 1})),
    ],
)  # fmt: skip
def test_requests_that_break_the_protocol_are_refused(body: bytes, length: str | None) -> None:
    with pytest.raises(ProtocolError):
        read_request(body, length)


@pytest.mark.parametrize("is_binary", [True, False])
def test_an_answer_holds_the_vectors_exactly(is_binary: bool) -> None:
    vectors = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    request = read_request(b'{"id": "a", "inputs": []}', None)
    request.is_binary = is_binary
    content, headers = write_response("m", "1", request, "embedding", vectors)
    length = int(headers.get("Inference-Header-Content-Length", len(content)))
    head = json.loads(content[:length])
    assert (head["model_name"], head["id"], head["outputs"][0]["shape"]) == ("m", "a", [2, 3])
    values = np.frombuffer(content[length:], "<f4") if is_binary else np.array(head["outputs"][0]["data"], np.float32)
    assert (values.reshape(2, 3) == vectors).all()
    assert not is_binary or head["outputs"][0]["parameters"]["binary_data_size"] == 24


def test_json_of_countless_lists_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="lists and objects") as caught:
        read_request(b'{"inputs": [' + b"[]," * MAX_NESTED + b"[]]}", None)
    assert caught.value.status == 413
