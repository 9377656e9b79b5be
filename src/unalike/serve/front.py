"""The front of the service: checks, counts and logs every request, and answers those that need no FastAPI itself.

Images are labeled and probes are answered as soon as the networks are loaded; what else there is, FastAPI with its pages and
its document, is loaded afterwards (half of a start), and its requests wait until then.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unalike.errors import StoreError
from unalike.serve.logs import log, log_error
from unalike.serve.pages.problem_page import answer_problem
from unalike.serve.problems import Problem, problem_of
from unalike.serve.request_context import SCOPE_KEY, HungUp, RequestContext, new_context
from unalike.serve.routes.health import Health
from unalike.serve.routes.recognition import Recognition
from unalike.serve.security import SECURITY_HEADERS
from unalike.serve.service import Service

# Status in log and metrics for a client that hung up.
HUNG_UP = 499
# Routes of probes are not logged, but as details.
_QUIET = frozenset(("/healthz", "/readyz", "/metrics"))
_SCOPED = re.compile(r"/v1/galleries/([^/]+)(/[a-z]+)")


def respond(scope: Scope, error: Exception) -> Response | None:
    """The answer to a request that failed for a reason that is known; None for an error of ours."""
    if isinstance(error, HungUp | ClientDisconnect):  # nobody receives it
        return Response(status_code=HUNG_UP)
    problem = problem_of(error)
    if problem is None:
        return None
    if isinstance(error, StoreError):
        log_error("the store cannot be read or written", error)
    return answer_problem(scope, problem)


def failure_response(scope: Scope) -> Response:
    """The answer to an error of ours, which the front logs."""
    problem = Problem(500, "failure", "the service failed", remedy="its log has the details under this request_id")
    return answer_problem(scope, problem)


@dataclass(frozen=True)
class DirectEndpoint:
    """An endpoint that the front answers itself.

    Attributes:
        pattern: its path, as metrics name it.
        call: takes the request.
    """

    pattern: str
    call: Callable[[Request], Awaitable[Response]]


class DirectEndpoints:
    """The endpoints that need no FastAPI.

    Args:
        service: what they share.
    """

    def __init__(self, service: Service) -> None:
        recognition, health = Recognition(service), Health(service)
        self._scoped = {"/identify": recognition.identify, "/embed": recognition.embed}
        self._plain: dict[tuple[str, str], DirectEndpoint] = {}
        for path, handler in self._scoped.items():
            self._plain["POST", f"/v1{path}"] = DirectEndpoint(f"/v1{path}", _with_name(handler, None))
        for path, probe in (("/healthz", health.healthz), ("/readyz", health.readyz), ("/metrics", health.metrics)):
            for method in ("GET", "HEAD") if path != "/metrics" else ("GET",):
                self._plain[method, path] = DirectEndpoint(path, probe)

    def find(self, scope: Scope) -> DirectEndpoint | None:
        """The endpoint of a request; None for one that FastAPI answers."""
        if scope.get("root_path"):
            return None
        method, path = scope["method"], scope["path"]
        endpoint = self._plain.get((method, path))
        if endpoint is None and method == "POST" and (match := _SCOPED.fullmatch(path)):
            handler = self._scoped.get(match[2])
            if handler is not None:
                return DirectEndpoint(f"/v1/galleries/{{name}}{match[2]}", _with_name(handler, match[1]))
        return endpoint


def _with_name(
    handler: Callable[[Request, str | None], Awaitable[Response]], name: str | None
) -> Callable[[Request], Awaitable[Response]]:
    return lambda request: handler(request, name)


class Front:
    """Gives every request its context, and its answer the security headers; counts and logs it.

    Args:
        service: answers ``identify``, ``embed`` and probes from the beginning; all else waits for ``set_app``.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self._direct = DirectEndpoints(service)
        self._app: ASGIApp | None = None
        self._has_app = asyncio.Event()

    def set_app(self, app: ASGIApp) -> None:
        """Give it the application for all other requests; in the event loop, or before there is one."""
        self._app = app
        self._has_app.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._pass_on(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        client = str(scope["client"][0]) if scope.get("client") else ""
        context = new_context(headers.get("x-request-id", ""), client, self.service.settings.deadline)
        # A proxy with TLS speaks http to us; the browser's own word for a page is its origin.
        context.is_secure = scope.get("scheme") == "https" or headers.get("origin", "").startswith("https:")
        scope[SCOPE_KEY] = context
        endpoint = self._direct.find(scope)
        status, is_answered = HUNG_UP, False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, is_answered
            if message["type"] == "http.response.start":
                status, is_answered = message["status"], True
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
                await self._answer(scope, headers, context, endpoint, receive, send_with_headers)
                if span is not None:
                    span.set_attribute("http.response.status_code", status)
        except Exception as error:  # noqa: BLE001  the log has it
            failure = error
            if not is_answered:
                await failure_response(scope)(scope, receive, send_with_headers)
        pattern = getattr(scope.get("route"), "path", "unmatched") if endpoint is None else endpoint.pattern
        self._record(scope, context, pattern, status, failure)

    async def _answer(
        self, scope: Scope, headers: dict[str, str], context: RequestContext, endpoint: DirectEndpoint | None,
        receive: Receive, send: Send,
    ) -> None:  # fmt: skip
        request = Request(scope, receive, send)
        try:
            await self.service.access.check(scope["method"], scope["path"], headers, context)
            response = None if endpoint is None else await endpoint.call(request)
        except Exception as error:
            answer = respond(scope, error)
            if answer is None:
                raise
            await answer(scope, receive, send)
            return
        if response is None:
            await self._pass_on(scope, receive, send)
        else:
            await response(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._has_app.wait()
        assert self._app is not None
        await self._app(scope, receive, send)

    def _record(
        self, scope: Scope, context: RequestContext, pattern: str, status: int, failure: BaseException | None
    ) -> None:
        seconds = time.monotonic() - context.start
        self.service.metrics.add_request(pattern, scope["method"], status, seconds)
        fields: dict[str, Any] = {
            "request_id": context.id, "method": scope["method"], "path": scope["path"], "status": status,
            "ms": round(1000 * seconds, 1), "client": context.client, "actor": context.actor, "images": context.images,
        }  # fmt: skip
        if failure is not None:
            log_error("request failed", failure, **fields)
        else:
            log(logging.DEBUG if scope["path"] in _QUIET else logging.INFO, "request", **fields)
