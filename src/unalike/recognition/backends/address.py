"""Galleries by their address: the path of a file, ``postgresql://HOST/DATABASE?gallery=NAME`` or ``milvus://HOST?gallery=NAME``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from unalike.errors import DataError
from unalike.recognition.backends.database_address import DatabaseAddress, display_address, is_database
from unalike.recognition.backends.milvus_address import MilvusAddress, is_milvus
from unalike.recognition.backends.protocol import GalleryBackend
from unalike.recognition.gallery import Gallery
from unalike.recognition.gallery_file import write_gallery_file
from unalike.recognition.snapshot_view import SnapshotView
from unalike.storage.file_lock import file_lock
from unalike.storage.overwrite import refuse_address

EXPECTED = "the path of a file, postgresql://HOST/DATABASE?gallery=NAME or milvus://HOST?gallery=NAME"


def _backend(address: str) -> tuple[Any, Any]:
    """The class of galleries for an address of a database, and the address taken apart."""
    if is_milvus(address):
        from unalike.recognition.backends.milvus import MilvusGallery

        return MilvusGallery, MilvusAddress.parse(address)
    from unalike.recognition.backends.pgvector import PostgresGallery

    return PostgresGallery, DatabaseAddress.parse(address)


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
        backend, parsed = _backend(str(address))
        gallery: GalleryBackend = backend.open(parsed, verify=verify)
        return gallery
    refuse_address(address, DataError, EXPECTED)
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
        backend, parsed = _backend(str(address))
        copy: GalleryBackend = backend.create(parsed, gallery, overwrite=overwrite)
        return copy
    refuse_address(address, DataError, EXPECTED)
    gallery.save(address, overwrite=overwrite)
    return gallery


def copy_gallery(source: str | Path, target: str | Path, *, overwrite: bool = False) -> GalleryBackend:
    """Copy a gallery as it is now, with its ids, revision, calibration and network, to any other address.

    Nobody sees the copy before it is complete. One into a database that was interrupted goes on where it ended, as long as the
    source is unchanged; one into a file begins again.

    Args:
        source: path of a file, or address of a gallery in a database.
        target: the same.
        overwrite: replace the gallery that is there.

    Returns:
        The copy.

    Raises:
        DataError: source and target are the same, there is no such source, there is one at the target, or it cannot be written.
        MissingExtra: the packages for a database are not installed.
    """
    if display_address(source) == display_address(target) or (
        not is_database(source) and not is_database(target) and os.path.realpath(source) == os.path.realpath(target)
    ):
        raise DataError(f"{display_address(source)} would be copied onto itself", expected="two addresses")
    if is_database(target):
        check_new(str(target), overwrite=overwrite)
    else:
        refuse_address(target, DataError, EXPECTED)
        if os.path.lexists(target) and not overwrite:
            raise DataError(f"{target} exists", expected="a new file", remedy="choose another name or overwrite it")
    gallery = open_gallery(source)
    with gallery.view() as view:
        state = SnapshotView(view.snapshot(), view.calibration, view.model_identity)
    gallery.close()
    copy = Gallery.of_state(state)
    if not is_database(target):
        copy.save(target, overwrite=overwrite)
        return copy
    backend, parsed = _backend(str(target))
    target_gallery: GalleryBackend = backend.copy(
        parsed, copy, _content_digest(display_address(source), state), overwrite=overwrite
    )
    return target_gallery


def _content_digest(source: str, state: SnapshotView) -> str:
    """A digest (64 hexadecimal digits) of where a gallery lies and of all that its copy holds but the calibration."""
    snapshot = state.snapshot()
    facts = [source, state.revision, snapshot.next_id, state.dim, snapshot.half, state.model_identity.to_dict()]
    digest = hashlib.sha256(json.dumps([facts, list(state.counts().items())]).encode())
    for array in (snapshot.ids_N, snapshot.codes_N, *snapshot.parts()):
        digest.update(np.ascontiguousarray(array).data)
    for name in snapshot.names.unpack()[: len(snapshot)]:
        digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
    if snapshot.attributes is not None:
        digest.update(json.dumps(list(snapshot.attributes.sets)).encode() + snapshot.attributes.codes_N.tobytes())
    return digest.hexdigest()


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
        backend, parsed = _backend(str(address))
        return bool(backend.replace(parsed, gallery, before, on_replace))
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
    backend, parsed = _backend(address)
    backend.check_new(parsed, overwrite=overwrite)


def delete_gallery(address: str | Path) -> None:
    """Delete a gallery; whoever reads one of a database meanwhile is waited for.

    Raises:
        DataError: there is no such gallery, or it may not be deleted.
        MissingExtra: the packages for its database are not installed.
    """
    if is_database(address):
        backend, parsed = _backend(str(address))
        backend.delete(parsed)
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
