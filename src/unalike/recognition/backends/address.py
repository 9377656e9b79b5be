"""Galleries by their address: the path of a file, or ``postgresql://HOST/DATABASE?gallery=NAME`` (extra ``postgres``)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unalike.recognition.backends.database_address import DatabaseAddress, is_database
from unalike.recognition.backends.protocol import GalleryBackend
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_file import write_gallery_file
from unalike.storage.file_lock import file_lock


def open_gallery(address: str | Path, *, verify: bool = False) -> GalleryBackend:
    """Open a gallery that exists.

    Args:
        address: path of a file, or address of a gallery in a database.
        verify: check all of it now.

    Raises:
        DataError: there is no such gallery, it is damaged, or its server cannot be reached.
        MissingExtra: the packages for its database are not installed.
    """
    if is_database(address):
        from unalike.recognition.backends.pgvector import PostgresGallery

        return PostgresGallery.open(DatabaseAddress.parse(str(address)), verify=verify)
    return Gallery.load(address, verify=verify)


def save_gallery(gallery: Gallery, address: str | Path, *, overwrite: bool = False) -> GalleryBackend:
    """Keep a gallery at an address, with its ids and its calibration.

    Args:
        gallery: what is kept.
        address: path of a file, or address of a gallery in a database.
        overwrite: replace the gallery that is there.

    Returns:
        The gallery there.

    Raises:
        DataError: there is one, or it cannot be written.
        MissingExtra: the packages for its database are not installed.
    """
    if is_database(address):
        from unalike.recognition.backends.pgvector import PostgresGallery

        return PostgresGallery.create(DatabaseAddress.parse(str(address)), gallery, overwrite=overwrite)
    gallery.save(address, overwrite=overwrite)
    return gallery


def replace_gallery(
    address: str | Path, gallery: Gallery, before: Any, on_replace: Callable[[], None] | None = None
) -> bool:  # fmt: skip
    """Replace a gallery by one of another network in one durable step, where it was not changed since a view.

    Whoever opens it sees the old or the new one. Whoever has it open goes on reading the old one, is told by ``refresh``
    (ModelError), and can change it no more.

    Args:
        address: path of a file, or address of a gallery in a database.
        gallery: what is kept instead, with its ids, its calibration and its network.
        before: a view of the gallery that ``gallery`` was made from; it may be closed.
        on_replace: called just before, while nobody else can change the gallery.

    Returns:
        False where it was changed since; nothing is replaced then.

    Raises:
        DataError: there is no such gallery, or the new one cannot be written.
    """
    if is_database(address):
        from unalike.recognition.backends.pgvector import PostgresGallery

        return PostgresGallery.replace(DatabaseAddress.parse(str(address)), gallery, before, on_replace)
    with file_lock(address):
        if not Gallery.load(address).view().is_unchanged_since(before):
            return False
        if on_replace is not None:
            on_replace()
        write_gallery_file(Path(address), gallery.snapshot, gallery.calibration, gallery.model_identity)
    return True


def check_new(address: str, *, overwrite: bool = False) -> None:
    """Find out before a long work whether a gallery can be made in a database: an early ``save_gallery`` of nothing.

    Raises:
        DataError: there is one and ``overwrite`` is not set, or the server cannot be reached.
        MissingExtra: the packages for its database are not installed.
    """
    from unalike.recognition.backends.pgvector import PostgresGallery

    PostgresGallery.check_new(DatabaseAddress.parse(address), overwrite=overwrite)


def delete_gallery(address: str | Path) -> None:
    """Delete a gallery; whoever reads one of a database meanwhile is waited for.

    Raises:
        DataError: there is no such gallery, or it may not be deleted.
        MissingExtra: the packages for its database are not installed.
    """
    if is_database(address):
        from unalike.recognition.backends.pgvector import PostgresGallery

        PostgresGallery.delete(DatabaseAddress.parse(str(address)))
        return
    Gallery.load(address)  # nothing but a gallery is deleted
    with file_lock(address):
        os.remove(address)


@contextmanager
def edit_gallery(address: str | Path) -> Iterator[GalleryBackend]:
    """Open a gallery for one atomic change, durable at the end, while others wait to change it.

    Yields:
        The gallery; that of a database must not be used after the block.

    Raises:
        DataError, MissingExtra: as of ``open_gallery`` and ``GalleryBackend.change``.
    """
    if is_database(address):
        gallery = open_gallery(address)
        try:
            with gallery.change() as change:
                yield change
        finally:
            gallery.close()
    else:
        with Gallery.edit(address) as edited:
            yield edited
