"""Records of the store as plain data: decisions, feedback, API keys, audit entries, tasks, and the answers of an idempotency claim."""

from __future__ import annotations

import secrets
import time as clock
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from unalike.errors import DataError, closest

KINDS = ("identify", "inspect", "verify", "compare")
VERDICTS = ("confirmed", "wrong", "new class", "unusable")
# Those that say which class an image has.
TEACHING = ("confirmed", "wrong", "new class")
# Feedback that takes back what was said before: the decision counts as one without feedback.
WITHDRAWN = "withdrawn"
# Each role may do what those before it may.
ROLES = ("view", "operate", "admin")
OUTCOMES = ("begun", "done", "failed")
# What becomes of a task: it waits, is done by a process, and ends in one of the other ways.
WAITING, RUNNING, DONE, FAILED, CANCELED = TASK_STATES = ("waiting", "running", "done", "failed", "canceled")
NO_FEEDBACK = "none"
MAX_PAGE = 1000
# Longest texts that a client gives; class names in columns are shortened (``tables.Name``), never refused.
MAX_LABEL, MAX_NOTE = 1000, 4000

Item = TypeVar("Item")


def utc_now() -> datetime:
    """The present time in UTC."""
    return datetime.now(UTC)


def new_id(moment: datetime | None = None) -> str:
    """A UUID of version 7 (RFC 9562): time first, by which ids sort, then 62 random bits, so that none can be guessed.

    The time has 48 bits of milliseconds and 12 bits of their fraction, so that ids of one batch sort too.

    Args:
        moment: the time that it holds; now by default.
    """
    nanoseconds = clock.time_ns() if moment is None else int(moment.timestamp() * 1e6) * 1000
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    value = (milliseconds & (2**48 - 1)) << 80 | 7 << 76 | (rest * 4096 // 1_000_000) << 64
    return str(uuid.UUID(int=value | 2 << 62 | secrets.randbits(62)))


def check_choice(value: str, choices: tuple[str, ...], name: str) -> None:
    """Raise DataError for a value that is not among the choices."""
    if value not in choices:
        raise DataError(f"{name} is {value!r}", expected=f"one of {', '.join(choices)}", remedy=closest(value, choices))


def check_text(value: str | None, name: str, limit: int) -> None:
    """Raise DataError for a text of more than ``limit`` characters."""
    if value is not None and len(value) > limit:
        raise DataError(f"{name} has {len(value)} characters", expected=f"at most {limit}", remedy="shorten it")


def check_page(after: str | None, limit: int) -> None:
    """Raise DataError for a cursor that no page returned, or a page that is too large."""
    if not 1 <= limit <= MAX_PAGE:
        raise DataError(f"limit is {limit}", expected=f"1 to {MAX_PAGE}", remedy="ask for several pages")
    if after is not None:
        try:
            is_id = str(uuid.UUID(after)) == after
        except (ValueError, AttributeError, TypeError):
            is_id = False
        if not is_id:
            raise DataError("after is no cursor", expected="the value of 'next' of the page before",
                            remedy="leave it out for the first page")  # fmt: skip


class Record:
    """A row of a table, which is plain data in JSON."""

    def to_dict(self) -> dict[str, Any]:
        """The record as plain data for JSON; times as ISO 8601 in UTC."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Record):
        return value.to_dict()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Page(Generic[Item]):
    """One page of a list.

    Attributes:
        items: the records.
        next: cursor of the page after it; None on the last one.
    """

    items: list[Item]
    next: str | None = None


@dataclass(frozen=True)
class Feedback(Record):
    """What somebody said about a decision.

    Attributes:
        verdict: one of ``VERDICTS``, or ``WITHDRAWN``.
        label: the right class, with ``wrong`` and ``new class``.
        note: a remark.
        actor: who gave it.
        time: when, in UTC.
        id: its id.
    """

    verdict: str
    label: str | None = None
    note: str = ""
    actor: str = ""
    time: datetime = field(default_factory=utc_now)
    id: str = field(default_factory=new_id)

    def __post_init__(self) -> None:
        check_choice(self.verdict, (*VERDICTS, WITHDRAWN), "verdict")
        check_text(self.label, "label", MAX_LABEL)
        check_text(self.note, "note", MAX_NOTE)
        needs_label = self.verdict in ("wrong", "new class")
        if self.label and not needs_label:
            raise DataError(
                f"feedback {self.verdict!r} with a label", expected="a label with 'wrong' and 'new class' alone"
            )
        if self.verdict == "new class" and not self.label:
            raise DataError("feedback 'new class' without a label", expected="the name of the new class")


@dataclass(frozen=True)
class DecisionRecord(Record):
    """One decision of the service.

    Attributes:
        kind: one of ``KINDS``.
        resource: name of the gallery, inspector or asset set.
        decision: what was decided, such as ``label``, ``ambiguous``, ``unknown``, ``good``.
        label: the class; None where there is none.
        nearest: the nearest class.
        score, threshold, margin: figures of the decision; None where there is none. Values that are not finite become None.
        calibrated: whether the decision is that of a calibration that holds.
        stale: whether the gallery has changed since its calibration.
        model: key of the network.
        image: content hash of the picture in the image store; None where it is not kept.
        file: name of the file that the client sent, without a folder (``uploads.file_name``); None where it named none.
        request_id: the request that asked.
        actor: who asked.
        result: the whole answer, plain data.
        time: when, in UTC.
        id: sorts by time and cannot be guessed.
        feedback: what was said about it since, the oldest first; filled in by the store.
    """

    kind: str
    resource: str
    decision: str
    label: str | None = None
    nearest: str | None = None
    score: float | None = None
    threshold: float | None = None
    margin: float | None = None
    calibrated: bool | None = None
    stale: bool | None = None
    model: str = ""
    image: str | None = None
    file: str | None = None
    request_id: str = ""
    actor: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    time: datetime = field(default_factory=utc_now)
    id: str = field(default_factory=new_id)
    feedback: tuple[Feedback, ...] = ()

    def __post_init__(self) -> None:
        check_choice(self.kind, KINDS, "kind")


@dataclass(frozen=True)
class DecisionFilter:
    """Which decisions to list; a field that is None selects nothing.

    Attributes:
        kind, resource, decision, label, nearest, image, request_id, actor: equal to this.
        since, until: time, from and before.
        min_score, max_score: score, both included.
        verdict: the latest feedback, or ``none`` for decisions without any.
    """

    kind: str | None = None
    resource: str | None = None
    decision: str | None = None
    label: str | None = None
    nearest: str | None = None
    image: str | None = None
    request_id: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    min_score: float | None = None
    max_score: float | None = None
    verdict: str | None = None

    def __post_init__(self) -> None:
        if self.kind is not None:
            check_choice(self.kind, KINDS, "kind")
        if self.verdict is not None:
            check_choice(self.verdict, (*VERDICTS, NO_FEEDBACK), "verdict")


@dataclass(frozen=True)
class KeyRecord(Record):
    """An API key, without its secret.

    Attributes:
        id: eight hex digits, which the secret begins with.
        name: what its owner calls it.
        role: one of ``ROLES``.
        gallery: the one gallery that it is for; None for all.
        created: when, in UTC.
        last_used: when it was last used, within a minute; None before.
        revoked: when it was revoked; None while it is valid.
    """

    id: str
    name: str
    role: str
    gallery: str | None
    created: datetime
    last_used: datetime | None = None
    revoked: datetime | None = None

    def may(self, role: str, gallery: str | None = None) -> bool:
        """Whether the key may do what a role may, in a gallery where one is named."""
        check_choice(role, ROLES, "role")
        has_role = self.revoked is None and ROLES.index(self.role) >= ROLES.index(role)
        return has_role and (self.gallery is None or self.gallery == gallery)


@dataclass(frozen=True)
class SessionRecord(Record):
    """A browser that signed in, without its token.

    Attributes:
        key: the key that it signed in with.
        created, expires: when it began and when it ends, in UTC.
    """

    key: KeyRecord
    created: datetime
    expires: datetime


@dataclass(frozen=True)
class AuditEntry(Record):
    """Who did what to which class, and when.

    Attributes:
        actor: who.
        action: what, such as ``references.add``.
        resource: the gallery, key or other thing.
        details: plain data, such as the class and the number of images.
        request_id: the request that asked.
        outcome: one of ``OUTCOMES``; ``begun`` of a change that was interrupted.
        error: why it failed.
        time, finished: when it began and ended, in UTC.
        id: sorts by time.
    """

    actor: str
    action: str
    resource: str
    details: Mapping[str, Any]
    request_id: str
    outcome: str
    error: str
    time: datetime
    finished: datetime | None
    id: str


# Processes of a service look for changes every second, and then load what they found: many seconds on a machine in use.
SETTLE_TIME = timedelta(seconds=60)


@dataclass(frozen=True)
class TaskRecord(Record):
    """A task of many seconds that the service does beside its requests.

    Attributes:
        kind: what is done, such as ``train`` or ``inspector.fit``.
        resource: what it is about: the name of a gallery, or of the inspector that becomes of it.
        options: plain data, as its kind needs them.
        actor, request_id: who asked, and the request.
        state: one of ``TASK_STATES``.
        attempts, max_attempts: how often it was begun, and may be; it is begun again where the process that did it ended.
        token: of the process that does it.
        lease_end: until when that process holds it, in UTC.
        step, count, total: what is being done, and how much of it.
        started, finished: when it was begun last, and when it ended, in UTC.
        result: plain data.
        error: why it failed or was canceled.
        created: when it was asked for, in UTC.
        id: sorts by time and cannot be guessed.
    """

    kind: str
    resource: str
    options: Mapping[str, Any] = field(default_factory=dict)
    actor: str = ""
    request_id: str = ""
    state: str = WAITING
    attempts: int = 0
    max_attempts: int = 1
    token: str = ""
    lease_end: datetime | None = None
    step: str = ""
    count: int = 0
    total: int = 0
    started: datetime | None = None
    finished: datetime | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    created: datetime = field(default_factory=utc_now)
    id: str = field(default_factory=new_id)

    def __post_init__(self) -> None:
        check_choice(self.state, TASK_STATES, "state")

    @property
    def is_over(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.state not in (WAITING, RUNNING)

    @property
    def is_settled(self) -> bool:
        """Whether it is over, and every process of the service has taken over what it made."""
        is_fresh = self.finished is not None and utc_now() - self.finished < SETTLE_TIME
        return self.is_over and not (self.state == DONE and is_fresh)


@dataclass(frozen=True)
class New:
    """The request is this caller's to carry out.

    Attributes:
        key, actor: of the claim.
        token: proves that the claim is still this caller's.
        is_retry: an earlier caller did not finish; what it did may have been applied.
    """

    key: str
    actor: str
    token: str
    is_retry: bool = False


@dataclass(frozen=True)
class Replay:
    """The request was answered before: HTTP status and JSON text of that answer."""

    status: int
    body: str


@dataclass(frozen=True)
class InProgress:
    """Another caller carries out the request; ``retry_after`` seconds from now its claim ends."""

    retry_after: float


@dataclass(frozen=True)
class Conflict:
    """The key was used for another request."""


Claim = New | Replay | InProgress | Conflict
