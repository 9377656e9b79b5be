"""Problem documents (RFC 9457): every error of the service as JSON with what was found, what was expected and what to do."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from unalike.errors import (
    DataError,
    LastAdmin,
    MissingExtra,
    NoSuchImage,
    NotComparable,
    SpecError,
    StoreError,
    UnalikeError,
    UnreadableImage,
)
from unalike.sanitize import one_line, redact
from unalike.serve.batching import DeadlinePassed, Overloaded

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:unalike:problem:"
# Class of an error -> (status, name of the problem's type); the first that fits.
DISK_FULL = "53100"  # PostgreSQL's state
_KINDS: tuple[tuple[type[UnalikeError], int, str], ...] = (
    (NoSuchImage, 404, "no-image"),
    (LastAdmin, 409, "last-admin"),
    (UnreadableImage, 422, "unreadable-image"),
    (NotComparable, 422, "not-comparable"),
    (MissingExtra, 501, "missing-extra"),
    (SpecError, 422, "invalid-value"),
    (DataError, 422, "invalid-data"),
)


class Problem(Exception):
    """An error that is answered as a problem document.

    Args:
        status: HTTP status.
        kind: name of the problem's type, such as ``queue-full``.
        found: what was found.
        expected: what was expected.
        remedy: what to do.
        headers: further headers of the answer.
    """

    def __init__(
        self, status: int, kind: str, found: str, *, expected: str = "", remedy: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(found)
        self.status, self.kind = status, kind
        self.found, self.expected, self.remedy = found, expected, remedy
        self.headers = dict(headers or {})

    def to_dict(self, request_id: str = "") -> dict[str, Any]:
        """The members of the document; those of RFC 9457 first."""
        parts = [self.found.rstrip(".")]
        if self.expected:
            parts.append(f"expected {self.expected.rstrip('.')}")
        if self.remedy:
            parts.append(self.remedy.rstrip("."))
        values = {
            "type": TYPE_PREFIX + self.kind, "title": title_of(self.status), "status": self.status,
            "detail": one_line(redact("; ".join(parts))), "found": one_line(redact(self.found)),
            "expected": one_line(redact(self.expected)), "remedy": one_line(redact(self.remedy)), "request_id": request_id,
        }  # fmt: skip
        return values


def title_of(status: int) -> str:
    """The phrase of an HTTP status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def problem_of(error: BaseException) -> Problem | None:
    """The problem that stands for an error; None for one that is no fault of the client or of the service's data."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Overloaded):
        seconds = str(int(error.retry_after))
        return Problem(503, "overloaded", "more images wait than can be answered in time",
                       expected=f"another attempt in {seconds} s", remedy="send it again later",
                       headers={"Retry-After": seconds})  # fmt: skip
    if isinstance(error, DeadlinePassed | TimeoutError):
        return Problem(504, "deadline", "the request's time was over before its answer was ready",
                       remedy="send fewer images, send it again later, or start the service with a longer --deadline")  # fmt: skip
    if isinstance(error, StoreError):
        # Its message names files of the server, which are for the log.
        status, kind = (507, "no-space") if is_disk_full(error) else (503, "store-failure")
        text = (
            "the disk of the service's store is full"
            if status == 507
            else "the service's store cannot be read or written now"
        )
        return Problem(status, kind, text, remedy="the service's log says more; send it again when that is mended",
                       headers={"Retry-After": "10"})  # fmt: skip
    if isinstance(error, UnalikeError):
        status, kind = next(
            ((number, name) for cls, number, name in _KINDS if isinstance(error, cls)), (500, "failure")
        )
        return Problem(status, kind, error.found, expected=error.expected, remedy=error.remedy)
    return None


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that there is no room."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if getattr(error, "sqlstate", None) == DISK_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def problem_response(problem: Problem, request_id: str = "") -> Response:
    """The answer."""
    content = json.dumps(problem.to_dict(request_id)).encode("ascii")
    return Response(content, problem.status, headers=problem.headers, media_type=MEDIA_TYPE)
