"""Who may do what: API keys with roles, sessions of browsers, limits of rate, and requests that other web sites make a browser send.

Without any key, everybody who reaches the loopback address may do everything; with a key, nobody without one.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from unalike.serve.problems import Problem
from unalike.serve.request_context import RequestContext
from unalike.storage.digests import text_sha256

if TYPE_CHECKING:
    from unalike.serve.store import KeyRecord, SessionRecord, Store

VIEW, OPERATE, ADMIN = "view", "operate", "admin"
ROLES = (VIEW, OPERATE, ADMIN)
# Without a key even where keys are needed: a balancer's probes.
OPEN_PATHS = frozenset(("/healthz", "/readyz"))
# Where somebody without a session signs in, and what that page is made of.
SIGN_IN_PATH, SESSION_PATH, STATIC_PREFIX = "/sign-in", "/v1/session", "/static/"
COOKIE, CSRF_HEADER = "unalike_session", "x-csrf-token"
# The last part of a path that asks, and changes nothing but the record of decisions.
_ASKING = frozenset(("identify", "embed", "explain", "compare", "inspect", "verify", "infer"))
# Changes of what is recognized, and feedback.
_TEACHING = re.compile(
    r"/v1(/galleries/[^/]+)?/(references(/[^/]+)?|classes(/rename|/merge)?|calibration(/undo)?|review/answers(/[^/]+)?)|/v1/decisions/[^/]+/feedback"
    r"|/v1/inspectors/[^/]+(/threshold|/ignored-regions|/restore)?|/v1/(images|fits|region-sets)|/v1/tasks/[^/]+/cancel"
)
# What only administrators read. What a process wrote may name files of the server; a check of training data decodes all of it.
_ADMIN_READING = re.compile(r"(/v1/(audit|keys|settings)|/settings).*|/v1/tasks/[^/]+/log|/train/checks")
_READING = frozenset(("GET", "HEAD", "OPTIONS"))
CACHE_S = 0.25  # a key is looked up again after so long
# Wrong keys of one address at once, and again each second; beyond, a key is looked up only where it is known to be valid.
MAX_FAILURES, FAILURE_RATE = 10, 0.2
BURST_S = 2.0  # a client that was silent may send so many seconds' worth of requests at once
MAX_CLIENTS = 10_000
# Of every answer that sets no other ones.
SECURITY_HEADERS = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return all(ip_address(entry[4][0]).is_loopback for entry in socket.getaddrinfo(host, None))
    except (OSError, ValueError):
        return False


def csrf_token(token: str) -> str:
    """What a change with the cookie of a session sends in a header: other sites, which send the cookie, cannot read it."""
    return hmac.new(token.encode(), b"unalike csrf", hashlib.sha256).hexdigest()


def role_for(method: str, path: str) -> str:
    """The role that a request needs; whatever is not known to be less needs ``admin``."""
    if method in _READING:
        return ADMIN if _ADMIN_READING.fullmatch(path) else VIEW
    if (method == "POST" and path.rpartition("/")[2] in _ASKING) or (method == "DELETE" and path == SESSION_PATH):
        return VIEW
    return OPERATE if method in ("POST", "DELETE") and _TEACHING.fullmatch(path) else ADMIN


def is_public(method: str, path: str) -> bool:
    """Whether a request needs no key, because it is how a browser gets a session."""
    if method in ("GET", "HEAD"):
        return path == SIGN_IN_PATH or path.startswith(STATIC_PREFIX)
    return method == "POST" and path == SESSION_PATH


@dataclass(slots=True)
class _Bucket:
    tokens: float
    time: float


class RateLimiter:
    """Token buckets by client; the clients that were silent longest are forgotten.

    Args:
        rate: tokens a second.
        burst: tokens at once.
        clock: seconds.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_s(self, client: str, cost: float = 1.0) -> float:
        """Take tokens of a client; 0, or the seconds after which there are enough (none are taken then)."""
        now = self.clock()
        bucket = self._buckets.pop(client, None) or _Bucket(self.burst, now)
        self._buckets[client] = bucket
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        bucket.tokens = min(self.burst, bucket.tokens + (now - bucket.time) * self.rate)
        bucket.time = now
        if bucket.tokens < cost:
            return (cost - bucket.tokens) / self.rate
        bucket.tokens -= cost
        return 0.0

    def has(self, client: str) -> bool:
        """Whether a client has a token."""
        self.wait_s(client, 0.0)
        return self._buckets[client].tokens >= 1


class AccessControl:
    """Checks every request before its body is read.

    Args:
        store: holds the keys.
        rate_limit: requests a second of one key or address; 0: no limit.
        is_loopback: whether the service listens on loopback alone.
    """

    def __init__(self, store: Store, rate_limit: float = 0.0, *, is_loopback: bool = True) -> None:
        self.store, self.is_loopback = store, is_loopback
        self.needs_key = True
        self._limiter = RateLimiter(rate_limit, max(1.0, rate_limit * BURST_S)) if rate_limit else None
        self._failures = RateLimiter(FAILURE_RATE, MAX_FAILURES)
        self._digests: frozenset[str] = frozenset()
        self._cache: dict[str, tuple[float, KeyRecord]] = {}
        self._sessions: dict[str, tuple[float, KeyRecord]] = {}

    def refresh(self) -> None:
        """Look whether keys are needed: where there is one, and beyond loopback always."""
        self._digests = self.store.keys.digests()
        self.needs_key = not self.is_loopback or bool(self._digests)

    async def check(self, method: str, path: str, headers: Mapping[str, str], context: RequestContext) -> None:
        """Check a request, and write who sent it into its context.

        Raises:
            Problem: 401 without a valid key or session, 403 for what the key may not do, what another site sent or a change by
                cookie without the session's CSRF token, 429 beyond the rate.
        """
        refuse_other_sites(method, headers)
        if path in OPEN_PATHS:
            return
        if not self.needs_key:
            refuse_other_hosts(headers)
        record = await self._authenticate(headers, context.client)
        if record is None:
            record = await self._find_session(method, path, headers, context)
        if record is not None:
            context.actor, context.role, context.gallery = record.name, record.role, record.gallery
        if is_public(method, path):
            return
        if record is None and self.needs_key:
            raise _unauthorized("no API key")
        role = role_for(method, path)
        if ROLES.index(context.role) < ROLES.index(role):
            raise Problem(403, "forbidden", f"the key {context.actor!r} has the role {context.role}", expected=role,
                          remedy="use a key of that role: unalike serve keys add")  # fmt: skip
        if self._limiter is not None and (seconds := self._limiter.wait_s(record.id if record else context.client)):
            raise _too_many(seconds)

    async def sign_in(self, secret: str, client: str) -> tuple[SessionRecord, str]:
        """Begin a session with a key.

        Returns:
            The session, and its token.

        Raises:
            Problem: 401 for a key that is not valid, 429 for too many of them.
        """
        record = await self._look_up(secret, client)
        return await asyncio.to_thread(self.store.sessions.open, record)

    async def sign_out(self, headers: Mapping[str, str]) -> bool:
        """End the session of a request's cookie; whether there was one."""
        token = _cookie(headers)
        self._sessions.pop(token, None)
        return bool(token) and await asyncio.to_thread(self.store.sessions.close, token)

    async def _find_session(
        self, method: str, path: str, headers: Mapping[str, str], context: RequestContext
    ) -> KeyRecord | None:
        """The key of the session that a cookie names; None where there is none. Raises Problem (403)."""
        token = _cookie(headers)
        if not token:
            return None
        end, record = self._sessions.get(token, (0.0, None))
        if record is None or time.monotonic() >= end:
            session = await asyncio.to_thread(self.store.sessions.find, token)
            if session is None:
                self._sessions.pop(token, None)
                return None
            record = session.key
            if len(self._sessions) > MAX_CLIENTS:
                self._sessions.clear()
            self._sessions[token] = time.monotonic() + CACHE_S, record
        context.csrf = csrf_token(token)
        if method not in _READING and not is_public(method, path):
            refuse_without_token(headers, context.csrf)
        return record

    async def _authenticate(self, headers: Mapping[str, str], client: str) -> KeyRecord | None:
        secret = _secret(headers)
        return None if secret is None else await self._look_up(secret, client)

    async def _look_up(self, secret: str, client: str) -> KeyRecord:
        """The valid key of a secret. Raises Problem (401, 429)."""
        end, record = self._cache.get(secret, (0.0, None))
        if record is not None and time.monotonic() < end:
            return record
        # Behind a proxy all clients have one address: wrong keys of one may not keep out the valid ones of others.
        if not self._failures.has(client) and text_sha256(secret) not in self._digests:
            raise _too_many(1 / FAILURE_RATE)
        record = await asyncio.to_thread(self.store.keys.authenticate, secret)
        if record is None:
            self._failures.wait_s(client)
            raise _unauthorized("an API key that is not valid")
        if len(self._cache) > MAX_CLIENTS:
            self._cache.clear()
        self._cache[secret] = time.monotonic() + CACHE_S, record
        return record


def require_all_galleries(context: RequestContext) -> None:
    """Refuse what concerns the whole service to a key that is for one gallery alone. Raises Problem (403)."""
    if context.gallery is not None:
        raise Problem(403, "forbidden", f"the key {context.actor!r} is for the gallery {context.gallery}",
                      expected="a key for all galleries")  # fmt: skip


def require_gallery(context: RequestContext, kind: str, name: str) -> None:
    """Refuse a resource to a key that is for one gallery alone. Raises Problem (403)."""
    if context.gallery is not None and (kind != "gallery" or name != context.gallery):
        raise Problem(403, "forbidden", f"the key {context.actor!r} is for the gallery {context.gallery}",
                      expected=f"a key for the {kind} {name}")  # fmt: skip


def _secret(headers: Mapping[str, str]) -> str | None:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("x-api-key", "").strip() or None


def _cookie(headers: Mapping[str, str]) -> str:
    """The token in the cookie of a session; empty without one."""
    text = headers.get("cookie", "")
    if COOKIE not in text:
        return ""
    try:
        cookies = SimpleCookie(text)
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


def _unauthorized(fault: str) -> Problem:
    return Problem(401, "unauthorized", fault, expected="the header Authorization: Bearer KEY, or X-API-Key: KEY",
                   remedy="make a key: unalike serve keys add NAME", headers={"WWW-Authenticate": "Bearer"})  # fmt: skip


def _too_many(seconds: float) -> Problem:
    return Problem(429, "too-many-requests", "more requests than this client may send",
                   remedy="send fewer, or start the service with another --rate-limit",
                   headers={"Retry-After": str(max(1, round(seconds)))})  # fmt: skip


# ---- browsers ----


def refuse_without_token(headers: Mapping[str, str], csrf: str) -> None:
    """Refuse a change by cookie without the CSRF token of its session. Raises Problem (403)."""
    if not hmac.compare_digest(headers.get(CSRF_HEADER, "").encode(), csrf.encode()):
        raise Problem(403, "csrf", "a change with a session's cookie and without its token", expected="the header X-CSRF-Token",
                      remedy="load the page again, or GET /v1/session")  # fmt: skip


def refuse_other_sites(method: str, headers: Mapping[str, str]) -> None:
    """Refuse a change that a page of another site made a browser send. Raises Problem (403)."""
    if method in _READING:
        return
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    is_other = origin is not None and _origin_host(origin) != headers.get("host", "").lower()
    if is_other or site not in ("none", "same-origin"):
        raise Problem(
            403, "cross-site", "a request from a page of another site", expected="one of this service's own pages"
        )


def _origin_host(origin: str) -> str | None:
    """Host and port of an Origin header; None for one that is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def refuse_other_hosts(headers: Mapping[str, str]) -> None:
    """Refuse a request under another name than the loopback's: a page whose name was made to lead here (DNS rebinding)."""
    name = headers.get("host", "")
    if not _is_loopback_name(name):
        raise Problem(403, "unknown-host", f"a request for the host {name[:100]!r}", expected="localhost or 127.0.0.1",
                      remedy="make an API key (unalike serve keys add): with one, any name may lead here")  # fmt: skip


@lru_cache(maxsize=64)
def _is_loopback_name(name: str) -> bool:
    """Whether the value of a Host header is the loopback's name or address."""
    try:
        host = urlsplit(f"//{name}").hostname or ""
        return host == "localhost" or host.endswith(".localhost") or ip_address(host).is_loopback
    except ValueError:
        return False  # another name, or none
