"""Problems as pages where a browser asks for a page, and as problem documents otherwise; who must sign in is sent there."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from unalike.serve.pages.rendering import render_page
from unalike.serve.problems import Problem, problem_response
from unalike.serve.request_context import context_of
from unalike.serve.security import SIGN_IN_PATH

# Addresses of programs: their answer to an error is a problem document, whatever the client accepts.
_PROGRAM_PREFIXES = ("/v1/", "/v2/", "/static/", "/openapi.json", "/metrics", "/healthz", "/readyz")


_OTHER = (500, 599)
# Heading, and advice where the problem has none of its own, by the first and the last status that they are for.
WORDS = {
    (403, 403): ("You may not see this", "sign in with another key, or ask whoever runs this service"),
    (404, 404): ("This page does not exist", "look at the address, or go to the first page"),
    (429, 429): ("Too many requests", "wait a little, and load the page again"),
    (400, 499): ("This address cannot be shown", "look at the address, or go to the first page"),
    (503, 504): ("The service is busy", "wait a little, and load the page again"),
    _OTHER: ("Something went wrong in the service", "load the page again; the log of the service says more"),
}


def asks_for_page(scope: Scope) -> bool:
    """Whether a browser asks for a page, and not a program or a script for a part of one."""
    headers = Headers(scope=scope)
    is_program = scope["path"].startswith(_PROGRAM_PREFIXES) or "hx-request" in headers
    return scope["method"] in ("GET", "HEAD") and "text/html" in headers.get("accept", "") and not is_program


def words_of(status: int) -> tuple[str, str]:
    """Heading and advice of a status."""
    return next((words for (low, high), words in WORDS.items() if low <= status <= high), WORDS[_OTHER])


def answer_problem(scope: Scope, problem: Problem) -> Response:
    """The answer to a request that failed."""
    request = Request(scope)
    context = context_of(request)
    if not asks_for_page(scope):
        return problem_response(problem, context.id)
    if problem.status == 401:
        place = scope["path"] + (f"?{query}" if (query := scope["query_string"].decode("latin-1")) else "")
        return RedirectResponse(f"{SIGN_IN_PATH}?{urlencode({'next': place})}", 303)
    document = problem.to_dict(context.id)
    heading, advice = words_of(problem.status)
    return render_page(
        request,
        "problem.html.j2",
        status=problem.status,
        headers=problem.headers,
        document=document,
        heading=heading,
        advice=advice,
    )
