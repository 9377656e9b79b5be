"""Problem documents of the errors of this package."""

from __future__ import annotations

import errno
import json

import pytest

from unalike.errors import (
    DatabaseUnavailable,
    DataError,
    MissingExtra,
    ModelError,
    SpecError,
    StoreError,
    UnreadableImage,
)
from unalike.serve.batching import DeadlinePassed, Overloaded
from unalike.serve.problems import MEDIA_TYPE, Problem, problem_of, problem_response


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnreadableImage("a.png: damaged"), 422), (DataError("x"), 422), (SpecError("x"), 422), (MissingExtra("x"), 501),
        (ModelError("x"), 500), (Overloaded(3), 503), (DeadlinePassed(), 504), (TimeoutError(), 504),
    ],
)  # fmt: skip
def test_every_error_has_its_status(error: Exception, status: int) -> None:
    problem = problem_of(error)
    assert problem is not None and problem.status == status


@pytest.mark.parametrize(
    ("number", "status", "kind"), [(errno.ENOSPC, 507, "no-space"), (errno.EIO, 503, "store-failure")]
)
def test_a_store_that_fails_shows_no_file_of_the_server(number: int, status: int, kind: str) -> None:
    error = StoreError("image 1 in /srv/images: it cannot be written")
    error.__cause__ = OSError(number, "x")
    problem = problem_of(error)
    assert problem is not None and (problem.status, problem.kind) == (status, kind)
    assert "/srv" not in json.dumps(problem.to_dict()) and int(problem.headers["Retry-After"]) > 0


@pytest.mark.parametrize(("state", "status"), [("53100", 507), ("57P01", 503)])
def test_a_gallery_s_database_that_fails_is_a_failure_of_the_service_and_shows_no_path(state: str, status: int) -> None:
    cause = RuntimeError("could not extend file")
    cause.sqlstate = state  # type: ignore[attr-defined]
    error = DatabaseUnavailable("postgresql:///shop?host=/srv/pg: could not extend file")
    error.__cause__ = cause
    problem = problem_of(error)
    assert problem is not None and problem.status == status
    assert "/srv" not in json.dumps(problem.to_dict()) and int(problem.headers["Retry-After"]) > 0


def test_other_errors_are_no_problems() -> None:
    assert problem_of(ValueError("x")) is None


def test_a_document_says_what_was_found_expected_and_to_do_in_one_line() -> None:
    error = DataError("a\nb: 3 rows", expected="4", remedy="add one")
    problem = problem_of(error)
    assert problem is not None
    response = problem_response(problem, "id1")
    document = json.loads(response.body)
    assert response.media_type == MEDIA_TYPE
    assert document == {
        "type": "urn:unalike:problem:invalid-data", "title": "Unprocessable Entity", "status": 422,
        "detail": "a\\nb: 3 rows; expected 4; add one", "found": "a\\nb: 3 rows", "expected": "4", "remedy": "add one",
        "request_id": "id1",
    }  # fmt: skip


def test_overload_says_when_to_come_again_and_secrets_are_hidden() -> None:
    problem = problem_of(Overloaded(7.0))
    assert problem is not None and problem_response(problem).headers["retry-after"] == "7"
    document = Problem(422, "x", "cannot read https://user:secret@host/a").to_dict()
    assert "secret" not in json.dumps(document)
