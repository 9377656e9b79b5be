"""The FastAPI application with all endpoints and pages; behind the front, it answers what that does not answer itself."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from unalike.errors import UnalikeError
from unalike.serve.batching import DeadlinePassed, Overloaded
from unalike.serve.documents import set_document
from unalike.serve.front import Front, failure_response, respond
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
from unalike.serve.problems import Problem, title_of
from unalike.serve.request_context import HungUp
from unalike.serve.routes.audit import audit_router
from unalike.serve.routes.calibration import calibration_router
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
from unalike.serve.service import Service
from unalike.serve.uploads import ClientDisconnect

ROUTERS: tuple[Callable[[Service], APIRouter], ...] = (
    recognition_router, health_router, decision_router, class_router, separation_router, export_router, reference_router, reference_set_router, model_router, calibration_router, inspection_router, inspectors_router, fits_router,
    verification_router, comparison_router, region_set_router, explanation_router, inference_protocol_router, audit_router, review_router,
    statistics_router, key_router, settings_router, task_router, training_router, candidate_router, shadow_router,
    session_router, static_files, sign_in_pages, recognize_pages, class_pages, class_view_pages, class_import_pages,
    inspection_pages, inspector_settings_pages, inspector_fit_pages, comparison_pages, verification_pages,
    review_pages, train_pages, monitor_pages, settings_pages,
)  # fmt: skip


def create_app(service: Service) -> ASGIApp:
    """The application of a service that is started and stopped by others (``StartUp``)."""
    front = Front(service)
    front.set_app(make_fastapi_app(service))
    return front


def make_fastapi_app(service: Service) -> FastAPI:
    """All endpoints and pages."""
    app = FastAPI(title="unalike", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    for make_router in ROUTERS:
        app.router.routes.extend(make_router(service).routes)  # included, each would be matched twice
    for kind in (Problem, UnalikeError, Overloaded, DeadlinePassed, TimeoutError, HungUp, ClientDisconnect):
        app.add_exception_handler(kind, _answer_expected)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(Exception, _answer_failure)
    set_document(app)
    return app


async def _answer_expected(request: Request, error: Exception) -> Response:
    response = respond(request.scope, error)
    assert response is not None
    return response


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
    return failure_response(request.scope)
