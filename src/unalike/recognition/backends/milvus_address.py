"""Address of a gallery in Milvus: ``milvus://HOST:PORT/DATABASE?gallery=NAME``, parsed and shown.

The user and the password, or a token, come from the address or from ``MILVUS_TOKEN``, or ``MILVUS_USER`` and ``MILVUS_PASSWORD``.
``milvus:///FOLDER/NAME.db?gallery=NAME``, without a host, is a folder of Milvus Lite on this machine.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from unalike.errors import DataError

SCHEME = "milvus"
PORT = 19530
_EXAMPLE = "milvus://HOST:19530/DATABASE?gallery=NAME"
_SECRETS = ("token", "password")
_PARAMETERS = ("gallery", "secure", "index", *_SECRETS)
_INDEXES = ("", "hnsw")
_IS_SECURE = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
# A host's name or address, or an IPv6 address in brackets, and a port.
_HOST = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\s\[\]:/?#@]+)(?::(.*))?", re.DOTALL)
# Tokens of the addresses that this process was given, by what is shown: a pickled gallery carries none.
_tokens: dict[str, str] = {}


def is_milvus(address: str | Path) -> bool:
    """Whether an address is one of Milvus, perhaps with less than two slashes, which ``parse`` refuses."""
    return isinstance(address, str) and address.lower().startswith(f"{SCHEME}:")


def refuse_raw_signs(place: str, query: str, example: str) -> None:
    """Raise DataError where a ``/`` or ``?`` that is not escaped seems to stand in a password, since its rest would be shown.

    Args:
        place: what stands before the question mark, without the scheme.
        query: what stands behind it.
        example: of an address.
    """
    names = "&".join(pair.partition("=")[0] for pair in query.split("&"))
    if "@" in place.partition("/")[2] or "@" in names:
        raise DataError("the address of a gallery has an @ behind the first / or ?", expected=example,
                        remedy="in a user, a password or a name write / as %2F, ? as %3F and @ as %40")  # fmt: skip


@dataclass(frozen=True)
class MilvusAddress:
    """A gallery in Milvus.

    Attributes:
        uri: where the server is, without a password; or the path of a folder of Milvus Lite.
        database: name of the database there; empty for the server's default.
        gallery: name of the gallery.
        shown: the address without secrets, for messages.
        secret: the token, or ``USER:PASSWORD``, in the address; None where there is none.
        index: ``hnsw`` where a gallery that is made shall have an index for approximate search; empty for none.
    """

    uri: str
    database: str
    gallery: str
    shown: str
    secret: str | None = field(default=None, repr=False, compare=False)
    index: str = field(default="", compare=False)

    @classmethod
    def parse(cls, address: str) -> MilvusAddress:
        """Take an address apart.

        Raises:
            DataError: it names no gallery, or cannot be read.
        """
        scheme, _, rest = address.partition("://")
        if scheme.lower() != SCHEME:
            raise DataError("an address of another kind", expected=_EXAMPLE)
        place, _, query = rest.partition("?")
        authority, _, path = place.partition("/")
        refuse_raw_signs(place if authority else "", query, _EXAMPLE)
        credentials, at, host = authority.rpartition("@")
        user, _, password = credentials.partition(":")
        parameters = _parameters(query)
        password = parameters.get("password") or unquote(password)
        secret = parameters.get("token") or (f"{unquote(user)}:{password}" if at and password else "")
        is_secure = _IS_SECURE.get(parameters.get("secure", "false").lower())
        if is_secure is None:
            raise DataError("the parameter secure of the address of a gallery cannot be read", expected="true or false")
        index = parameters.get("index", "").lower()
        if index not in _INDEXES:
            raise DataError(f"the parameter index of the address of a gallery is {index!r}", expected="hnsw",
                            remedy="leave it out for exact search alone")  # fmt: skip
        shown_place = f"{user}{'@' if user else ''}{host}/{path}" if host else f"/{path}"
        shown_query = [*([("secure", "true")] if is_secure else []), ("gallery", parameters["gallery"])]
        uri = _server(host, is_secure) if host else _folder(unquote(path))
        result = cls(
            uri, unquote(path) if host else "", parameters["gallery"],
            f"{SCHEME}://{shown_place.rstrip('/')}?{urlencode(shown_query, quote_via=quote, safe='/')}", secret or None, index,
        )  # fmt: skip
        if result.secret is not None:
            _tokens[result.shown] = result.secret
        return result

    @property
    def is_local(self) -> bool:
        """Whether this is a folder of Milvus Lite, which one process can open at a time."""
        return self.uri.endswith(".db") and "://" not in self.uri

    def token(self) -> str:
        """The token, or ``USER:PASSWORD``: of the address or the environment; empty where there is none."""
        user, password = os.environ.get("MILVUS_USER", ""), os.environ.get("MILVUS_PASSWORD", "")
        from_environment = os.environ.get("MILVUS_TOKEN") or (f"{user}:{password}" if user and password else "")
        return self.secret or _tokens.get(self.shown) or from_environment

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "secret": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _parameters(query: str) -> dict[str, str]:
    """What stands behind the question mark, with a gallery. Raises DataError."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise DataError("the parameters of the address of a gallery cannot be read", expected=_EXAMPLE) from None
    names = [name for name, _ in pairs]
    if names.count("gallery") > 1:
        raise DataError("the address names several galleries", expected=_EXAMPLE)
    parameters = dict(pairs)
    if not parameters.get("gallery") or "\0" in parameters["gallery"]:
        raise DataError("the address names no gallery", expected=_EXAMPLE)
    if unknown := [name for name in names if name not in _PARAMETERS]:
        raise DataError(f"the address has an unknown parameter {unknown[0]!r}", expected=" or ".join(_PARAMETERS))
    return parameters


def _server(host: str, is_secure: bool) -> str:
    match = _HOST.fullmatch(host)
    if match is None:
        raise DataError("the host in the address of a gallery cannot be read", expected=_EXAMPLE)
    name, port = match[1], match[2] if match[2] is not None else str(PORT)
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 2**16:
        raise DataError("the port in the address of a gallery is no number of 1 to 65535", expected=_EXAMPLE)
    return f"{'https' if is_secure else 'http'}://{name}:{port}"


def _folder(path: str) -> str:
    if not path.endswith(".db"):
        raise DataError("the address names neither a host nor a folder of Milvus Lite",
                        expected=f"{_EXAMPLE}, or {SCHEME}:///FOLDER/NAME.db?gallery=NAME")  # fmt: skip
    return f"/{path}"
