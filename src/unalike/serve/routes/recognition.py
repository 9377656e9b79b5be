"""Endpoints ``identify`` and ``embed``, which are answered before all others are loaded.

FastAPI is needed for their document alone. Shape letters: N images, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from unalike.errors import UnreadableImage
from unalike.recognition.attributes import check_where
from unalike.recognition.decision import RULES
from unalike.recognition.identification import Identification
from unalike.serve.batching import EmbedFinish
from unalike.serve.decision_log import DecisionLog
from unalike.serve.learning.shadow import SampledImage
from unalike.serve.metrics import Metrics
from unalike.serve.problems import Problem
from unalike.serve.request_context import RequestContext, context_of
from unalike.serve.resources import GalleryResource
from unalike.serve.service import Service, display_name, json_response
from unalike.serve.store import DecisionRecord
from unalike.serve.uploads import Form, Parameters, Upload, file_name
from unalike.serve.vector_cache import VectorCache

if TYPE_CHECKING:
    from fastapi import APIRouter

MAX_NEIGHBORS = 1000
_K = {"type": "integer", "minimum": 1, "maximum": MAX_NEIGHBORS, "default": 3, "description": "Neighbors to list."}
_RULE = {
    "type": "string",
    "enum": list(RULES),
    "description": "Rule that labels an image; unset, that of the calibration.",
}

WHERE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
    },
    "description": "Takes references with these attributes alone: names with a value, or with several of which one must hold; as JSON.",
}
# A filter that was checked, in a form that can be compared and hashed.
Filter = tuple[tuple[str, tuple[str, ...]], ...]


def read_filter(parameters: Parameters) -> Filter | None:
    """The parameter ``where``. Raises Problem and DataError (422)."""
    where = check_where(parameters.mapping("where"))
    return None if where is None else tuple(sorted(where.items()))


def plain_identification(answer: Identification) -> dict[str, Any]:
    """What ``Identification.to_dict`` gives, without its copies."""
    return {**vars(answer), "neighbours": [vars(neighbor) for neighbor in answer.neighbours]}


@dataclass(frozen=True)
class IdentifyFinish:
    """Searches a gallery for all images of a batch, and records the decisions. Equal for equal parameters."""

    resource: GalleryResource
    k: int
    rule: str | None
    log: DecisionLog
    metrics: Metrics
    vectors: VectorCache
    where: Filter | None = None

    def __call__(
        self, vectors_ND: np.ndarray, contexts: Sequence[tuple[Upload, RequestContext]]
    ) -> list[dict[str, Any]]:
        """One answer for each embedding; the decisions are committed."""
        where = None if self.where is None else dict(self.where)
        identifications = self.resource.recognizer.identify_vectors(vectors_ND, self.k, self.rule, where)
        answers, records = [], []
        for (upload, context), answer, vector_D in zip(contexts, identifications, vectors_ND, strict=True):
            if upload.sha is not None:  # it is kept: a review need not compute its embedding again
                self.vectors.put(self.resource, upload.sha, vector_D)
            plain = plain_identification(answer) | ({} if where is None else {"where": where})
            record = DecisionRecord(
                "identify", self.resource.name, answer.decision, answer.label, answer.nearest, answer.score,
                answer.threshold, answer.margin, answer.calibrated, answer.stale, self.resource.network.key, upload.sha,
                file_name(upload.name), context.id, context.actor, plain,
            )  # fmt: skip
            records.append(record)
            answers.append({"path": display_name(upload.name), "id": record.id, **plain})
        self.log.add(records)
        for answer in identifications:
            self.metrics.add_decision(self.resource.name, answer.decision, answer.score)
        return answers


def require_images(form: Form) -> list[Upload]:
    """The images of a form. Raises Problem (422) where there is none."""
    if not form.images:
        raise Problem(422, "no-images", "no images", expected="an image", remedy="curl -F image=@photo.jpg ...")
    return form.images


def separate(
    uploads: Sequence[Upload], results: Sequence[dict[str, Any] | UnreadableImage]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The answers of readable images, and the reasons of the others; each with ``index``, its place in the request.

    Raises:
        UnreadableImage: the only image cannot be read.
    """
    answers: list[dict[str, Any]] = []
    unreadable: list[dict[str, Any]] = []
    for index, (upload, result) in enumerate(zip(uploads, results, strict=True)):
        if not isinstance(result, UnreadableImage):
            answers.append({"index": index, **result})
        elif len(results) == 1:
            raise result
        else:
            unreadable.append({"index": index, "path": display_name(upload.name), "reason": str(result)})
    return answers, unreadable


class Recognition:
    """The two endpoints.

    Args:
        service: what they share with the others.
    """

    def __init__(self, service: Service) -> None:
        self.service = service

    async def identify(self, request: Request, name: str | None) -> Response:
        """Label images by a gallery: a class, ambiguous or unknown, with the nearest references."""
        service = self.service
        resource = service.gallery(request, name)
        form = await service.read_images(request, resource.network)
        parameters = Parameters(form.values)
        k, rule = parameters.integer("k", 3, 1, MAX_NEIGHBORS), parameters.choice("rule", RULES)
        where = read_filter(parameters)
        parameters.finish()
        uploads = require_images(form)
        finish = IdentifyFinish(resource, k, rule, service.decision_log, service.metrics, service.vectors, where)
        contexts = [(upload, context_of(request)) for upload in uploads]
        results = await service.embed(
            request, uploads, resource.network, resource.view, finish, contexts, keep=service.settings.keep_images
        )
        answers, unreadable = separate(uploads, results)
        response = json_response({
            "gallery": resource.name, "engine": resource.network.description, "index": resource.index_description,
            "answers": answers, "unreadable": unreadable,
        })  # fmt: skip
        if where is None and service.shadows.has_shadow(resource.name):  # a shadow answers from all references
            images = [SampledImage(answer["id"], uploads[answer["index"]].content, rule) for answer in answers]
            response.background = BackgroundTask(service.shadows.offer, resource, images)  # after it is sent
        return response

    async def embed(self, request: Request, name: str | None) -> Response:
        """Compute the vectors of images."""
        service = self.service
        resource = service.gallery(request, name)
        form = await service.read_images(request, resource.network)
        Parameters(form.values).finish()
        uploads = require_images(form)
        finish = EmbedFinish()
        results = await service.embed(request, uploads, resource.network, resource.view, finish, uploads)
        rows = [
            result
            if isinstance(result, UnreadableImage)
            else {"path": display_name(upload.name), "vector": result.tolist()}
            for upload, result in zip(uploads, results, strict=True)
        ]
        vectors, unreadable = separate(uploads, rows)
        return json_response({
            "model": resource.network.model.source.name, "dim": resource.network.engine.dim, "vectors": vectors,
            "unreadable": unreadable,
        })  # fmt: skip


def recognition_router(service: Service) -> APIRouter:
    """The endpoints, with their document."""
    from fastapi import APIRouter

    from unalike.serve.answers import EmbedModel, IdentifyModel
    from unalike.serve.documents import add_scoped, image_body

    router, recognition = APIRouter(), Recognition(service)
    images = {"image": "One or several images."}
    add_scoped(router, "POST", "galleries", "/identify", recognition.identify, answer=IdentifyModel, summary="Label images by a gallery.",
               extra=image_body(images, {"k": _K, "rule": _RULE, "where": WHERE}))  # fmt: skip
    add_scoped(router, "POST", "galleries", "/embed", recognition.embed, answer=EmbedModel, summary="Compute the vectors of images.",
               extra=image_body(images))  # fmt: skip
    return router
