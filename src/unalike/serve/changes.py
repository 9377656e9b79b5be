"""Changes of galleries, files and settings: durable and audited before they are acknowledged, once under an Idempotency-Key.

The order is: pictures on the disk; an audit entry ``begun``; the gallery changed, which is durable; the audit entry ``done`` and the
answer for those who repeat the request, in one transaction; the answer. A request that is repeated after a kill finds by the
names of its references whether it was applied.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from unalike.errors import DataError, ModelError
from unalike.recognition.backends.protocol import GalleryBackend
from unalike.serve.logs import log_error
from unalike.serve.problems import Problem, is_disk_full
from unalike.serve.request_context import RequestContext, context_of
from unalike.serve.resources import GalleryResource
from unalike.serve.service import Service, json_response
from unalike.serve.store import Conflict, InProgress, New, Replay
from unalike.serve.uploads import Upload
from unalike.storage.digests import content_sha256, text_sha256

KEY_HEADER, REPLAY_HEADER = "idempotency-key", "Idempotency-Replayed"
_NAMESPACE = uuid.UUID("6f0c1f3e-4b0a-5c7e-9b0e-6d3f7a2b9c11")
# Audit details are bounded: so many names of a list.
MAX_DETAILS = 100
UNAVAILABLE_S = 10


@dataclass
class Change:
    """One change that a request asks for.

    Attributes:
        context: who asks.
        claim: of its Idempotency-Key; None without one.
        is_applied: whether the gallery was changed, so that the claim may not be given back.
    """

    context: RequestContext
    claim: New | None = None
    is_applied: bool = field(default=False)

    def token(self, number: int) -> str:
        """What tells the reference of one image of this request apart; the same when the request is repeated."""
        if self.claim is None:
            return uuid.uuid4().hex
        return uuid.uuid5(_NAMESPACE, f"{self.claim.actor}\0{self.claim.key}\0{number}").hex


def request_digest(request: Request, values: Mapping[str, Any], images: Sequence[Upload] = ()) -> str:
    """What a request asks for, as one hash: method, address, parameters and images."""
    parts = [request.method, request.url.path, json.dumps(values, sort_keys=True, default=str)]
    return text_sha256("\0".join([*parts, *(content_sha256(upload.content) for upload in images)]))


async def carry_out(
    service: Service, request: Request, digest: str, perform: Callable[[Change], Awaitable[tuple[int, Any]]]
) -> Response:
    """Carry out a change once, and answer; under an Idempotency-Key a repeated request gets the answer of the first.

    Args:
        service: the service.
        request: names the key in its header.
        digest: of ``request_digest``.
        perform: makes the change and returns status and answer.

    Raises:
        Problem: 409 while the same request is carried out, 422 where the key belongs to another request.
    """
    context, key = context_of(request), request.headers.get(KEY_HEADER)
    if key is None:
        status, value = await perform(Change(context))
        return json_response(value, status)
    idempotency = service.store.idempotency
    claim = await asyncio.to_thread(idempotency.claim, key, context.actor, digest)
    match claim:
        case Replay():
            body = claim.body.encode("ascii")
            return Response(body, claim.status, headers={REPLAY_HEADER: "true"}, media_type="application/json")
        case InProgress():
            raise Problem(409, "in-progress", "the same request is being carried out",
                          headers={"Retry-After": str(max(1, round(claim.retry_after)))})  # fmt: skip
        case Conflict():
            raise Problem(422, "key-conflict", "the Idempotency-Key belongs to another request", expected="a new key")
    change = Change(context, claim)
    try:
        status, value = await perform(change)
    except Exception:  # not where the service stops and cancels this: its thread may still make the change
        if not change.is_applied:
            await asyncio.to_thread(idempotency.release, claim)
        raise
    return json_response(value, status)


def apply(
    service: Service, resource: GalleryResource, change: Change, action: str, details: Mapping[str, Any],
    function: Callable[[GalleryBackend], Any], answer: Callable[[Any], tuple[int, Any]],
    record: Callable[[sa.Connection, Any], None] | None = None,
    describe: Callable[[Any], Mapping[str, Any]] | None = None,
) -> tuple[int, Any]:  # fmt: skip
    """Change a gallery with its entry in the audit log; in a thread.

    Args:
        service: the service.
        resource: the gallery.
        change: what asks.
        action: what is done, such as ``references.add``.
        details: for the audit log.
        function: changes the gallery; all of its changes are one.
        answer: status and answer, from what ``function`` returned.
        record: writes what belongs to the change into the store, from what ``function`` returned, in the transaction that
            finishes the entry.
        describe: what the audit log gets besides, from what ``function`` returned.

    Returns:
        Status and answer.

    Raises:
        UnalikeError: the change is not possible; nothing was changed.
    """
    store, context = service.store, change.context
    entry = store.audit.begin(context.actor, action, resource.name, details, request_id=context.id)
    try:
        with _open_change(resource) as gallery:
            result = function(gallery)
        change.is_applied = True
    except Exception as error:
        store.audit.finish(entry, "failed", str(error))
        raise
    resource.refresh()
    status, value = answer(result)
    with store.transaction() as connection:
        more = None if describe is None else describe(result)
        store.audit.finish(entry, "done", details=more, connection=connection)
        if record is not None:
            record(connection, result)
        _complete(service, change, status, value, connection)
    return status, value


@contextmanager
def _open_change(resource: GalleryResource) -> Iterator[GalleryBackend]:
    """Change a gallery; a file or database that cannot be read or written is no mistake of the request: Problem (503, 507)."""
    is_inside = False
    try:
        with resource.gallery.change() as gallery:
            is_inside = True
            yield gallery
            is_inside = False
    except (DataError, ModelError, OSError) as error:
        if is_inside:
            raise
        log_error(f"the gallery {resource.name} cannot be changed", error)
        if is_disk_full(error):
            raise Problem(507, "no-space", f"the disk of the gallery {resource.name} is full: nothing was changed",
                          remedy="make room, and send it again") from error  # fmt: skip
        raise Problem(503, "gallery-unavailable", f"the gallery {resource.name} cannot be read or written now: nothing was changed",
                      remedy="the service's log says why; send it again when that is mended",
                      headers={"Retry-After": str(UNAVAILABLE_S)}) from error  # fmt: skip


def apply_in_store(
    service: Service, change: Change, action: str, resource: str, details: Mapping[str, Any],
    function: Callable[[sa.Connection], tuple[int, Any]],
) -> tuple[int, Any]:  # fmt: skip
    """Change what the store holds, with its entry in the audit log and the answer for a repeated request: one transaction, in a thread.

    Args:
        service: the service.
        change: what asks.
        action: what is done, such as ``inspectors.threshold``.
        resource: what it is done to.
        details: for the audit log.
        function: makes the change; returns status and answer.

    Returns:
        Status and answer.
    """
    store, context = service.store, change.context
    with store.transaction() as connection:
        status, value = function(connection)
        entry = store.audit.begin(
            context.actor, action, resource, details, request_id=context.id, connection=connection
        )
        store.audit.finish(entry, connection=connection)
        _complete(service, change, status, value, connection)
    change.is_applied = True
    return status, value


def apply_to_files(
    service: Service,
    change: Change,
    action: str,
    resource: str,
    details: Mapping[str, Any],
    function: Callable[[], tuple[int, Any]],
) -> tuple[int, Any]:
    """Change files of the service with an entry in the audit log, which is on the disk before; in a thread.

    The arguments are those of ``apply_in_store``.
    """
    store, context = service.store, change.context
    entry = store.audit.begin(context.actor, action, resource, details, request_id=context.id)
    try:
        status, value = function()
        change.is_applied = True
    except Exception as error:
        store.audit.finish(entry, "failed", str(error))
        raise
    with store.transaction() as connection:
        store.audit.finish(entry, "done", connection=connection)
        _complete(service, change, status, value, connection)
    return status, value


def _complete(service: Service, change: Change, status: int, value: Any, connection: sa.Connection) -> None:
    """Keep the answer for those who repeat the request."""
    if change.claim is not None:
        body = json.dumps(value, ensure_ascii=True)
        service.store.idempotency.complete(change.claim, status, body, connection=connection)


def bounded(names: Sequence[str]) -> list[str]:
    """At most so many names for the audit log, and how many more there are."""
    rest = len(names) - MAX_DETAILS
    return list(names) if rest <= 0 else [*names[:MAX_DETAILS], f"and {rest} more"]
