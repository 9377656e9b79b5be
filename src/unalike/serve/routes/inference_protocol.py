"""Open Inference Protocol v2, for clients of Triton and KServe: the models ``embedding`` and ``embedding_tensor``.

``embedding`` takes ``image``, BYTES [N]: encoded image files. ``embedding_tensor`` takes the input of the exported network: ``input``, FP32
[N, 3, H, W], normalized with the network's mean and std; or UINT8 [N, H, W, 3], RGB. Both give ``embedding``, FP32 [N, D]. Those
of the default gallery's network have these names; those of another gallery ``GALLERY.embedding`` and ``GALLERY.embedding_tensor``.

Shape letters: N images, C channels, H, W height and width, D width of an embedding.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from unalike import __version__
from unalike.errors import UnreadableImage, closest
from unalike.serve.batching import EmbedFinish
from unalike.serve.problems import problem_of
from unalike.serve.request_context import answered_in_time, context_of
from unalike.serve.resources import GalleryResource
from unalike.serve.security import require_gallery
from unalike.serve.service import Service
from unalike.serve.tensors import (
    BYTES,
    LENGTH_HEADER,
    InferenceRequest,
    ProtocolError,
    Tensor,
    read_request,
    write_response,
)
from unalike.serve.uploads import Upload, read_body, too_many_files

EMBEDDING, EMBEDDING_TENSOR = "embedding", "embedding_tensor"
IMAGE, INPUT, OUTPUT = "image", "input", "embedding"
VERSION = "1"
EXTENSIONS = ["binary_tensor_data"]
_ERROR = {
    "description": "What was wrong.",
    "content": {"application/json": {"schema": {
        "type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"],
    }}},
}  # fmt: skip
_ERRORS: dict[int | str, dict[str, Any]] = dict.fromkeys((400, 401, 403, 404, 413, 429, 500, 503, 504), _ERROR)
ModelName = Annotated[str, Path(description="embedding or embedding_tensor.")]
Version = Annotated[str, Path(description="1.")]


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Plain data as JSON."""
    return Response(json.dumps(value), status, headers=headers, media_type="application/json")


def inference_protocol_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["open inference protocol"])

    def add(method: str, path: str, endpoint: Callable[..., Awaitable[Response]], summary: str, **options: Any) -> None:
        router.add_api_route(path, _with_errors(endpoint), methods=[method], summary=summary, response_class=Response,
                             responses={**_ERRORS, **options.pop("responses", {})}, **options)  # fmt: skip

    async def server(request: Request) -> Response:
        return answer({"name": "unalike", "version": __version__, "extensions": EXTENSIONS})

    async def live(request: Request) -> Response:
        return answer({"live": True})

    async def ready(request: Request) -> Response:
        return answer({"ready": service.is_ready}, 200 if service.is_ready else 503)

    async def metadata(request: Request, model: ModelName, version: Version) -> Response:
        return answer(describe(model, *_model(service, request, model, version)))

    async def model_ready(request: Request, model: ModelName, version: Version) -> Response:
        _model(service, request, model, version)
        return answer({"name": model, "ready": service.is_ready}, 200 if service.is_ready else 503)

    async def infer(request: Request, model: ModelName, version: Version) -> Response:
        resource, takes_files = _model(service, request, model, version)
        resource.network.batcher.refuse_overload(1, context_of(request).deadline)
        if request.headers.get("content-encoding", "identity") != "identity":
            raise ProtocolError("a compressed body", 415)
        body = await read_body(request, service.limits.max_bytes)
        inference = read_request(body, request.headers.get(LENGTH_HEADER))
        vectors_ND = await _infer(service, request, resource, takes_files, inference)
        content, headers = write_response(model, VERSION, inference, OUTPUT, vectors_ND)
        return Response(content, headers=headers)

    add("GET", "/v2", server, "The server.")
    add("GET", "/v2/health/live", live, "The process runs.")
    add("GET", "/v2/health/ready", ready, "Requests are taken.")
    body = {"requestBody": {"required": True, "content": {
        "application/json": {"schema": {"type": "object", "properties": {"inputs": {"type": "array", "items": {"type": "object"}}},
                                        "required": ["inputs"]}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    }}}  # fmt: skip
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        versioned = "version" in path
        add("GET", path, metadata if versioned else _without_version(metadata), "Inputs and outputs of a model.")
        add("GET", f"{path}/ready", model_ready if versioned else _without_version(model_ready), "The model is loaded.")
        add(
            "POST",
            f"{path}/infer",
            infer if versioned else _without_version(infer),
            "Compute embeddings.",
            openapi_extra=body,
        )
    return router


def _without_version(
    endpoint: Callable[[Request, str, str], Awaitable[Response]],
) -> Callable[..., Awaitable[Response]]:
    async def unversioned(request: Request, model: ModelName) -> Response:
        return await endpoint(request, model, VERSION)

    return unversioned


def _with_errors(endpoint: Callable[..., Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    """The endpoint with its errors as this protocol has them: ``{"error": ...}``."""

    @functools.wraps(endpoint)
    async def guarded(*arguments: Any, **names: Any) -> Response:
        try:
            return await endpoint(*arguments, **names)
        except ProtocolError as error:
            return answer({"error": str(error)}, error.status)
        except Exception as error:
            problem = problem_of(error)
            if problem is None:
                raise
            status = 400 if problem.status == 422 else problem.status
            return answer({"error": problem.to_dict()["detail"]}, status, problem.headers)

    return guarded


def _model(service: Service, request: Request, model: str, version: str) -> tuple[GalleryResource, bool]:
    """The gallery whose network a model's name means, and whether it takes files. Raises ProtocolError (404)."""
    gallery, _, kind = model.rpartition(".")
    galleries = service.resources.galleries
    if (
        version != VERSION
        or kind not in (EMBEDDING, EMBEDDING_TENSOR)
        or (gallery and gallery not in galleries)
        or not galleries
    ):
        names = [EMBEDDING, EMBEDDING_TENSOR]
        names += [f"{name}.{kind}" for name in list(galleries)[1:] for kind in (EMBEDDING, EMBEDDING_TENSOR)]
        hint = closest(model, names)
        text = f"no model {model[:100]!r} of version {version[:20]!r}"
        raise ProtocolError(f"{text}; expected {', '.join(names)}{f'; {hint}' if hint else ''}", 404)
    context = context_of(request)
    resource = service.resources.gallery(gallery or context.gallery)
    require_gallery(context, "gallery", resource.name)
    return resource, kind == EMBEDDING


def describe(model: str, resource: GalleryResource, takes_files: bool) -> dict[str, Any]:
    """Metadata of a model."""
    height, width = resource.network.engine.input_size
    entry = {"name": IMAGE, "datatype": BYTES, "shape": [-1]}
    if not takes_files:
        entry = {"name": INPUT, "datatype": "FP32", "shape": [-1, 3, height, width]}
    output = {"name": OUTPUT, "datatype": "FP32", "shape": [-1, resource.network.engine.dim]}
    return {"name": model, "versions": [VERSION], "platform": "unalike", "inputs": [entry], "outputs": [output]}


async def _infer(
    service: Service, request: Request, resource: GalleryResource, takes_files: bool, inference: InferenceRequest
) -> np.ndarray:
    """The embeddings (N, D) that a request asks for."""
    name = IMAGE if takes_files else INPUT
    if len(inference.inputs) != 1 or inference.inputs[0].name != name:
        names = ", ".join(tensor.name[:50] for tensor in inference.inputs) or "none"
        raise ProtocolError(f"the inputs are {names}; expected {name}")
    if any(output != OUTPUT for output in inference.outputs):
        raise ProtocolError(f"the outputs are {', '.join(inference.outputs)[:200]}; expected {OUTPUT}")
    tensor = inference.inputs[0]
    if takes_files:
        return await _embed_files(service, request, resource, tensor)
    return await _embed_tensor(service, request, resource, tensor)


def _check_count(service: Service, count: int) -> None:
    if count > service.limits.max_files:
        raise too_many_files(count, service.limits.max_files)


async def _embed_files(service: Service, request: Request, resource: GalleryResource, tensor: Tensor) -> np.ndarray:
    if tensor.datatype != BYTES:
        raise ProtocolError(f"{IMAGE} has datatype {tensor.datatype}; expected {BYTES}")
    _check_count(service, len(tensor.values))
    if not tensor.values:
        return np.empty((0, resource.network.engine.dim), np.float32)
    uploads = [Upload(f"image {number}", content) for number, content in enumerate(tensor.values)]
    vectors = await service.embed(request, uploads, resource.network, resource.view, EmbedFinish(), uploads)
    for vector in vectors:
        if isinstance(vector, UnreadableImage):
            raise vector
    return np.stack(vectors)


async def _embed_tensor(service: Service, request: Request, resource: GalleryResource, tensor: Tensor) -> np.ndarray:
    images_NHWC = await asyncio.to_thread(to_images, tensor, resource)
    _check_count(service, len(images_NHWC))
    if not len(images_NHWC):
        return np.empty((0, resource.network.engine.dim), np.float32)
    context, batcher = context_of(request), resource.network.batcher
    context.images += len(images_NHWC)
    with batcher.reserve(len(images_NHWC), context.deadline):
        async with answered_in_time(request):
            runs = (batcher.run(image, EmbedFinish(), None, context.deadline) for image in images_NHWC)
            return np.stack(await asyncio.gather(*runs))


def to_images(tensor: Tensor, resource: GalleryResource) -> np.ndarray:
    """Images as the engine takes them, uint8 (N, H, W, 3), of a tensor as the exported network takes it.

    Raises:
        ProtocolError: another type or shape, or values that no normalized image has.
    """
    height, width = resource.network.engine.input_size
    if tensor.datatype == "UINT8" and tensor.shape[1:] == [height, width, 3]:
        images: np.ndarray = np.ascontiguousarray(tensor.values)
        return images
    if tensor.datatype != "FP32" or len(tensor.shape) != 4 or tensor.shape[1:] != [3, height, width]:
        raise ProtocolError(f"{INPUT} is {tensor.datatype} {tensor.shape}; expected FP32 [N, 3, {height}, {width}], or UINT8 "
                            f"[N, {height}, {width}, 3]")  # fmt: skip
    preprocessing = resource.network.model.preprocessing
    mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    values_NCHW = (tensor.values * std + mean) * 255
    if not np.isfinite(values_NCHW).all() or values_NCHW.min(initial=0) < -1 or values_NCHW.max(initial=0) > 256:
        raise ProtocolError(f"{INPUT} holds values that no image has; expected (pixels / 255 - mean) / std with mean "
                            f"{list(preprocessing.mean)} and std {list(preprocessing.std)}")  # fmt: skip
    return np.ascontiguousarray(np.clip(np.rint(values_NCHW), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1))
