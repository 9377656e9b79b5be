"""Answers of the service: the result, or the error that a problem document (RFC 9457) stands for; waiting and connecting.

Shape letters: N images, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from unalike.client.calls import Call
from unalike.errors import ServiceError, SpecError, UnalikeError, UnreadableImage, missing_extra

if TYPE_CHECKING:
    import httpx
    import numpy as np

RETRIES = 3  # after an answer 503, or a connection that cannot be made
WAIT_S, LONGEST_WAIT_S = (
    0.2,
    10.0,
)  # before the first retry, doubled each time; and the longest that a service may ask for

T = TypeVar("T")


def read_answer(call: Call[T], response: httpx.Response) -> T:
    """The result of an answer. Raises ServiceError, or UnreadableImage, for a problem document."""
    if response.is_success:
        return call.parse(response.json() if response.content else None)
    raise _error_of(response)


def _error_of(response: httpx.Response) -> UnalikeError:
    try:
        problem = response.json()
        fault, kind = str(problem["found"]), str(problem.get("type", ""))
    except (ValueError, KeyError, TypeError):
        return ServiceError(
            f"{response.request.url.copy_with(query=None)} answered {response.status_code} {response.reason_phrase}",
            status=response.status_code, remedy="is there an unalike service at this address?",
        )  # fmt: skip
    if kind.endswith(":unreadable-image"):
        return UnreadableImage(fault, expected=problem.get("expected", ""), remedy=problem.get("remedy", ""))
    return ServiceError(
        fault, expected=str(problem.get("expected") or ""), remedy=str(problem.get("remedy") or ""),
        status=response.status_code, kind=kind.rpartition(":")[2], request_id=str(problem.get("request_id") or ""),
    )  # fmt: skip


def wait_seconds(response: httpx.Response | None, attempt: int) -> float:
    """Seconds before another attempt: what the service asks for, else twice as long each time."""
    wish = response.headers.get("retry-after", "") if response is not None else ""
    seconds = float(wish) if wish.replace(".", "", 1).isdigit() else WAIT_S * 2**attempt
    return min(seconds, LONGEST_WAIT_S)


def unreachable(address: str, error: Exception) -> ServiceError:
    return ServiceError(
        f"no answer from {address}: {error or type(error).__name__}", remedy="start it with: unalike serve"
    )


def client_options(address: str, key: str | None, timeout: float, options: Mapping[str, Any]) -> dict[str, Any]:
    if not address.startswith(("http://", "https://")):
        raise SpecError(f"address {address!r}", expected="http://... or https://...")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return {"base_url": address.rstrip("/"), "timeout": timeout, "headers": headers, **options}


def import_httpx() -> Any:
    try:
        import httpx
    except ImportError as error:
        raise missing_extra("httpx", "client", "a client of the service") from error
    return httpx


def raise_errors(results: Sequence[Any]) -> list[Any]:
    """The results. Raises the first that is an error."""
    for result in results:
        if isinstance(result, UnalikeError):
            raise result
    return list(results)


def as_array(vectors: Sequence[Sequence[float]]) -> np.ndarray:
    import numpy as np

    return np.array(vectors, np.float32).reshape(len(vectors), -1 if vectors else 0)
