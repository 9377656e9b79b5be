"""Endpoints ``tasks``: what the service does beside its requests, such as trainings and fits of inspectors, and how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from unalike.serve.changes import Change, apply_in_store, carry_out, request_digest
from unalike.serve.documents import problems, query_parameters
from unalike.serve.inspector_fits import KIND as FIT
from unalike.serve.model_files import read_log
from unalike.serve.problems import Problem
from unalike.serve.request_context import RequestContext, context_of
from unalike.serve.security import ADMIN
from unalike.serve.service import Service, json_response
from unalike.serve.store import TaskRecord
from unalike.serve.store.learning import COMPARE, LEARNING_KINDS, TRAIN
from unalike.serve.store.records import MAX_PAGE, TASK_STATES
from unalike.serve.uploads import Parameters, read_body

MAX_BODY = 1 << 16
KINDS = (FIT, *LEARNING_KINDS)
# Kinds that may be canceled: what the others change cannot be left in the middle.
CANCELABLE = (FIT, TRAIN, COMPARE)
# Options that are paths of the server, and lists of which the number is told.
_PATHS, _LISTS = ("data", "source", "target", "network"), ("images", "defects")
TaskId = Annotated[str, Path(description="Id of the task.")]


class TaskModel(BaseModel):
    id: str
    kind: str = Field(json_schema_extra={"enum": list(KINDS)})
    resource: str = Field(description="Name of the gallery that it is about, or of the inspector that becomes of it.")
    options: dict[str, Any] = Field(description="What was asked for; of lists of images their number.")
    actor: str
    request_id: str
    created: str
    started: str | None
    finished: str | None
    state: str = Field(json_schema_extra={"enum": list(TASK_STATES)})
    attempts: int = Field(description="How often it was begun: again, where the process that did it ended.")
    max_attempts: int
    step: str = Field(description="What is being done.")
    count: int = Field(description="How much of the step is done.")
    total: int
    result: dict[str, Any]
    error: str = Field(description="Why it failed or was canceled.")


class TaskPage(BaseModel):
    tasks: list[TaskModel]
    next: str | None


def plain_task(record: TaskRecord) -> dict[str, Any]:
    """A task as JSON, without paths, and without what only its process needs."""
    values = record.to_dict()
    for name in ("token", "lease_end"):
        del values[name]
    options = {
        name: len(value) if name in _LISTS else value
        for name, value in record.options.items() if name not in _PATHS
    }  # fmt: skip
    return values | {"options": options}


def task_router(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter(tags=["tasks"])
    _add_list(service, router)
    _add_single(service, router)
    _add_cancel(service, router)
    return router


def _add_list(service: Service, router: APIRouter) -> None:
    @router.get("/v1/tasks", response_class=Response, summary="List tasks, the newest first.",
                responses={**problems(), 200: {"model": TaskPage}},
                openapi_extra=query_parameters(
                    kind={"type": "string", "enum": list(KINDS)}, resource={"type": "string"}, after={"type": "string"},
                    limit={"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 100},
                ))  # fmt: skip
    async def tasks(request: Request) -> Response:
        parameters = Parameters.of_query(request)
        kind, resource = parameters.choice("kind", KINDS), parameters.text("resource")
        after, limit = parameters.text("after", most=64), parameters.integer("limit", 100, 1, MAX_PAGE)
        parameters.finish()
        return json_response(await list_tasks(service, request, (kind,) if kind else KINDS, resource, after, limit))


async def list_tasks(
    service: Service, request: Request, kinds: tuple[str, ...], resource: str | None, after: str | None, limit: int
) -> dict[str, Any]:
    """A page of tasks that the key of a request may see."""
    only = context_of(request).gallery
    if only is not None:
        kinds, resource = (
            tuple(kind for kind in kinds if kind in LEARNING_KINDS),
            service.gallery(request, resource or only).name,
        )
    page = await asyncio.to_thread(service.store.tasks.find, kinds, after, limit, resource=resource)
    return {"tasks": [plain_task(record) for record in page.items], "next": page.next}


def _add_single(service: Service, router: APIRouter) -> None:
    @router.get("/v1/tasks/{id}", response_class=Response, summary="How far a task is, or how it ended.",
                responses={**problems(), 200: {"model": TaskModel}})  # fmt: skip
    async def task(request: Request, id: TaskId) -> Response:
        return json_response(plain_task(await find_task(service, request, id)))

    @router.get("/v1/tasks/{id}/log", response_class=Response, summary="The end of the log of a task.",
                responses={**problems(), 200: {"content": {"text/plain": {}}, "description": "The log."}})  # fmt: skip
    async def log(request: Request, id: TaskId) -> Response:
        record = await find_task(service, request, id)
        text = await asyncio.to_thread(read_log, service.store.folder, record.id)
        return Response(text, media_type="text/plain; charset=utf-8")


def _add_cancel(service: Service, router: APIRouter) -> None:
    tasks = service.store.tasks

    @router.post("/v1/tasks/{id}/cancel", response_class=Response, summary="Cancel a fit, a training or a comparison.",
                 responses={**problems(409), 200: {"model": TaskModel}})  # fmt: skip
    async def cancel(request: Request, id: TaskId) -> Response:
        await read_body(request, MAX_BODY)
        record = await find_task(service, request, id)
        _require_cancel(context_of(request), record)

        def function(connection: sa.Connection) -> tuple[int, Any]:
            if not tasks.cancel(id, connection=connection):
                raise Problem(409, "task-over", "the task is over", expected="one that waits or runs",
                              remedy="GET /v1/tasks/ID says how it ended")  # fmt: skip
            canceled_record = tasks.get(id, connection=connection)
            assert canceled_record is not None
            return 200, plain_task(canceled_record)

        async def perform(change: Change) -> tuple[int, Any]:
            details = {"id": id, "kind": record.kind}
            return await asyncio.to_thread(
                apply_in_store, service, change, "tasks.cancel", record.resource, details, function
            )

        return await carry_out(service, request, request_digest(request, {"id": id}), perform)


def _require_cancel(context: RequestContext, record: TaskRecord) -> None:
    """Refuse to cancel what another role began, or what cannot be left in the middle. Raises Problem (403, 409)."""
    if record.kind != FIT and context.role != ADMIN:
        raise Problem(
            403, "forbidden", f"the key {context.actor!r} has the role {context.role}", expected=f"the role {ADMIN}"
        )
    if record.kind not in CANCELABLE:
        raise Problem(409, "not-cancelable", f"a task of kind {record.kind} is not canceled", expected="a fit, a training or a comparison",
                      remedy="wait for it, and take it back")  # fmt: skip


async def find_task(service: Service, request: Request, task_id: str, kind: str | None = None) -> TaskRecord:
    """A task that the key of a request may see. Raises Problem (404)."""
    record = await asyncio.to_thread(service.store.tasks.get, task_id)
    only = context_of(request).gallery
    if (
        record is None
        or kind not in (None, record.kind)
        or (only is not None and (record.kind not in LEARNING_KINDS or record.resource != only))
    ):
        raise Problem(
            404, "no-task", f"no task {task_id[:64]!r}" if kind is None else f"no task {task_id[:64]!r} of kind {kind}",
            expected="an id from an answer, or from GET /v1/tasks",
        )  # fmt: skip
    return record


async def add_task(
    service: Service, request: Request, values: Any, action: str, resource: str, details: Mapping[str, Any],
    add: Callable[[Change, sa.Connection], TaskRecord], check: Callable[[], object] = lambda: None,
) -> Response:  # fmt: skip
    """Ask for a task once, and answer with it; under an Idempotency-Key a repeated request gets the same task.

    Args:
        service: the service.
        request: asks.
        values: its parameters.
        action, resource, details: for the audit log.
        add: adds the task to the store in a transaction; in a thread.
        check: called before, in a thread; refuses what cannot be done.
    """

    async def perform(change: Change) -> tuple[int, Any]:
        def function(connection: sa.Connection) -> tuple[int, Any]:
            return 202, plain_task(add(change, connection))

        await asyncio.to_thread(check)
        return await asyncio.to_thread(apply_in_store, service, change, action, resource, details, function)

    return await carry_out(service, request, request_digest(request, values), perform)
