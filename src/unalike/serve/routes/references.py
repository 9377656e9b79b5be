"""Endpoints ``references``: list, enroll, remove; the picture of each, also small.

Shape letters: N images, D width of an embedding.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.data.class_names import normalize_class_name
from unalike.data.decode import IMAGE_SUFFIXES, open_image
from unalike.errors import NoSuchImage, UnreadableImage
from unalike.recognition.attributes import NO_ATTRIBUTES, Attributes, check_attributes
from unalike.recognition.backends.protocol import Entry, GalleryBackend, pages
from unalike.serve.batching import EmbedFinish
from unalike.serve.changes import Change, apply, bounded, carry_out, request_digest
from unalike.serve.documents import add_scoped, image_body, problems, query_parameters
from unalike.serve.problems import Problem
from unalike.serve.resources import GalleryResource
from unalike.serve.routes.classes import (
    MAX_LABEL,
    MAX_PAGE,
    PAGE_PARAMETERS,
    check_new_classes,
    no_class,
    require_classes,
)
from unalike.serve.routes.decisions import decision_upload, image_response, stored_image
from unalike.serve.routes.recognition import WHERE, read_filter, require_images
from unalike.serve.service import Service, json_response
from unalike.serve.store.images import SIDES, check_sha
from unalike.serve.store.references import hash_of_reference, reference_name
from unalike.serve.uploads import Form, Parameters, Upload, too_many_files

MAX_ID = 2**63 - 1
ReferenceId = Annotated[int, Path(description="Id of the reference.", ge=0, le=MAX_ID)]
_LABEL: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": MAX_LABEL}


class ReferenceModel(BaseModel):
    id: int = Field(description="Number of the reference, never used again.")
    label: str
    name: str = Field(description="What it was enrolled as: sha256:HASH/TOKEN, or a path.")
    attributes: dict[str, str] = Field(description="Such as its site or season, by which searches are filtered.")
    image: str | None = Field(description="Address of its picture; null where the service has none.")


class ReferencePage(BaseModel):
    gallery: str
    references: list[ReferenceModel]
    next: str | None


class Enrollment(BaseModel):
    gallery: str
    references: list[ReferenceModel]
    images: int = Field(description="Number of all references of the gallery.")
    already_there: int = Field(
        description="With `skip_known`: number of the images that were left out, since they are references of their class."
    )


class ReferenceRemoval(BaseModel):
    gallery: str
    images: int = Field(description="Number of references that were removed.")


def plain_reference(resource: GalleryResource, entry: Entry) -> dict[str, Any]:
    """A reference as JSON."""
    has_picture = hash_of_reference(entry.name) is not None or _is_image_path(entry.name)
    image = f"/v1/galleries/{resource.name}/references/{entry.id}/image" if has_picture else None
    attributes = dict(entry.attributes)
    return {"id": entry.id, "label": entry.label, "name": entry.name, "attributes": attributes, "image": image}


def _is_image_path(name: str) -> bool:
    return FilePath(name).suffix.lower() in IMAGE_SUFFIXES


def reference_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter()
    _add_list(service, router)
    _add_enrollment(service, router)
    _add_single(service, router)
    return router


def _add_list(service: Service, router: APIRouter) -> None:
    async def references(request: Request, name: str | None) -> Response:
        """List references by id, those of one class with ``label``, those with attributes by ``where``."""
        resource = service.gallery(request, name)
        parameters = Parameters.of_query(request)
        after, limit = parameters.integer("after", -1, -1, MAX_ID), parameters.integer("limit", 100, 1, MAX_PAGE)
        label, where = parameters.text("label", most=MAX_LABEL), read_filter(parameters)
        parameters.finish()

        def find() -> list[Entry]:
            with resource.gallery.view() as view:
                counts = view.counts() if label is not None else {}
                if label is not None and normalize_class_name(label) not in counts:
                    raise no_class(label, list(counts))
                return list(view.entries(label, after, limit + 1, None if where is None else dict(where)))

        entries = await asyncio.to_thread(find)
        page = entries[:limit]
        return json_response({
            "gallery": resource.name, "references": [plain_reference(resource, entry) for entry in page],
            "next": str(page[-1].id) if len(entries) > limit else None,
        })  # fmt: skip

    add_scoped(router, "GET", "galleries", "/references", references, answer=ReferencePage, summary="List references.",
               extra=query_parameters(label=_LABEL, where={"type": "string", "description": WHERE["description"]}, **{**PAGE_PARAMETERS, "after": {"type": "integer", "minimum": -1}}))  # fmt: skip


def _add_enrollment(service: Service, router: APIRouter) -> None:
    async def enroll(request: Request, name: str | None) -> Response:
        """Enroll images as references of a class; their pictures are kept. All are enrolled, or none.

        In place of images, ``decision`` names a decision whose image is enrolled, or ``pictures`` content hashes of pictures that the
        service keeps, such as those of references that were removed.
        """
        resource = service.gallery(request, name)
        form = await service.read_images(request, resource.network)
        parameters = Parameters(form.values)
        await _add_own_images(service, request, parameters, form)
        labels = _labels(parameters, form)
        attributes = check_attributes(parameters.mapping("attributes") or NO_ATTRIBUTES)
        must_exist, skip_known = parameters.boolean("require_class"), parameters.boolean("skip_known")
        parameters.finish()
        await check_new_classes(resource, labels)
        uploads = require_images(form)
        required = sorted(set(labels)) if must_exist else []
        values = {"label": labels, "require_class": must_exist, "skip_known": skip_known}
        values |= {"attributes": attributes} if attributes else {}

        async def perform(change: Change) -> tuple[int, Any]:
            if change.claim is None or not change.claim.is_retry:  # before any work; it is looked at again below
                await asyncio.to_thread(require_classes, resource.gallery, required)
            vectors_ND = await embed_references(service, request, resource, uploads)
            hashes = await _keep_all(service, uploads)
            names = [reference_name(sha, change.token(number)) for number, sha in enumerate(hashes)]
            batch = _Batch(vectors_ND, labels, names, required, skip_known, attributes)
            return await asyncio.to_thread(_enroll, service, resource, change, batch)

        return await carry_out(service, request, request_digest(request, values, uploads), perform)

    parameters = {
        "label": {**_LABEL, "description": "Class of all images."},
        "decision": {"type": "string", "description": "Id of a decision whose image is enrolled, in place of images."},
        "pictures": {"type": "array", "items": {"type": "string"}, "description": "Content hashes of pictures that the service "
                     "keeps, in place of images."},
        "attributes": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Attributes of all images, as JSON, "
                       "by which searches are filtered, such as {\"site\": \"berlin\"}."},
        "require_class": {"type": "boolean", "default": False, "description": "Refuse with 404 where there is no such class, such "
                          "as one that somebody renamed in the meantime; otherwise its first image makes it."},
        "skip_known": {"type": "boolean", "default": False, "description": "Leave out images that are references of their class "
                       "with these attributes already, others perhaps beside, by content; the answer counts them. An import that was broken off goes on with it."},
    }  # fmt: skip
    add_scoped(router, "POST", "galleries", "/references", enroll, answer=Enrollment, status=201, statuses=[409],
               summary="Enroll images as references of a class.", extra=image_body({"image": "Images of the class."}, parameters, required=()))  # fmt: skip


@dataclass(frozen=True)
class _Batch:
    """What one request enrolls.

    Attributes:
        vectors_ND: embeddings.
        labels, names: of each image.
        required: classes that the gallery must have.
        skip_known: whether images that are references of their class with these attributes are left out.
        attributes: of all images.
    """

    vectors_ND: np.ndarray
    labels: Sequence[str]
    names: Sequence[str]
    required: Sequence[str]
    skip_known: bool
    attributes: Attributes

    def put(self, gallery: GalleryBackend, is_retry: bool) -> list[Entry]:
        """Put the images into a gallery, those of a repeated request once. Raises Problem (404)."""
        numbers = range(len(self.names))
        if is_retry and (earlier := [number for number in numbers if gallery.has_name(self.names[number])]):
            ids = [gallery.ids_of_name(self.names[number])[0] for number in earlier]  # before the process was killed
            return self._entries(earlier, ids)
        require_classes(gallery, self.required)
        numbers_to_add = self._unknown(gallery) if self.skip_known else list(numbers)
        if not numbers_to_add:
            return []
        labels, names = ([values[number] for number in numbers_to_add] for values in (self.labels, self.names))
        return self._entries(
            numbers_to_add, gallery.enrol(self.vectors_ND[numbers_to_add], labels, names, self.attributes)
        )

    def _unknown(self, gallery: GalleryBackend) -> list[int]:
        """Numbers of the images that are no references of their class with these attributes, others perhaps beside; each content once."""
        with gallery.view() as view:
            counts = view.counts()
            entries = [entry for label in set(self.labels) if label in counts for entry in pages(view, label)]
        references = {
            (entry.label, hash_of_reference(entry.name))
            for entry in entries
            if self.attributes.items() <= entry.attributes.items()
        }
        numbers_to_add = []
        for number, image in enumerate(zip(self.labels, map(hash_of_reference, self.names), strict=True)):
            if image not in references:
                references.add(image)
                numbers_to_add.append(number)
        return numbers_to_add

    def _entries(self, numbers: Sequence[int], ids: Sequence[int]) -> list[Entry]:
        return [
            Entry(id, self.labels[number], self.names[number], self.attributes)
            for number, id in zip(numbers, ids, strict=True)
        ]


def _enroll(service: Service, resource: GalleryResource, change: Change, batch: _Batch) -> tuple[int, Any]:
    """Put references into a gallery; in a thread."""
    decoding = resource.view.decoding

    def function(gallery: GalleryBackend) -> list[Entry]:
        own = gallery.model_identity.decoding
        gallery.model_identity = gallery.model_identity.with_decoding(own.completed(decoding))
        return batch.put(gallery, change.claim is not None and change.claim.is_retry)

    def answer(entries: list[Entry]) -> tuple[int, Any]:
        plain = [plain_reference(resource, entry) for entry in entries]
        rest = len(batch.names) - len(entries)
        return 201, {
            "gallery": resource.name,
            "references": plain,
            "images": len(resource.gallery),
            "already_there": rest,
        }

    details = {"labels": bounded(sorted(set(batch.labels))), "images": len(batch.labels)}
    if batch.attributes:
        details["attributes"] = dict(batch.attributes)
    if batch.skip_known:
        details["skip_known"] = True
    return apply(service, resource, change, "references.add", details, function, answer)


def _add_single(service: Service, router: APIRouter) -> None:
    """The endpoints of one reference, with its id in the address."""

    async def find(resource: GalleryResource, id: int) -> Entry:
        entry = await asyncio.to_thread(resource.gallery.entry, id)
        if entry is None:
            raise no_reference(id)
        return entry

    async def reference(request: Request, name: str | None, id: int) -> Response:
        resource = service.gallery(request, name)
        return json_response(plain_reference(resource, await find(resource, id)))

    async def picture(request: Request, name: str | None, id: int) -> Response:
        resource = service.gallery(request, name)
        entry = await find(resource, id)
        sha = hash_of_reference(entry.name)
        if sha is not None:
            return await stored_image(service, request, sha)
        return await asyncio.to_thread(_picture_of_path, service, request, entry)

    async def remove(request: Request, name: str | None, id: int) -> Response:
        return await _remove(service, request, service.gallery(request, name), id)

    image: dict[int | str, dict[str, Any]] = {
        200: {"description": "The picture.", "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
    }
    side = query_parameters(side={"type": "integer", "minimum": 1, "maximum": SIDES[-1]})
    endpoints: tuple[tuple[str, str, Any, str, dict[int | str, dict[str, Any]], Any], ...] = (
        ("GET", "", reference, "One reference.", {200: {"model": ReferenceModel}}, None),
        ("GET", "/image", picture, "The picture of a reference, small as JPEG with `side`.", image, side),
        ("DELETE", "", remove, "Remove one reference.", {200: {"model": ReferenceRemoval}, **problems(409)}, None),
    )
    for method, path, handler, summary, responses, extra in endpoints:
        _add_with_id(router, method, path, handler, summary, responses, extra)


async def _remove(service: Service, request: Request, resource: GalleryResource, id: int) -> Response:
    """Remove one reference, once."""

    async def perform(change: Change) -> tuple[int, Any]:
        def function(gallery: GalleryBackend) -> int:
            if gallery.entry(id) is not None:
                return gallery.remove(ids=[id])
            if change.claim is not None and change.claim.is_retry:
                return 1  # removed before the process was killed
            raise no_reference(id)

        def answer(count: int) -> tuple[int, Any]:
            return 200, {"gallery": resource.name, "images": count}

        details = {"id": id}
        return await asyncio.to_thread(apply, service, resource, change, "references.remove", details, function, answer)

    return await carry_out(service, request, request_digest(request, {"id": id}), perform)


def _add_with_id(
    router: APIRouter,
    method: str,
    path: str,
    handler: Any,
    summary: str,
    responses: dict[int | str, dict[str, Any]],
    extra: Any,
) -> None:
    async def default(request: Request, id: ReferenceId) -> Response:
        result: Response = await handler(request, None, id)
        return result

    async def named(
        request: Request, name: Annotated[str, Path(description="Name of the gallery.")], id: ReferenceId
    ) -> Response:
        result: Response = await handler(request, name, id)
        return result

    for prefix, endpoint in (("", default), ("/galleries/{name}", named)):
        router.add_api_route(
            f"/v1{prefix}/references/{{id}}{path}", endpoint, methods=[method], summary=summary, tags=["references"],
            responses={**problems(), **responses}, openapi_extra=extra, response_class=Response,
            operation_id=f"{method.lower()}_reference{path.replace('/', '_')}{'_of_galleries' if prefix else ''}",
        )  # fmt: skip


def no_reference(id: int) -> Problem:
    """The problem of an id that no reference has."""
    return Problem(404, "no-reference", f"no reference {id}", expected="an id from GET /v1/references")


async def _add_own_images(service: Service, request: Request, parameters: Parameters, form: Form) -> None:
    """Put the images of the service that a request names into its form. Raises Problem (404, 413, 422), NoSuchImage.

    Who knows the hash of a picture has had the picture, and could send it again.
    """
    decision_id, hashes = parameters.text("decision", most=64), parameters.texts("pictures")
    if sum((bool(form.images), decision_id is not None, bool(hashes))) > 1:
        raise Problem(422, "invalid-value", "several of images, a decision and pictures", expected="one of them")
    if len(hashes) > service.limits.max_files:
        raise too_many_files(len(hashes), service.limits.max_files)
    if decision_id is not None:
        form.images.append(await decision_upload(service, request, decision_id))
    for sha in hashes:
        form.images.append(Upload(sha, await asyncio.to_thread(service.store.images.get, check_sha(sha))))


def _labels(parameters: Parameters, form: Form) -> list[str]:
    """The class of each image. Raises Problem (422)."""
    label, labels = parameters.text("label", most=MAX_LABEL), parameters.texts("labels")
    if labels and len(labels) != len(form.images):
        raise Problem(
            422, "invalid-value", f"{len(labels)} labels for {len(form.images)} images", expected="one for each image"
        )
    names = labels or [label or ""] * len(form.images)
    if not all(name.strip() and len(name) <= MAX_LABEL for name in names):
        raise Problem(422, "invalid-value", "no label", expected="label: the class of the images",
                      remedy="curl -F image=@photo.jpg -F label=CLASS ...")  # fmt: skip
    return [normalize_class_name(name) for name in names]


async def embed_references(
    service: Service, request: Request, resource: GalleryResource, uploads: Sequence[Upload]
) -> np.ndarray:
    """The embeddings (N, D) of images, all of them readable. Raises UnreadableImage."""
    if not resource.view.decoding.is_complete:
        await asyncio.to_thread(_fit_decoding, resource, uploads)
    vectors = await service.embed(request, uploads, resource.network, resource.view, EmbedFinish(), uploads)
    for result in vectors:
        if isinstance(result, UnreadableImage):
            raise result
    return np.stack(vectors)


def _fit_decoding(resource: GalleryResource, uploads: Sequence[Upload]) -> None:
    """Choose what the first images of a gallery leave open of the decoding."""
    resource.recognizer.fit_decoding([upload.content for upload in uploads])


async def _keep_all(service: Service, uploads: Sequence[Upload]) -> list[str]:
    """Keep the pictures, on the disk; their content hashes."""
    loop = asyncio.get_running_loop()
    puts = [loop.run_in_executor(service.keepers, service.store.images.put, upload.content) for upload in uploads]
    return list(await asyncio.gather(*puts))


def _picture_of_path(service: Service, request: Request, entry: Entry) -> Response:
    """The picture of a reference that the command line enrolled: the file of its name, where it can be read."""
    parameters = Parameters.of_query(request)
    side = parameters.integer("side", 0, 1, SIDES[-1]) if "side" in request.query_params else 0
    parameters.finish()
    if not _is_image_path(entry.name):
        raise NoSuchImage(
            f"reference {entry.id} has no picture", expected="one that was enrolled by the service, or an image file"
        )
    try:
        size = (side, side) if side else None
        picture = open_image(entry.name, min_size=size, max_pixels=service.settings.max_pixels)
        if not side:
            return image_response(FilePath(entry.name).read_bytes())
    except (UnreadableImage, OSError) as error:
        raise NoSuchImage(f"the picture of reference {entry.id} cannot be read",
                          expected="the file under which it was enrolled") from error  # fmt: skip
    picture.thumbnail((side, side))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=85)
    return image_response(stream.getvalue(), "image/jpeg")
