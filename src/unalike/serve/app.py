"""The ASGI application: the endpoints behind one layer that checks, counts and logs every request."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unalike.errors import StoreError, UnalikeError
from unalike.serve.batching import DeadlinePassed, Overloaded
from unalike.serve.documents import set_document
from unalike.serve.logs import log, log_error
from unalike.serve.pages.class_import import class_import_pages
from unalike.serve.pages.class_view import class_view_pages
from unalike.serve.pages.classes import class_pages
from unalike.serve.pages.comparison import comparison_pages
from unalike.serve.pages.inspection import inspection_pages
from unalike.serve.pages.inspector_fit import inspector_fit_pages
from unalike.serve.pages.inspector_settings import inspector_settings_pages
from unalike.serve.pages.monitor import monitor_pages
from unalike.serve.pages.problem_page import answer_problem, asks_for_page
from unalike.serve.pages.recognize import recognize_pages
from unalike.serve.pages.review import review_pages
from unalike.serve.pages.settings import settings_pages
from unalike.serve.pages.sign_in import sign_in_pages
from unalike.serve.pages.static_files import static_files
from unalike.serve.pages.train import train_pages
from unalike.serve.pages.verification import verification_pages
from unalike.serve.problems import Problem, problem_of, title_of
from unalike.serve.request_context import SCOPE_KEY, HungUp, RequestContext, new_context
from unalike.serve.routes.audit import audit_router
from unalike.serve.routes.candidates import candidate_router
from unalike.serve.routes.classes import class_router
from unalike.serve.routes.comparison import comparison_router
from unalike.serve.routes.decisions import decision_router
from unalike.serve.routes.explanation import explanation_router
from unalike.serve.routes.export import export_router
from unalike.serve.routes.fits import fits_router
from unalike.serve.routes.health import health_router
from unalike.serve.routes.inference_protocol import inference_protocol_router
from unalike.serve.routes.inspection import inspection_router
from unalike.serve.routes.inspectors import inspectors_router
from unalike.serve.routes.keys import key_router
from unalike.serve.routes.models import model_router
from unalike.serve.routes.recognition import recognition_router
from unalike.serve.routes.reference_sets import reference_set_router
from unalike.serve.routes.references import reference_router
from unalike.serve.routes.region_sets import region_set_router
from unalike.serve.routes.review import review_router
from unalike.serve.routes.separation import separation_router
from unalike.serve.routes.sessions import session_router
from unalike.serve.routes.settings import settings_router
from unalike.serve.routes.shadow import shadow_router
from unalike.serve.routes.statistics import statistics_router
from unalike.serve.routes.tasks import task_router
from unalike.serve.routes.trainings import training_router
from unalike.serve.routes.verification import verification_router
from unalike.serve.security import SECURITY_HEADERS
from unalike.serve.service import Service
from unalike.serve.uploads import ClientDisconnect

# Status in log and metrics for a client that hung up.
HUNG_UP = 499
ROUTERS: tuple[Callable[[Service], APIRouter], ...] = (
    recognition_router, health_router, decision_router, class_router, separation_router, export_router, reference_router, reference_set_router, model_router, inspection_router, inspectors_router, fits_router,
    verification_router, comparison_router, region_set_router, explanation_router, inference_protocol_router, audit_router, review_router,
    statistics_router, key_router, settings_router, task_router, training_router, candidate_router, shadow_router,
    session_router, static_files, sign_in_pages, recognize_pages, class_pages, class_view_pages, class_import_pages,
    inspection_pages, inspector_settings_pages, inspector_fit_pages, comparison_pages, verification_pages,
    review_pages, train_pages, monitor_pages, settings_pages,
)  # fmt: skip
# Routes of probes are not logged, but as details.
_QUIET = frozenset(("/healthz", "/readyz", "/metrics"))


def create_app(service: Service) -> ASGIApp:
    """The application of a service that is started and stopped by others (``StartUp``)."""
    app = FastAPI(title="unalike", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    for make_router in ROUTERS:
        app.router.routes.extend(make_router(service).routes)  # included, each would be matched twice
    for kind in (Problem, UnalikeError, Overloaded, DeadlinePassed, TimeoutError):
        app.add_exception_handler(kind, _answer_problem)
    app.add_exception_handler(HungUp, _answer_nobody)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(Exception, _answer_failure)
    set_document(app)
    return Front(app, service)


async def _answer_problem(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    assert problem is not None
    if isinstance(error, StoreError):
        log_error("the store cannot be read or written", error)
    return answer_problem(request.scope, problem)


async def _answer_nobody(_: Request, __: Exception) -> Response:
    """What is sent where nobody receives it."""
    return Response(status_code=HUNG_UP)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    text = {404: f"there is no {path}", 405: f"{request.method} {path}"}.get(error.status_code, str(error.detail))
    is_for_program = error.status_code in (404, 405) and not asks_for_page(request.scope)
    remedy = "see /openapi.json" if is_for_program else ""
    problem = Problem(error.status_code, title_of(error.status_code).lower().replace(" ", "-"), text, remedy=remedy,
                      headers=dict(error.headers or {}))  # fmt: skip
    return answer_problem(request.scope, problem)


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return answer_problem(request.scope, Problem(422, "invalid-value", f"{place}: {first['msg']}"))


async def _answer_failure(request: Request, _: Exception) -> Response:
    """The answer to an error of ours; the layer in front logs it."""
    problem = Problem(500, "failure", "the service failed", remedy="its log has the details under this request_id")
    return answer_problem(request.scope, problem)


class Front:
    """Gives every request its context, and its answer the security headers; counts and logs it."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        client = str(scope["client"][0]) if scope.get("client") else ""
        context = new_context(headers.get("x-request-id", ""), client, self.service.settings.deadline)
        # A proxy with TLS speaks http to us; the browser's own word for a page is its origin.
        context.is_secure = scope.get("scheme") == "https" or headers.get("origin", "").startswith("https:")
        scope[SCOPE_KEY] = context
        status = HUNG_UP

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {name for name, _ in message.get("headers", ())}
                added_headers = [pair for pair in SECURITY_HEADERS if pair[0] not in own]
                message["headers"] = [
                    *message.get("headers", ()),
                    *added_headers,
                    (b"x-request-id", context.id.encode()),
                ]
            await send(message)

        failure: BaseException | None = None
        try:
            with self.service.tracer.request(scope["method"], scope["path"], headers) as span:
                await self._answer(scope, headers, context, receive, send_with_headers)
                if span is not None:
                    span.set_attribute("http.response.status_code", status)
        except Exception as error:  # noqa: BLE001  answered with 500 by now
            failure = error
        self._record(scope, context, status, failure)

    async def _answer(
        self, scope: Scope, headers: dict[str, str], context: RequestContext, receive: Receive, send: Send
    ) -> None:
        try:
            await self.service.access.check(scope["method"], scope["path"], headers, context)
        except (Problem, UnalikeError) as error:
            problem = problem_of(error)
            assert problem is not None
            if isinstance(error, StoreError):
                log_error("the store cannot be read or written", error)
            await answer_problem(scope, problem)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _record(self, scope: Scope, context: RequestContext, status: int, failure: BaseException | None) -> None:
        seconds = time.monotonic() - context.start
        route: Any = scope.get("route")
        pattern = getattr(route, "path", "unmatched")
        self.service.metrics.add_request(pattern, scope["method"], status, seconds)
        fields = {
            "request_id": context.id, "method": scope["method"], "path": scope["path"], "status": status,
            "ms": round(1000 * seconds, 1), "client": context.client, "actor": context.actor, "images": context.images,
        }  # fmt: skip
        if failure is not None:
            log_error("request failed", failure, **fields)
        else:
            log(logging.DEBUG if scope["path"] in _QUIET else logging.INFO, "request", **fields)
