"""Names of references whose picture is in the image store: ``sha256:HEX/TOKEN``, and the galleries of a service by name.

The name alone says which picture belongs to a vector, so that no table beside the gallery can disagree with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from unalike.errors import DataError, closest
from unalike.recognition.backends.address import open_gallery
from unalike.recognition.backends.database_address import display_address, is_database
from unalike.recognition.backends.milvus_address import is_milvus
from unalike.recognition.backends.protocol import Entry, GalleryBackend, pages
from unalike.serve.store.database import Database
from unalike.serve.store.images import check_sha
from unalike.serve.store.records import utc_now
from unalike.serve.store.tables import galleries

_NAME = re.compile(r"sha256:([0-9a-f]{64})/.+", re.DOTALL)


def reference_name(sha: str, token: str) -> str:
    """The name of a reference whose picture has this content hash; the token tells two of one picture apart."""
    return f"sha256:{check_sha(sha)}/{token}"


def hash_of_reference(name: str) -> str | None:
    """The content hash in the name of a reference; None in other names, such as paths."""
    match = _NAME.fullmatch(name)
    return match[1] if match else None


def references_of(gallery: GalleryBackend, label: str | None = None) -> Iterator[Entry]:
    """All references of a gallery, or of one class, in one state."""
    with gallery.view() as view:
        yield from pages(view, label)


def hashes_of(references: Iterable[Entry]) -> set[str]:
    """Content hashes of the references whose picture is in the image store."""
    return {sha for reference in references if (sha := hash_of_reference(reference.name)) is not None}


class Galleries:
    """The galleries that services of this store serve, so that a purge or a backup leaves none out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, addresses: Mapping[str, str]) -> None:
        """Write down the galleries of a service, by name; of addresses with a password, all but that.

        A gallery of the same name whose file is gone was moved, and is forgotten; one whose file exists is another service's.
        """
        now = utc_now()
        with self._database.writing() as connection:
            for name, address in addresses.items():
                address = _without_password(address)
                others = connection.execute(sa.select(galleries.c.address).where(galleries.c.name == name)).scalars()
                gone = [other for other in others if not is_database(other) and not os.path.exists(other)]
                connection.execute(galleries.delete().where(galleries.c.key.in_([address, *gone])))
                row = {"key": address, "name": name, "address": address, "registered": now}
                connection.execute(galleries.insert().values(row))

    def list(self) -> dict[str, str]:
        """Name -> address, the latest first; where several services use one name, the others' get a number."""
        query = sa.select(galleries.c.name, galleries.c.address)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(galleries.c.registered.desc(), galleries.c.key)).all()
        addresses: dict[str, str] = {}
        for name, address in rows:
            number = 2
            unique = name
            while unique in addresses:
                unique, number = f"{name}-{number}", number + 1
            addresses[unique] = address
        return addresses

    def forget(self, name: str) -> str:
        """Forget a gallery that is gone for good: images of its references may then be removed.

        Args:
            name: as ``list`` has it.

        Returns:
            Its address.

        Raises:
            DataError: there is none of that name.
        """
        addresses = self.list()
        if name not in addresses:
            raise DataError(f"no gallery {name!r} is registered", remedy=closest(name, addresses))
        with self._database.writing() as connection:
            connection.execute(galleries.delete().where(galleries.c.key == addresses[name]))
        return addresses[name]


def _without_password(address: str) -> str:
    """The address as it is found again: the password comes from the environment (``PGPASSWORD``, ``MILVUS_TOKEN``)."""
    if not is_database(address):
        return os.path.abspath(address)
    if is_milvus(address):
        return display_address(address)
    url = make_url(address)
    query = {name: value for name, value in url.query.items() if name != "password"}
    plain_url = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, query)
    return plain_url.render_as_string(hide_password=False)


@contextmanager
def open_galleries(addresses: Mapping[str, str]) -> Iterator[dict[str, GalleryBackend]]:
    """Open galleries, name -> address, and close them at the end. Raises DataError for one that is gone or damaged."""
    galleries: dict[str, GalleryBackend] = {}
    try:
        for name, address in addresses.items():
            galleries[name] = open_gallery(address)
        yield galleries
    finally:
        for gallery in galleries.values():
            gallery.close()
