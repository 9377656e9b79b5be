"""Endpoint ``export``: all references of a gallery as a ZIP file, a folder for each class, and a table of what is where."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from unalike.data.box_columns import is_box_column
from unalike.data.manifests import COLUMNS as MANIFEST_COLUMNS
from unalike.errors import NoSuchImage
from unalike.recognition.backends.protocol import Entry, pages
from unalike.sanitize import csv_cell
from unalike.serve.documents import add_scoped
from unalike.serve.service import Service
from unalike.serve.store.images import ImageStore, media_type_of
from unalike.serve.store.references import hash_of_reference
from unalike.serve.uploads import Parameters
from unalike.storage.digests import text_sha256

TABLE = "references.csv"
COLUMNS = ("path", "label", "id", "name")
_PREFIX = "attribute_"
MAX_FOLDER = 120  # bytes of a folder's name
_SUFFIXES = {
    "image/jpeg": ".jpg", "image/png": ".png", "image/gif": ".gif", "image/webp": ".webp", "image/bmp": ".bmp",
    "image/tiff": ".tif", "image/avif": ".avif", "image/heic": ".heic", "image/heif": ".heif",
}  # fmt: skip
# Characters that some file system does not take in a name, or that mean something in a path; the sign of the escapes too.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|%]')
# Names of devices of Windows.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest of the format: the same references give the same file


def export_router(service: Service) -> APIRouter:
    """The endpoint."""
    router = APIRouter()

    async def export(request: Request, name: str | None) -> Response:
        """Pictures that the service keeps, by class, with references.csv: path, label, id, name and attributes of every reference.

        The path of a reference without a kept picture is empty. An attribute is a column of its name; one whose name means something
        else in a table of images, such as ``path``, is ``attribute_path``.
        """
        resource = service.gallery(request, name)
        Parameters.of_query(request).finish()

        def find() -> list[Entry]:
            with resource.gallery.view() as view:
                return list(pages(view))

        entries = await asyncio.to_thread(find)
        headers = {"Content-Disposition": f'attachment; filename="{resource.name}.zip"'}
        return StreamingResponse(
            zip_references(entries, service.store.images), headers=headers, media_type="application/zip"
        )

    content = {"application/zip": {"schema": {"type": "string", "format": "binary"}}}
    extra: dict[str, Any] = {"responses": {"200": {"description": "The ZIP file.", "content": content}}}
    add_scoped(
        router, "GET", "galleries", "/export", export, summary="Export all references with their pictures.", extra=extra
    )
    return router


class _Pieces(io.RawIOBase):
    """What a ZIP file writes, until it is taken; it cannot be sought in."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, content: Any) -> int:
        """Keep a piece."""
        self._pieces.append(bytes(content))
        return len(content)

    def take(self) -> bytes:
        """What was written since the last call."""
        content, self._pieces = b"".join(self._pieces), []
        return content


def zip_references(entries: Sequence[Entry], images: ImageStore) -> Iterator[bytes]:
    """A ZIP file of references, piece by piece: one picture at a time is in memory.

    Args:
        entries: the references.
        images: has their pictures.

    Raises:
        StoreError: a picture cannot be read; the file ends there.
    """
    folders, pieces, table = name_folders(entry.label for entry in entries), _Pieces(), io.StringIO(newline="")
    writer = csv.writer(table)
    columns = name_columns({name for entry in entries for name in entry.attributes})
    writer.writerow((*COLUMNS, *columns.values()))
    with zipfile.ZipFile(pieces, "w", zipfile.ZIP_STORED) as file:
        for entry in entries:
            content = _picture(entry, images)
            path = ""
            if content is not None:
                path = f"{folders[entry.label]}/{entry.id}{_SUFFIXES.get(media_type_of(content), '.image')}"
                file.writestr(zipfile.ZipInfo(path, _DATE), content)
                yield pieces.take()
            values = [entry.attributes.get(name, "") for name in columns]
            writer.writerow(map(csv_cell, (path, entry.label, entry.id, entry.name, *values)))
        table_content = table.getvalue().encode("utf-8", "surrogateescape")
        file.writestr(zipfile.ZipInfo(TABLE, _DATE), table_content, zipfile.ZIP_DEFLATED)
        yield pieces.take()
    yield pieces.take()


def name_columns(names: Iterable[str]) -> dict[str, str]:
    """The column of each attribute, in order: its name, behind a prefix where a table of images has another meaning for it.

    One prefix taken away gives the name back (``static/class_import.js``): names that begin with it get one more.
    """
    return {name: f"{_PREFIX}{name}" if _has_another_meaning(name) else name for name in sorted(names)}


def _has_another_meaning(name: str) -> bool:
    return name in COLUMNS or name in MANIFEST_COLUMNS or is_box_column(name) or name.startswith(_PREFIX)


def _picture(entry: Entry, images: ImageStore) -> bytes | None:
    """The picture of a reference; None where the service does not keep it, or no longer."""
    sha = hash_of_reference(entry.name)
    try:
        return None if sha is None else images.get(sha)
    except NoSuchImage:
        return None


def name_folders(labels: Iterable[str]) -> dict[str, str]:
    """A folder's name for each class, which every file system takes; no two differ in case alone, or in the form of Unicode."""
    folders: dict[str, str] = {}
    keys: set[str] = set()
    for label in labels:
        if label in folders:
            continue
        name = _folder_name(label)
        if _key(name) in keys or len(name.encode()) > MAX_FOLDER:
            name = f"{name.encode()[: MAX_FOLDER - 14].decode('utf-8', 'ignore')}%{text_sha256(ascii(label), 12)}"
        folders[label] = name
        keys.add(_key(name))
    return folders


def _folder_name(label: str) -> str:
    """A label with escapes such as %2F for what is not safe."""
    name = "".join(
        _escape(sign) if unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp") else sign
        for sign in _UNSAFE.sub(lambda match: _escape(match[0]), label)
    )
    if name[0] in ". " or _DEVICES.fullmatch(name):
        name = _escape(name[0]) + name[1:]
    return name[:-1] + _escape(name[-1]) if name[-1] in ". " else name


def _escape(sign: str) -> str:
    return "".join(f"%{byte:02X}" for byte in sign.encode("utf-8", "surrogatepass"))


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
