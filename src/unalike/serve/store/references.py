"""Names of references whose picture is in the image store: ``sha256:HEX/TOKEN``, and the galleries of a service by name.

The name alone says which picture belongs to a vector, so that no table beside the gallery can disagree with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from unalike.recognition.backends.address import open_gallery
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
    """The galleries that services of this store serve: name -> address, so that a purge or a backup leaves none out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, addresses: Mapping[str, str]) -> None:
        """Write down the galleries of a service; of addresses with a password, all but that."""
        now = utc_now()
        with self._database.writing() as connection:
            for name, address in addresses.items():
                address = _without_password(address)
                change = galleries.update().where(galleries.c.name == name)
                if not connection.execute(change.values(address=address, registered=now)).rowcount:
                    connection.execute(galleries.insert().values(name=name, address=address, registered=now))

    def list(self) -> dict[str, str]:
        """Name -> address."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(galleries.c.name, galleries.c.address).order_by(galleries.c.name))
            return {name: address for name, address in rows}


def _without_password(address: str) -> str:
    """The address as it is found again: the password comes from the environment of whoever opens it (``PGPASSWORD``)."""
    if "://" not in address:
        return address
    url = make_url(address)
    query = {name: value for name, value in url.query.items() if name != "password"}
    plain_url = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, query)
    return plain_url.render_as_string(hide_password=False)


def open_galleries(addresses: Mapping[str, str]) -> dict[str, GalleryBackend]:
    """Open galleries, name -> address. Raises DataError for one that is gone or damaged."""
    return {name: open_gallery(address) for name, address in addresses.items()}
