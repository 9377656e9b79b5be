"""Static files of the pages: a fixed list, read from the package once; browsers ask each time whether one has changed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from unalike.serve.problems import Problem
from unalike.serve.service import Service
from unalike.storage.digests import content_sha256

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
    "LICENSE": "text/plain; charset=utf-8",
}  # fmt: skip


@dataclass(frozen=True)
class StaticFile:
    """Content of a file, its media type and its validator."""

    content: bytes
    media_type: str
    etag: str


@cache
def static_table() -> dict[str, StaticFile]:
    """Path below ``/static/`` -> file. The stylesheet of reports is one of them: it holds colors and sizes of all pages."""
    sources = dict(_walk(files("unalike.serve") / "static", ""))
    sources["style.css"] = files("unalike.report") / "templates" / "style.css"
    table = {}
    for name, source in sources.items():
        media_type = next((kind for suffix, kind in MEDIA_TYPES.items() if name.endswith(suffix)), None)
        if media_type is not None:
            content = source.read_bytes()
            table[name] = StaticFile(content, media_type, f'"{content_sha256(content)[:32]}"')
    return table


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    entries = []
    for entry in folder.iterdir():
        name = prefix + entry.name
        entries += _walk(entry, f"{name}/") if entry.is_dir() else [(name, entry)]
    return entries


def static_files(_: Service) -> APIRouter:
    """The route."""
    router = APIRouter(include_in_schema=False)
    table = static_table()

    @router.get("/static/{name:path}", response_class=Response)
    async def file(request: Request, name: Annotated[str, Path()]) -> Response:
        entry = table.get(name)
        if entry is None:
            raise Problem(404, "no-file", f"there is no /static/{name[:200]}")
        headers = {"ETag": entry.etag, "Cache-Control": "no-cache"}
        validators = [value.strip().removeprefix("W/") for value in request.headers.get("if-none-match", "").split(",")]
        if entry.etag in validators:
            return Response(status_code=304, headers=headers)
        return Response(entry.content, headers=headers, media_type=entry.media_type)

    return router
