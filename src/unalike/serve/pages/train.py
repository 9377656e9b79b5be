"""The page Train: data is chosen and checked, a candidate is trained, compared with the model in service, promoted and taken back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from unalike.progress import clock
from unalike.report.plots import LinePlot
from unalike.serve.learning.desk import plots_of
from unalike.serve.pages.rendering import render_page
from unalike.serve.resources import GalleryResource
from unalike.serve.routes.candidates import plain_candidate
from unalike.serve.routes.shadow import describe_shadow
from unalike.serve.routes.tasks import plain_task
from unalike.serve.routes.trainings import GOALS, check_values
from unalike.serve.service import Service
from unalike.serve.store import TaskRecord
from unalike.serve.store.learning import COMPARE, LEARNING_KINDS, TRAIN
from unalike.serve.store.records import RUNNING, WAITING, utc_now
from unalike.serve.uploads import Parameters
from unalike.spec.automl import MAX_MINUTES

# So many tasks and changes of sides are shown; the API has all.
TASKS, CHANGES = 8, 24
MINUTES = 10.0  # of a first training; later the field begins with those of the last one


@dataclass(frozen=True)
class TaskView:
    """A task as the page shows it.

    Attributes:
        task: as the API gives it.
        curves: drawings of a training's figures.
        log: the end of its log.
        report: address of its report; None before there is one.
        elapsed: for how long it has run; of a training, also the minutes that were asked for; empty where it does not run.
    """

    task: dict[str, Any]
    curves: list[LinePlot]
    log: str
    report: str | None
    elapsed: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it neither waits nor runs."""
        return self.task["state"] not in (WAITING, RUNNING)


def train_pages(service: Service) -> APIRouter:
    """The page and its parts."""
    router = APIRouter(include_in_schema=False)

    @router.get("/train")
    async def train(request: Request) -> Response:
        resource = _resource(service, request)
        values = await asyncio.to_thread(lambda: _state(service, resource) | _shadow(service, resource))
        trainings = [view.task for view in values["tasks"] if view.task["kind"] == TRAIN]
        return render_page(
            request, "train.html.j2", service=service, gallery=resource.name, folders=list(service.learning.folders), goals=GOALS,
            max_minutes=MAX_MINUTES, minutes=trainings[0]["options"].get("minutes", MINUTES) if trainings else MINUTES,
            max_bytes=service.limits.max_bytes, **values,
        )  # fmt: skip

    @router.get("/train/state")
    async def state(request: Request) -> Response:
        resource = _resource(service, request)
        values = await asyncio.to_thread(_state, service, resource)
        return render_page(request, "fragments/train_state.html.j2", gallery=resource.name, **values)

    @router.get("/train/shadow")
    async def shadow(request: Request) -> Response:
        resource = _resource(service, request)
        values = await asyncio.to_thread(_shadow, service, resource)
        return render_page(request, "fragments/shadow.html.j2", gallery=resource.name, **values)

    @router.get("/train/checks")
    async def checks(request: Request) -> Response:
        parameters = Parameters.of_query(request)
        resource = service.gallery(request, parameters.text("gallery", most=64))
        values = {
            "folder": parameters.text("folder", most=64), "upload": parameters.text("upload", most=64),
            "with_service": parameters.boolean("with_service", True),
        }  # fmt: skip
        parameters.finish()
        check = await asyncio.to_thread(check_values, service, resource, values)
        return render_page(request, "fragments/train_checks.html.j2", gallery=resource.name, check=check)

    return router


def _resource(service: Service, request: Request) -> GalleryResource:
    parameters = Parameters.of_query(request)
    resource = service.gallery(request, parameters.text("gallery", most=64))
    parameters.finish()
    return resource


def _state(service: Service, resource: GalleryResource) -> dict[str, Any]:
    """Tasks and candidates of a gallery."""
    learning = service.store.learning
    network = resource.gallery.model_identity.network
    page = service.store.tasks.find(LEARNING_KINDS, limit=TASKS, resource=resource.name)
    tasks = [_task_view(service, record) for record in page.items]
    standing = learning.standing_promotion(resource.name)
    candidates = []
    for record in learning.models(resource.name):
        candidate = plain_candidate(record, network, learning.comparison(record.id, network))
        # One that a promotion did not bring into service is the network that was there before.
        candidate["is_unchanged"] = record.network == network and (standing is None or standing.model != record.id)
        candidate["changes"] = _changes(resource, candidate["comparison"])
        candidates.append(candidate)
    return {
        "tasks": tasks, "candidates": candidates, "can_roll_back": standing is not None,
        "compared": {task.options.get("model") for task in service.store.tasks.find_open(COMPARE, resource.name)},
        "is_busy": any(not record.is_settled for record in page.items), "network": network,
        "has_shadow": bool(service.store.shadows.active(resource.name)),
    }  # fmt: skip


def _shadow(service: Service, resource: GalleryResource) -> dict[str, Any]:
    """The shadow of a gallery that was begun last, with what became of it."""
    record = service.store.shadows.latest(resource.name)
    shadow = None if record is None else describe_shadow(service.store, record)
    return {"shadow": shadow, "has_shadow": shadow is not None and shadow["ended"] is None}


def _task_view(service: Service, record: TaskRecord) -> TaskView:
    desk = service.learning
    curves = plots_of(desk.curves(record.id)) if record.kind == TRAIN else []
    report = (
        f"/v1/trainings/{record.id}/report" if record.kind == TRAIN and desk.report(record.id) is not None else None
    )
    return TaskView(plain_task(record), curves, desk.log(record.id), report, _elapsed(record))


def _elapsed(record: TaskRecord) -> str:
    if record.state != RUNNING or record.started is None:
        return ""
    elapsed = clock((utc_now() - record.started).total_seconds())
    minutes = record.options.get("minutes") if record.kind == TRAIN else None
    return f"{elapsed} of about {minutes:g} minutes" if minutes else f"{elapsed} so far"


def _changes(resource: GalleryResource, comparison: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The images that change sides, with the address of their picture; None where the service has none under a name."""
    if comparison is None:
        return []
    changes = [dict(change) for change in comparison["result"]["changes"][:CHANGES]]
    with resource.gallery.view() as view:
        for change in changes:
            kind, _, name = str(change["name"]).partition(" ")
            ids = [] if kind == "decision" else view.ids_of_name(str(change["name"]))
            change["picture"] = (
                f"/v1/decisions/{name}/image?side=128" if kind == "decision"
                else f"/v1/galleries/{resource.name}/references/{ids[0]}/image?side=128" if ids else None
            )  # fmt: skip
    return changes
