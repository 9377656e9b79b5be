"""Images and parameters of a request: multipart/form-data, JSON with base64 or addresses, or one image as the body.

A body is read in memory, up to a limit, and never written to a file. What is an image is decided by its content when it is
decoded. A file's name is only repeated in the answer, and kept beside the decision.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from unalike.errors import closest
from unalike.sanitize import one_line
from unalike.serve.problems import Problem

IMAGE_FIELDS = ("image", "images", "file", "files")
MAX_NAME = 300  # characters of a file's name that are repeated
MAX_FILE = 200  # characters of a file's name that are kept with a decision
MAX_TEXT = 1 << 16  # bytes of a parameter
MAX_PARAMETERS = 64
# Most values of a JSON body beside images and their names: a body of 32 MiB of empty lists took a minute and a gigabyte.
MAX_JSON_VALUES = 1 << 16
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class Limits:
    """Most bytes of a body, and most images of a request."""

    max_bytes: int
    max_files: int


@dataclass(slots=True)
class Upload:
    """One image: its content, or the address where it is; the name that the client gave it; its field in the request."""

    name: str
    content: bytes = b""
    url: str = ""
    field: str = "image"
    sha: str | None = None  # content hash, where the image is kept


@dataclass
class Form:
    """Images and parameters of a request."""

    images: list[Upload] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


async def read_form(request: Request, limits: Limits, fields: Sequence[str] = IMAGE_FIELDS) -> Form:
    """Read the body of a request.

    Args:
        request: its body is consumed.
        limits: what it may hold.
        fields: names of the fields that hold images.

    Raises:
        Problem: too large, too many images, of another type or damaged.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind == b"multipart/form-data":
        boundary = options.get(b"boundary")
        if not boundary:
            raise _damaged("a multipart body without a boundary")
        form = await _read_multipart(request, boundary, limits, fields)
    elif kind == b"application/json":
        form = _from_json(await read_body(request, limits.max_bytes), limits, fields)
    elif kind.startswith(b"image/") or kind == b"application/octet-stream":
        form = Form([Upload("", await read_body(request, limits.max_bytes))])
    elif not kind and not int(request.headers.get("content-length") or 0):
        form = Form()
    else:
        raise Problem(415, "media-type", f"a body of type {kind.decode('latin-1')[:100] or 'unknown'}",
                      expected="multipart/form-data, application/json, or an image as the body",
                      remedy=f"curl -F image=@photo.jpg {request.url.path}")  # fmt: skip
    if len(form.images) > limits.max_files:
        raise too_many_files(len(form.images), limits.max_files)
    for name, value in request.query_params.multi_items():
        add_value(form.values, name, value)
    return form


def add_value(values: dict[str, Any], name: str, value: Any) -> None:
    """Add a parameter to others; one that is given several times is a list, which only those for lists take."""
    earlier = values.get(name)
    if isinstance(earlier, list):
        earlier.append(value)
    else:
        values[name] = value if earlier is None else [earlier, value]


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. Raises Problem (413) for one of more bytes."""
    refuse_length(request, max_bytes)
    chunks, total = [], 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > max_bytes:
            raise too_large(max_bytes)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def refuse_length(request: Request, max_bytes: int) -> None:
    """Refuse by its header a body that is too long, before it is read."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise too_large(max_bytes)


def too_large(max_bytes: int) -> Problem:
    """The problem of a body of more bytes."""
    return Problem(413, "too-large", "the body is too large", expected=f"at most {max_bytes} bytes",
                   remedy="send smaller or fewer images, or start the service with a larger --max-bytes",
                   headers={"Connection": "close"})  # fmt: skip


def too_many_files(count: int, most: int) -> Problem:
    """The problem of a request with too many images."""
    return Problem(413, "too-many-files", f"{count} images", expected=f"at most {most} a request",
                   remedy="send them in several requests, or start the service with a larger --max-files")  # fmt: skip


def _damaged(fault: str, requirement: str = "a complete body of its Content-Type") -> Problem:
    return Problem(400, "damaged-request", fault, expected=requirement)


class _PartReader:
    """Callbacks of the parser; the content of a part is copied once, into the part."""

    def __init__(self, limits: Limits, fields: Sequence[str]) -> None:
        self.form, self._limits, self._fields = Form(), limits, fields
        self._header_name, self._header_value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._size = self._parameters = 0
        self.is_complete = False

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin, "on_part_data": self._add, "on_part_end": self._end,
            "on_header_field": self._add_name, "on_header_value": self._add_value, "on_header_end": self._end_header,
            "on_end": self._finish,
        }  # fmt: skip

    def _begin(self) -> None:
        self._headers, self._chunks, self._size = {}, [], 0

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name, self._header_value = b"", b""

    def _add(self, data: bytes, start: int, end: int) -> None:
        self._chunks.append(data[start:end])
        self._size += end - start

    def _finish(self) -> None:
        self.is_complete = True

    def _end(self) -> None:
        content = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        _, options = parse_options_header(self._headers.get(b"content-disposition", b"").decode("latin-1"))
        name = _text(options.get(b"name", b""))
        if b"filename" in options or name in self._fields:
            self._add_image(name, _text(options.get(b"filename", b"")), content)
        elif self._size > MAX_TEXT or self._parameters >= max(MAX_PARAMETERS, self._limits.max_files):
            raise _damaged(
                f"the parameter {shown(name)} is too long, or there are too many parameters",
                requirement=f"at most {MAX_TEXT} bytes each",
            )
        else:
            self._parameters += 1
            add_value(self.form.values, name, _text(content))

    def _add_image(self, name: str, file_name: str, content: bytes) -> None:
        if name.removesuffix("[]") not in self._fields:
            raise unknown_field(name, self._fields)
        if len(self.form.images) >= self._limits.max_files:
            raise too_many_files(self._limits.max_files + 1, self._limits.max_files)
        self.form.images.append(Upload(file_name, content, field=name.removesuffix("[]")))


async def _read_multipart(request: Request, boundary: bytes, limits: Limits, fields: Sequence[str]) -> Form:
    refuse_length(request, limits.max_bytes)
    reader = _PartReader(limits, fields)
    total = 0
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        async for chunk in request.stream():
            total += len(chunk)
            if total > limits.max_bytes:
                raise too_large(limits.max_bytes)
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise _damaged(f"a multipart body that cannot be read: {error}") from error
    if not reader.is_complete:
        raise _damaged("a multipart body that ends early")
    return reader.form


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")


def unknown_field(name: str, fields: Sequence[str]) -> Problem:
    """The problem of a file in a field that is none."""
    return Problem(422, "unknown-field", f"a file in the field {shown(name)}", expected=" or ".join(fields),
                   remedy=closest(name, fields) or f"curl -F {fields[0]}=@photo.jpg")  # fmt: skip


def shown(name: str) -> str:
    """A text of the client as messages repeat it."""
    return repr(one_line(name[:MAX_NAME]))


def file_name(name: str) -> str | None:
    r"""The name of an image's file as it is kept with a decision.

    Args:
        name: what the client calls the image: a name, a path of its system, or the address where the image is.

    Returns:
        The last part of a path, without control characters, in one line of at most ``MAX_FILE`` characters; signs that turn
        the direction of writing are escaped (``\u202e``). None where nothing remains.
    """
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    last = one_line(_CONTROL.sub("", last[:MAX_NAME])).strip()
    return (last if len(last) <= MAX_FILE else f"{last[: MAX_FILE - 1]}…") or None


# ---- JSON ----


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises Problem (400), before anything is made of it where it holds too many values (413)."""
    count = sum(body.count(sign) for sign in (b",", b"[", b"{"))
    if count > MAX_JSON_VALUES:
        raise Problem(413, "too-large", f"JSON of some {count} values", expected=f"at most {MAX_JSON_VALUES}",
                      remedy="send images as parts of a form")  # fmt: skip
    try:
        value = json.loads(body, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise _damaged(f"a body that is no JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise Problem(422, "invalid-value", f"JSON of type {type(value).__name__}", expected="an object")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ValueError for a name that comes twice, of whose values one would be lost."""
    value: dict[str, Any] = {}
    for name, item in pairs:
        if name in value:
            raise ValueError(f"{shown(name)} comes twice in one object")
        value[name] = item
    return value


def _from_json(body: bytes, limits: Limits, fields: Sequence[str]) -> Form:
    values = parse_json(body)
    form = Form()
    for name in fields:
        if name in values:
            entries = values.pop(name)
            entries = entries if isinstance(entries, list) else [entries]
            if len(form.images) + len(entries) > limits.max_files:
                raise too_many_files(len(form.images) + len(entries), limits.max_files)
            for entry in entries:
                form.images.append(_upload_of(entry, name))
    form.values = values
    return form


def _upload_of(entry: Any, field_name: str) -> Upload:
    """An image in JSON: base64, or an object with ``content`` (base64) or ``url``, and perhaps a ``name``."""
    if isinstance(entry, str):
        entry = {"content": entry}
    if not isinstance(entry, Mapping):
        raise _wrong_image(f"an image of type {type(entry).__name__}")
    unknown = sorted(set(entry) - {"content", "url", "name"})
    if unknown:
        raise _wrong_image(f"an image with the key {shown(str(unknown[0]))}")
    name, url, content = entry.get("name", ""), entry.get("url"), entry.get("content")
    if not isinstance(name, str) or (url is None) == (content is None):
        raise _wrong_image("an image with both content and url, or neither, or with a name that is no text")
    if url is not None:
        if not isinstance(url, str):
            raise _wrong_image("an address that is no text")
        return Upload(name or url.partition("?")[0], url=url, field=field_name)
    if not isinstance(content, str):
        raise _wrong_image("content that is no text")
    if content.startswith("data:") and "," in content:
        content = content.partition(",")[2]
    try:
        return Upload(name, base64.b64decode(content, validate=True), field=field_name)
    except (binascii.Error, ValueError) as error:
        raise _wrong_image(f"content that is no base64: {error}") from error


def _wrong_image(fault: str) -> Problem:
    return Problem(422, "invalid-value", fault, expected='base64, or {"content": base64, "name": ...}, or {"url": ...}')


# ---- parameters ----


class Parameters:
    """Reads the parameters of a form by type; those that were not read are refused at the end."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        self._names: list[str] = []

    @classmethod
    def of_query(cls, request: Request) -> Parameters:
        """Those in a request's address."""
        values: dict[str, Any] = {}
        for name, value in request.query_params.multi_items():
            add_value(values, name, value)
        return cls(values)

    def _take(self, name: str) -> Any:
        self._names.append(name)
        value = self._values.pop(name, None)
        return None if value == "" else value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number of ``low`` to ``high``."""
        value = self._take(name)
        if value is None:
            return default
        if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise self._wrong(name, value, f"a whole number of {low} to {high}")
        return value

    def number(self, name: str, default: float | None, low: float, high: float) -> float | None:
        """A number of ``low`` to ``high``."""
        value = self._take(name)
        if value is None:
            return default
        try:
            number = float(value) if not isinstance(value, bool) else float("nan")
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        if not low <= number <= high:
            raise self._wrong(name, value, f"a number of {low:g} to {high:g}")
        return number

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """One of several words, or None."""
        value = self._take(name)
        if value is not None and value not in choices:
            raise self._wrong(name, value, f"one of {', '.join(choices)}", closest(str(value), choices))
        return value  # type: ignore[no-any-return]

    def boolean(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self._take(name)
        if value is None:
            return default
        truth = {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())
        if truth is None:
            raise self._wrong(name, value, "true or false")
        return truth

    def text(self, name: str, default: str | None = None, most: int = 1000) -> str | None:
        """A text of at most ``most`` characters."""
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, str) or len(value) > most:
            raise self._wrong(name, value, f"one text of at most {most} characters")
        return value

    def texts(self, name: str, most: int = 1000) -> list[str]:
        """A list of texts; one text is a list of one."""
        value = self._take(name)
        entries = [] if value is None else value if isinstance(value, list) else [value]
        if len(entries) > most or not all(isinstance(entry, str) for entry in entries):
            raise self._wrong(name, value, f"a list of at most {most} texts")
        return list(entries)

    def mapping(self, name: str) -> dict[str, Any] | None:
        """A JSON object, or that as a text; None where there is none."""
        value = self._take(name)
        if isinstance(value, str):
            try:
                value = json.loads(value, object_pairs_hook=_object)
            except (ValueError, RecursionError):
                raise self._wrong(name, value, "a JSON object, with each name once") from None
        if value is not None and not isinstance(value, dict):
            raise self._wrong(name, value, "a JSON object")
        return value

    def finish(self) -> None:
        """Refuse what no call has read."""
        if self._values:
            name = str(next(iter(self._values)))
            raise Problem(422, "unknown-parameter", f"the parameter {shown(name)}",
                          expected=f"one of {', '.join(self._names)}" if self._names else "no parameters",
                          remedy=closest(name, self._names))  # fmt: skip

    def _wrong(self, name: str, value: Any, form: str, remedy: str = "") -> Problem:
        return Problem(422, "invalid-value", f"{name}: {shown(str(value))}", expected=form, remedy=remedy)


MAX_BOXES = 100


def read_boxes(value: Any, name: str) -> list[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) in pixels: a list of four whole numbers each, or that as JSON in a text.

    Raises:
        Problem: 422 for anything else.
    """
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    elif value in ("", None):
        value = []
    boxes = value if isinstance(value, list) and len(value) <= MAX_BOXES else None
    for box in boxes or ():
        is_box = (
            isinstance(box, list) and len(box) == 4 and all(type(side) is int and 0 <= side < 2**31 for side in box)
        )
        if not is_box or box[0] >= box[2] or box[1] >= box[3]:
            boxes = None
            break
    if boxes is None:
        raise Problem(422, "invalid-value", f"{name}: {shown(str(value))}",
                      expected=f"at most {MAX_BOXES} boxes [left, top, right, bottom] in pixels, left < right and top < bottom")  # fmt: skip
    return [(box[0], box[1], box[2], box[3]) for box in boxes]


__all__ = [
    "ClientDisconnect",
    "Form",
    "Limits",
    "Parameters",
    "Upload",
    "parse_json",
    "read_body",
    "read_boxes",
    "read_form",
]
