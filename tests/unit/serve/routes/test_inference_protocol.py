"""Open Inference Protocol v2: metadata, and inference by files and by the network's own input."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.serving import VIEW, picture, run, running


def binary(body: dict[str, Any], data: bytes) -> dict[str, Any]:
    head = json.dumps(body).encode()
    return {"content": head + data, "headers": {"inference-header-content-length": str(len(head))}}


def vectors_of(response: Any) -> np.ndarray:
    length = response.headers.get("inference-header-content-length")
    head = json.loads(response.content[: int(length)] if length else response.content)
    output = head["outputs"][0]
    if length:
        return np.frombuffer(response.content[int(length) :], "<f4").reshape(output["shape"])
    return np.array(output["data"], np.float32).reshape(output["shape"])


def test_the_server_and_its_models_are_described(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, names=("colors", "others")) as it:
            assert "binary_tensor_data" in (await it.client.get("/v2")).json()["extensions"]
            assert (await it.client.get("/v2/health/live")).status_code == 200
            assert (await it.client.get("/v2/health/ready")).json() == {"ready": True}
            model = (await it.client.get("/v2/models/embedding")).json()
            assert model["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
            model = (await it.client.get("/v2/models/others.embedding_tensor/versions/1")).json()
            assert model["inputs"][0]["shape"] == [-1, 3, 8, 8] and model["outputs"][0]["shape"] == [-1, 3]
            assert (await it.client.get("/v2/models/embedding/ready")).status_code == 200
            for path in ("/v2/models/embeding", "/v2/models/embedding/versions/2", "/v2/models/none.embedding"):
                response = await it.client.get(path)
                assert response.status_code == 404 and "embedding" in response.json()["error"]

    run(scenario())


def test_files_give_the_vectors_of_the_recognizer_in_json_and_binary(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            contents = [picture("red"), picture("blue")]
            expected = it.service.resources.gallery().recognizer.encode(contents)
            entry = {"name": "image", "datatype": "BYTES", "shape": [2]}
            in_json = {**entry, "data": [base64.b64encode(content).decode() for content in contents]}
            response = await it.client.post("/v2/models/embedding/infer", json={"inputs": [in_json], "id": "5"})
            assert response.json()["id"] == "5" and (vectors_of(response) == expected).all()
            data = b"".join(struct.pack("<I", len(content)) + content for content in contents)
            body = {"inputs": [{**entry, "parameters": {"binary_data_size": len(data)}}],
                    "outputs": [{"name": "embedding", "parameters": {"binary_data": True}}]}  # fmt: skip
            response = await it.client.post("/v2/models/embedding/versions/1/infer", **binary(body, data))
            assert "inference-header-content-length" in response.headers and (vectors_of(response) == expected).all()

    run(scenario())


def test_the_networks_input_gives_the_same_vectors(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as it:
            image_HWC = VIEW(picture("green", shift=7))
            expected = it.engine(image_HWC[None])
            normalized = ((image_HWC.astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]
            for datatype, array in (("FP32", normalized), ("UINT8", image_HWC[None])):
                data = np.ascontiguousarray(array).tobytes()
                entry = {
                    "name": "input",
                    "datatype": datatype,
                    "shape": list(array.shape),
                    "parameters": {"binary_data_size": len(data)},
                }
                response = await it.client.post(
                    "/v2/models/embedding_tensor/infer", **binary({"inputs": [entry]}, data)
                )
                assert (vectors_of(response) == expected).all(), datatype

    run(scenario())


def test_errors_have_the_form_of_the_protocol(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_files=2) as it:

            def entry(**values: Any) -> dict[str, Any]:
                return {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["eA=="], **values}]}

            for body in (
                {}, {"inputs": []}, entry(name="x"), entry(datatype="FP32", data=[1]), entry(), {**entry(), "outputs": [{"name": "x"}]},
            ):  # fmt: skip
                response = await it.client.post("/v2/models/embedding/infer", json=body)
                assert response.status_code == 400 and set(response.json()) == {"error"}, body
            response = await it.client.post("/v2/models/embedding/infer", json=entry(shape=[3], data=["eA=="] * 3))
            assert response.status_code == 413
            tensor = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3, 8, 8], "data": [1000.0] * 192}]}
            response = await it.client.post("/v2/models/embedding_tensor/infer", json=tensor)
            assert response.status_code == 400 and "mean" in response.json()["error"]
            empty = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [0], "data": []}]}
            assert vectors_of(await it.client.post("/v2/models/embedding/infer", json=empty)).shape == (0, 3)

    run(scenario())
