"""Address of a gallery in PostgreSQL: ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE?gallery=NAME``, parsed and shown.

The rest is what libpq takes: other parameters (``host``, ``sslmode``), ``PGPASSWORD``, ``~/.pgpass``, ``~/.pg_service.conf``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from unalike.errors import DataError
from unalike.recognition.backends.milvus_address import SCHEME as MILVUS
from unalike.recognition.backends.milvus_address import MilvusAddress, is_milvus, refuse_raw_signs

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
# Parameters that are shown; the others may hold a secret.
SHOWN = ("host", "hostaddr", "port", "dbname", "sslmode", "target_session_attrs")
_EXAMPLE = "postgresql://HOST/DATABASE?gallery=NAME"
# Passwords of the addresses that this process was given, by what is shown: a pickled gallery carries none.
_passwords: dict[str, str] = {}


def is_database(address: str | Path) -> bool:
    """Whether an address is one of a database, in place of a file's path.

    One with less than two slashes is too: ``parse`` refuses it, and no file is written whose name holds a password.
    """
    return is_milvus(address) or (
        isinstance(address, str) and ":" in address and address.partition(":")[0].lower() in SCHEMES
    )


@dataclass(frozen=True)
class DatabaseAddress:
    """A gallery in a database.

    Attributes:
        connection: address of the database for libpq, without a password.
        gallery: name of the gallery.
        shown: the address without secrets, for messages.
        password: the password in it; None where there is none.
    """

    connection: str = field(repr=False)
    gallery: str
    shown: str
    password: str | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, address: str) -> DatabaseAddress:
        """Take an address apart.

        Raises:
            DataError: it names no gallery, or cannot be read.
        """
        scheme, _, rest = address.partition("://")
        if scheme.lower() not in SCHEMES:
            raise DataError("an address of another kind", expected=_EXAMPLE)
        place, _, query = rest.partition("?")
        refuse_raw_signs(place, query, _EXAMPLE)
        authority, slash, database = place.partition("/")
        user_password, at, host = authority.rpartition("@")
        user, colon, password = user_password.partition(":")
        try:
            parameters = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        except ValueError:
            raise DataError("the parameters of the address of a gallery cannot be read", expected=_EXAMPLE) from None
        names = [value for key, value in parameters if key == "gallery"]
        if len(names) > 1:
            raise DataError("the address names several galleries", expected=_EXAMPLE)
        if not names or not names[0] or "\0" in names[0]:
            raise DataError("the address names no gallery", expected=_EXAMPLE)
        passwords = [value for key, value in parameters if key == "password"]
        secret = passwords[-1] if passwords else unquote(password) if colon and password else None
        others = [(key, value) for key, value in parameters if key not in ("gallery", "password")]
        plain = f"postgresql://{user}{at}{host}{slash}{database}"
        plain_parameters = [(key, value) for key, value in others if key in SHOWN]
        result = cls(
            _with_query(plain, others),
            names[0],
            _with_query(plain, [*plain_parameters, ("gallery", names[0])]),
            secret or None,
        )
        if result.password is not None:
            _passwords[result.shown] = result.password
        return result

    def parameters(self) -> dict[str, Any]:
        """Keyword arguments for ``psycopg.connect`` beside ``connection``."""
        password = self.password or _passwords.get(self.shown)
        return {} if password is None else {"password": password}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "password": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _with_query(address: str, parameters: list[tuple[str, str]]) -> str:
    return f"{address}?{urlencode(parameters, quote_via=quote, safe='/')}" if parameters else address


def display_address(address: str | Path) -> str:
    """A path as it is, and the address of a database without secrets."""
    text = str(address)
    scheme, colon, rest = text.partition(":")
    if colon and scheme.lower() in (*SCHEMES, MILVUS) and not rest.startswith("//"):
        # A path that was made of an address has one slash less, and is hidden from those who look for passwords in texts.
        return f"{scheme}://..."
    if is_milvus(text):
        return MilvusAddress.parse(text).shown
    if is_database(text):
        return DatabaseAddress.parse(text).shown
    return text
