"""Client of the service: the same answers as ``Recogniser``, over HTTP, in a sync and an async form.

Shape letters: N images, D width of an embedding.
"""

from __future__ import annotations

import asyncio
import io
import mimetypes
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar
from urllib.parse import quote

from unalike.errors import DataError, ServiceError, SpecError, UnalikeError, UnreadableImage, missing_extra
from unalike.recognition.identification import Identification, Neighbor

if TYPE_CHECKING:
    import httpx
    import numpy as np

DEFAULT_ADDRESS = "http://127.0.0.1:8000"
IMAGES_PER_REQUEST = 32  # of a longer list; the service limits the images of a request (--max-files)
PAGE = 100  # entries of a list that are fetched at once
RETRIES = 3  # after an answer 503, or a connection that cannot be made
WAIT_S, LONGEST_WAIT_S = (
    0.2,
    10.0,
)  # before the first retry, doubled each time; and the longest that a service may ask for

T = TypeVar("T")
Part = tuple[str, tuple[str, bytes, str]]


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its answer is read.

    Attributes:
        method, path: of the request.
        parse: makes the result from the JSON of the answer.
        parameters: of the query.
        body: JSON of the request.
        parts: files and fields of a multipart body.
        is_repeatable: whether it may be sent again after a connection broke: reading, or with an Idempotency-Key.
        headers: further ones.
    """

    method: str
    path: str
    parse: Callable[[Any], T]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    parts: Sequence[Part] = ()
    is_repeatable: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``httpx.Client.request``."""
        values: dict[str, Any] = {"headers": dict(self.headers)}
        if parameters := {name: value for name, value in self.parameters.items() if value is not None}:
            values["params"] = parameters
        if self.parts:
            values["files"] = list(self.parts)
        if self.body is not None:
            values["json"] = self.body
        return values


# ---- images ----


def encode_image(image: Any) -> tuple[str, bytes, str]:
    """Name, content and media type of an image.

    Args:
        image: a path, encoded bytes, an open binary file, a PIL image, or an array uint8 (H, W), (H, W, 1) or (H, W, 3).
            Arrays and PIL images are sent as PNG, which loses nothing.

    Raises:
        DataError: the file cannot be read, or it is something else.
    """
    if isinstance(image, str | Path):
        try:
            content = Path(image).read_bytes()
        except OSError as error:
            raise DataError(f"{image} cannot be read: {error.strerror}", expected="an image file") from None
        return Path(image).name, content, mimetypes.guess_type(str(image))[0] or "application/octet-stream"
    if isinstance(image, bytes | bytearray | memoryview):
        return "image", bytes(image), "application/octet-stream"
    if hasattr(image, "read"):
        return Path(str(getattr(image, "name", "image"))).name, image.read(), "application/octet-stream"
    return "image.png", _encode_png(image), "image/png"


def _encode_png(image: Any) -> bytes:
    import numpy as np
    from PIL import Image

    if not isinstance(image, Image.Image):
        array = np.asarray(image)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[..., 0]
        if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
            raise DataError(
                f"an array of shape {array.shape} and type {array.dtype}",
                expected="uint8 (H, W), (H, W, 1) or (H, W, 3), RGB; or a path, bytes, an open file, a PIL image",
            )
        image = Image.fromarray(array)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _image_list(images: Any) -> list[Any]:
    """One image, or several, as a list; an array of four dimensions is several."""
    if isinstance(images, str | Path | bytes | bytearray | memoryview) or hasattr(images, "read"):
        return [images]
    if hasattr(images, "ndim"):
        return [images] if images.ndim < 4 else list(images)
    return list(images) if isinstance(images, Iterable) else [images]


def _image_parts(images: Sequence[Any], name: str = "image") -> list[Part]:
    return [(name, encode_image(image)) for image in images]


def _field_parts(values: Mapping[str, Any]) -> list[Part]:
    """Fields of a form, as httpx takes them beside files."""
    return [(name, (None, str(value).encode(), "text/plain")) for name, value in values.items() if value is not None]  # type: ignore[misc]


# ---- requests ----


def _scope(kind: str, name: str | None, path: str) -> str:
    """Path of an endpoint of a named gallery, inspector or set of assets; of the default one where the name is None."""
    return f"/v1{path}" if name is None else f"/v1/{kind}/{quote(name, safe='')}{path}"


def identify_call(images: Sequence[Any], k: int, rule: str | None, gallery: str | None) -> Call[list[Any]]:
    """Label images; an Identification each, or the UnreadableImage of one that cannot be decoded, in order."""
    parts = [*_image_parts(images), *_field_parts({"k": k, "rule": rule})]
    return Call("POST", _scope("galleries", gallery, "/identify"), _in_order(len(images), _identification), parts=parts)


def embed_call(images: Sequence[Any], gallery: str | None) -> Call[list[Any]]:
    """Compute embeddings: a list of numbers each, or the UnreadableImage of one that cannot be decoded, in order."""
    parse = _in_order(len(images), lambda row: row["vector"], "vectors")
    return Call("POST", _scope("galleries", gallery, "/embed"), parse, parts=_image_parts(images))


def image_call(
    kind: str, name: str | None, path: str, images: Mapping[str, Any], values: Mapping[str, Any]
) -> Call[dict[str, Any]]:
    """An endpoint that takes named images and parameters and answers JSON."""
    parts = [(key, encode_image(image)) for key, image in images.items()] + _field_parts(values)
    return Call("POST", _scope(kind, name, path), dict, parts=parts)


def _in_order(
    count: int, parse: Callable[[Mapping[str, Any]], Any], key: str = "answers"
) -> Callable[[Any], list[Any]]:
    """Put the answers and the unreadable images of an answer in the order of the request.

    An answer names its image by ``index``, the place in the request.
    """

    def read(document: Mapping[str, Any]) -> list[Any]:
        results: list[Any] = [None] * count
        for row in document[key]:
            results[row["index"]] = parse(row)
        for row in document["unreadable"]:
            results[row["index"]] = UnreadableImage(row["reason"])
        return results

    return read


def _identification(row: Mapping[str, Any]) -> Identification:
    names = Identification.__dataclass_fields__
    values = {name: value for name, value in row.items() if name in names}
    values["neighbours"] = tuple(
        Neighbor(**{name: entry[name] for name in Neighbor.__dataclass_fields__}) for entry in row["neighbours"]
    )
    return Identification(**values)


# ---- answers ----


def _read_answer(call: Call[T], response: httpx.Response) -> T:
    """The result of an answer. Raises ServiceError, or UnreadableImage, for a problem document."""
    if response.is_success:
        return call.parse(response.json() if response.content else None)
    raise _error_of(response)


def _error_of(response: httpx.Response) -> UnalikeError:
    try:
        problem = response.json()
        found, kind = str(problem["found"]), str(problem.get("type", ""))
    except (ValueError, KeyError, TypeError):
        return ServiceError(
            f"{response.request.url.copy_with(query=None)} answered {response.status_code} {response.reason_phrase}",
            status=response.status_code, remedy="is there an unalike service at this address?",
        )  # fmt: skip
    if kind.endswith(":unreadable-image"):
        return UnreadableImage(found, expected=problem.get("expected", ""), remedy=problem.get("remedy", ""))
    return ServiceError(
        found, expected=str(problem.get("expected") or ""), remedy=str(problem.get("remedy") or ""),
        status=response.status_code, kind=kind.rpartition(":")[2], request_id=str(problem.get("request_id") or ""),
    )  # fmt: skip


def _wait_seconds(response: httpx.Response | None, attempt: int) -> float:
    """Seconds before another attempt: what the service asks for, else twice as long each time."""
    asked = response.headers.get("retry-after", "") if response is not None else ""
    seconds = float(asked) if asked.replace(".", "", 1).isdigit() else WAIT_S * 2**attempt
    return min(seconds, LONGEST_WAIT_S)


def _unreachable(address: str, error: Exception) -> ServiceError:
    return ServiceError(
        f"no answer from {address}: {error or type(error).__name__}", remedy="start it with: unalike serve"
    )


def _client_options(address: str, key: str | None, timeout: float, options: Mapping[str, Any]) -> dict[str, Any]:
    if not address.startswith(("http://", "https://")):
        raise SpecError(f"address {address!r}", expected="http://... or https://...")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return {"base_url": address.rstrip("/"), "timeout": timeout, "headers": headers, **options}


def _import_httpx() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise missing_extra("httpx", "client", "a client of the service") from error
    return httpx


# ---- clients ----


def _batches(images: Any) -> Iterator[list[Any]]:
    every = _image_list(images)
    for start in range(0, len(every), IMAGES_PER_REQUEST):
        yield every[start : start + IMAGES_PER_REQUEST]


def _raise_errors(results: Sequence[Any]) -> list[Any]:
    """The results. Raises the first that is an error."""
    for result in results:
        if isinstance(result, UnalikeError):
            raise result
    return list(results)


def _as_array(vectors: Sequence[Sequence[float]]) -> np.ndarray:
    import numpy as np

    return np.array(vectors, np.float32).reshape(len(vectors), -1)


class Client:
    """A connection to a service (``unalike serve``). Any number of threads may use one.

    Examples:
        >>> client = Client("http://localhost:8000")                # doctest: +SKIP
        >>> client.identify("photo.jpg")[0].label

    Args:
        address: of the service.
        key: API key, where the service asks for one.
        timeout: longest time of a request, in seconds.
        options: further ones of ``httpx.Client``, such as ``verify`` for a certificate of one's own.

    Raises:
        MissingExtra: httpx is not installed (extra ``client``).

    Every method raises ServiceError where the service refuses or cannot be reached, and repeats a request that the service was
    too busy for.
    """

    def __init__(
        self, address: str = DEFAULT_ADDRESS, key: str | None = None, *, timeout: float = 60.0, **options: Any
    ) -> None:
        library = _import_httpx()
        self.address = address.rstrip("/")
        self._http: httpx.Client = library.Client(**_client_options(address, key, timeout, options))
        self._broken: type[Exception] = library.TransportError
        self._refused: type[Exception] = library.ConnectError

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, call: Call[T]) -> T:
        """Send one request, again where the service is busy, and return its result."""
        for attempt in range(RETRIES + 1):
            response = None
            try:
                response = self._http.request(call.method, call.path, **call.options())
            except self._broken as error:
                if attempt == RETRIES or not (call.is_repeatable or isinstance(error, self._refused)):
                    raise _unreachable(self.address, error) from error
            if response is not None and (response.status_code != 503 or attempt == RETRIES):
                return _read_answer(call, response)
            time.sleep(_wait_seconds(response, attempt))
        raise AssertionError("the last attempt returns or raises")

    def identify(
        self, images: Any, k: int = 1, rule: str | None = None, *, gallery: str | None = None
    ) -> list[Identification]:
        """Find the class of each image; one that cannot be read ends it (``identify_many`` goes on).

        Args:
            images: one image or several, each as in ``encode_image``.
            k: number of nearest enrolled images to return with each.
            rule: ``nearest``, ``prototype`` or ``vote``; the rule of the calibration when None.
            gallery: name of the gallery; the service's default one when None.

        Raises:
            UnreadableImage: an image cannot be decoded.
        """
        return _raise_errors([r for part in _batches(images) for r in self.call(identify_call(part, k, rule, gallery))])

    def identify_many(
        self, images: Any, k: int = 1, rule: str | None = None, *, gallery: str | None = None
    ) -> Iterator[Identification | UnreadableImage]:
        """Find the class of each of many images, in order; one that cannot be decoded gives its error, and the others go on."""
        for part in _batches(images):
            yield from self.call(identify_call(part, k, rule, gallery))

    def embed(self, images: Any, *, gallery: str | None = None) -> np.ndarray:
        """Compute the embeddings of images: float32 (N, D)."""
        return _as_array(_raise_errors([r for part in _batches(images) for r in self.call(embed_call(part, gallery))]))


class AsyncClient:
    """``Client`` for asyncio: the same methods, awaited.

    Args:
        address, key, timeout, options: as of ``Client``; options are those of ``httpx.AsyncClient``.
    """

    def __init__(
        self, address: str = DEFAULT_ADDRESS, key: str | None = None, *, timeout: float = 60.0, **options: Any
    ) -> None:
        library = _import_httpx()
        self.address = address.rstrip("/")
        self._http: httpx.AsyncClient = library.AsyncClient(**_client_options(address, key, timeout, options))
        self._broken: type[Exception] = library.TransportError
        self._refused: type[Exception] = library.ConnectError

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def call(self, call: Call[T]) -> T:
        """Send one request, again where the service is busy, and return its result."""
        for attempt in range(RETRIES + 1):
            response = None
            try:
                response = await self._http.request(call.method, call.path, **call.options())
            except self._broken as error:
                if attempt == RETRIES or not (call.is_repeatable or isinstance(error, self._refused)):
                    raise _unreachable(self.address, error) from error
            if response is not None and (response.status_code != 503 or attempt == RETRIES):
                return _read_answer(call, response)
            await asyncio.sleep(_wait_seconds(response, attempt))
        raise AssertionError("the last attempt returns or raises")

    async def identify(
        self, images: Any, k: int = 1, rule: str | None = None, *, gallery: str | None = None
    ) -> list[Identification]:
        """As ``Client.identify``."""
        results: list[Any] = []
        for part in _batches(images):
            answers = await self.call(identify_call(part, k, rule, gallery))
            results += answers
        return _raise_errors(results)

    async def identify_many(
        self, images: Any, k: int = 1, rule: str | None = None, *, gallery: str | None = None
    ) -> AsyncIterator[Identification | UnreadableImage]:
        """As ``Client.identify_many``."""
        for part in _batches(images):
            for result in await self.call(identify_call(part, k, rule, gallery)):
                yield result

    async def embed(self, images: Any, *, gallery: str | None = None) -> np.ndarray:
        """As ``Client.embed``."""
        results: list[Any] = []
        for part in _batches(images):
            answers = await self.call(embed_call(part, gallery))
            results += answers
        return _as_array(_raise_errors(results))
