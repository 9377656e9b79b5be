"""Endpoints ``trainings`` and ``training-data``: train a candidate from what the service holds, with its curves and report."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from html import escape
from typing import Any
from urllib.parse import urlencode

import sqlalchemy as sa
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.serve.changes import Change, carry_out, request_digest
from unalike.serve.documents import json_body, problems, query_parameters
from unalike.serve.learning.candidate import check_data
from unalike.serve.problems import Problem
from unalike.serve.resources import GalleryResource
from unalike.serve.routes.tasks import (
    MAX_BODY,
    TaskId,
    TaskModel,
    TaskPage,
    add_task,
    find_task,
    list_tasks,
    plain_task,
)
from unalike.serve.service import Service, json_response
from unalike.serve.store import TaskRecord
from unalike.serve.store.learning import TRAIN
from unalike.serve.store.records import MAX_PAGE
from unalike.serve.uploads import Parameters, parse_json, read_body
from unalike.spec.automl import MAX_MINUTES
from unalike.storage.digests import content_sha256

GOALS = ("new-classes", "known-classes", "both")
# More images than this are counted, and not decoded, by a check that somebody waits for.
MAX_DECODED = 2000
# A report is one file with its own styles; it has no script and may load nothing.
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"


class TrainingModel(TaskModel):
    curves: dict[str, list[tuple[float, float]]] = Field(description="Figure -> points (step, value).")
    report: str | None = Field(description="Address of the report; null before there is one.")


class DataCheck(BaseModel):
    gallery: str
    decoded: bool = Field(description="Whether every image was decoded, so that unreadable ones are found.")
    images: int
    classes: int
    sources: dict[str, int]
    largest_class: int
    smallest_class: int
    single: dict[str, Any] = Field(description="Classes of one image.")
    duplicates: int
    conflicts: dict[str, Any] = Field(description="Images with two labels.")
    unreadable: dict[str, Any]
    missing: dict[str, Any] = Field(description="References without a picture.")


class TrainingFolders(BaseModel):
    folders: list[str] = Field(description="Names of the folders that trainings may take images from.")


class TrainingUpload(BaseModel):
    upload: str = Field(description="Id of the upload, for a training.")


_TEXT = {"type": ["string", "null"]}
_DATA = {
    "gallery": {**_TEXT, "description": "Name of the gallery; null: the default one."},
    "folder": {**_TEXT, "description": "Name of a folder of GET /v1/training-data."},
    "upload": {**_TEXT, "description": "Id of POST /v1/training-data."},
    "with_service": {
        "type": "boolean",
        "default": True,
        "description": "The references and corrections of the service.",
    },
}
_TRAINING = {
    **_DATA,
    "minutes": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_MINUTES, "default": 10},
    "goal": {"type": "string", "enum": list(GOALS), "default": "both"},
    "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "default": 0.3,
              "description": "Of the images that the model in service has not seen, withheld to compare with it."},
    "name": {**_TEXT, "description": "What the candidate is called."},
}  # fmt: skip


def training_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["learning"])
    _add_data(service, router)
    _add_trainings(service, router)
    return router


def _add_data(service: Service, router: APIRouter) -> None:
    desk = service.learning

    @router.get("/v1/training-data", response_class=Response, summary="Folders that trainings may take images from.",
                responses={**problems(), 200: {"model": TrainingFolders}})  # fmt: skip
    async def folders(request: Request) -> Response:
        return json_response({"folders": list(desk.folders)})

    archive = {"schema": {"type": "string", "format": "binary"}}

    @router.post("/v1/training-data", response_class=Response, status_code=201, summary="Upload a ZIP archive of class folders for a training.",
                 responses={**problems(), 201: {"model": TrainingUpload}},
                 openapi_extra={"requestBody": {"required": True, "content": {"application/zip": archive}}})  # fmt: skip
    async def upload(request: Request) -> Response:
        content = await read_body(request, service.limits.max_bytes)

        async def perform(change: Change) -> tuple[int, Any]:
            answer = {"upload": await asyncio.to_thread(desk.keep_upload, content)}
            await complete(service, change, 201, answer)
            return 201, answer

        return await carry_out(service, request, request_digest(request, {"content": content_sha256(content)}), perform)

    @router.post("/v1/trainings/checks", response_class=Response, summary="Count and check the images of a training.",
                 responses={**problems(), 200: {"model": DataCheck}}, openapi_extra=json_body(_DATA))  # fmt: skip
    async def check(request: Request) -> Response:
        parameters = Parameters(parse_json(await read_body(request, MAX_BODY) or b"{}"))
        values = _data_values(parameters)
        parameters.finish()
        resource = service.gallery(request, values.pop("gallery"))
        return json_response(await asyncio.to_thread(check_values, service, resource, values))


def check_values(service: Service, resource: GalleryResource, values: dict[str, Any]) -> dict[str, Any]:
    """What is wrong with the images of a training; in a thread. Raises DataError."""
    options, place = service.learning.training_options(values), service.learning.place(resource)
    images, report = check_data(place, options, decode=False)
    is_decoded = len(images) <= MAX_DECODED
    if is_decoded:
        report = check_data(place, options)[1]
    return {"gallery": resource.name, "decoded": is_decoded, **report.to_dict()}


def _data_values(parameters: Parameters) -> dict[str, Any]:
    return {
        "gallery": parameters.text("gallery", most=64), "folder": parameters.text("folder", most=64),
        "upload": parameters.text("upload", most=64), "with_service": parameters.boolean("with_service", True),
    }  # fmt: skip


def _add_trainings(service: Service, router: APIRouter) -> None:
    desk = service.learning

    @router.post("/v1/trainings", response_class=Response, status_code=202, summary="Train a candidate.",
                 responses={**problems(409), 202: {"model": TaskModel}}, openapi_extra=json_body(_TRAINING))  # fmt: skip
    async def train(request: Request) -> Response:
        values = parse_json(await read_body(request, MAX_BODY) or b"{}")
        parameters = Parameters(values)
        options = _data_values(parameters)
        options |= {
            "minutes": parameters.number("minutes", 10.0, 1e-3, MAX_MINUTES), "goal": parameters.choice("goal", GOALS) or "both",
            "share": parameters.number("share", 0.3, 1e-6, 1 - 1e-6), "name": parameters.text("name", "", most=200) or "",
        }  # fmt: skip
        parameters.finish()
        resource = service.gallery(request, options.pop("gallery"))
        await asyncio.to_thread(desk.training_options, options)  # its folder or upload exists
        return await begin_task(service, request, values, TRAIN, resource, options)

    page = query_parameters(
        gallery={"type": "string"}, after={"type": "string"}, limit={"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 100}
    )  # fmt: skip

    @router.get("/v1/trainings", response_class=Response, summary="List trainings, the newest first.",
                responses={**problems(), 200: {"model": TaskPage}}, openapi_extra=page)  # fmt: skip
    async def trainings(request: Request) -> Response:
        parameters = Parameters.of_query(request)
        gallery, after = parameters.text("gallery", most=64), parameters.text("after", most=64)
        limit = parameters.integer("limit", 100, 1, MAX_PAGE)
        parameters.finish()
        return json_response(await list_tasks(service, request, (TRAIN,), gallery, after, limit))

    @router.get("/v1/trainings/{id}", response_class=Response, summary="One training with its curves.",
                responses={**problems(), 200: {"model": TrainingModel}})  # fmt: skip
    async def training(request: Request, id: TaskId) -> Response:
        record = await find_task(service, request, id, TRAIN)
        report, curves = await asyncio.to_thread(lambda: (desk.report(id), desk.curves(id)))
        address = None if report is None else f"/v1/trainings/{record.id}/report"
        return json_response({**plain_task(record), "curves": curves, "report": address})

    @router.get("/v1/trainings/{id}/report", response_class=Response, summary="The report of a training.",
                responses={**problems(), 200: {"content": {"text/html": {}}, "description": "The report."}})  # fmt: skip
    async def report(request: Request, id: TaskId) -> Response:
        record = await find_task(service, request, id, TRAIN)
        content = await asyncio.to_thread(desk.report, record.id)
        if content is None:
            raise Problem(404, "no-report", "the training has no report yet", remedy="ask again when it is done")
        headers = {"Content-Security-Policy": REPORT_POLICY}
        return Response(
            _with_way_back(content, record.resource), headers=headers, media_type="text/html; charset=utf-8"
        )


def _with_way_back(report: bytes, gallery: str) -> bytes:
    """A report with a link to the page Train at its beginning."""
    address = f"/train?{urlencode({'gallery': gallery})}"
    return report.replace(
        b"<main>", f'<main>\n<p><a href="{escape(address)}">Back to the page Train</a></p>'.encode(), 1
    )


async def begin_task(
    service: Service, request: Request, values: Any, kind: str, resource: GalleryResource, options: dict[str, Any]
) -> Response:
    """Ask for a task of a gallery once, and answer with it. Raises Problem (409) while the same one waits or runs."""

    def add(change: Change, connection: sa.Connection) -> TaskRecord:
        context = change.context
        for task in service.store.tasks.find_open(kind, resource.name, connection=connection):
            if _is_same(kind, task.options, options):
                raise Problem(409, "task-open", f"the same task of kind {kind} {task.state} already: {task.id}", expected="one at a time",
                              remedy=f"wait for it (GET /v1/tasks/{task.id})")  # fmt: skip
        return service.learning.begin(kind, resource, options, context.actor, context.id, connection)

    return await add_task(service, request, values, "tasks.begin", resource.name, {"kind": kind}, add)


def _is_same(kind: str, options: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether two tasks of a kind and a gallery are about the same: trainings with all their options, all else by its model."""
    return dict(options) == dict(others) if kind == TRAIN else options.get("model") == others.get("model")


async def complete(service: Service, change: Change, status: int, answer: Any) -> None:
    """Keep the answer for those who repeat the request."""
    if change.claim is not None:
        change.is_applied = True
        body = json.dumps(answer, ensure_ascii=True)
        await asyncio.to_thread(service.store.idempotency.complete, change.claim, status, body)
