"""Sends requests to a service from a process of its own, and prints what came back as one JSON object.

    python benchmarks/load_generator.py --url http://127.0.0.1:8000/v1/identify --images DIR [--clients 8] [--seconds 10]
        [--rate 0] [--field image] [--key KEY] [--deadline 60]

Closed loop: each client sends its next request when the answer to the last one is there. Open loop (``--rate`` requests a
second): requests are sent at their time, whatever the service does; one without an answer after ``--deadline`` seconds counts
as lost. Requests are prepared before the clock starts, and answers are not parsed, so that the generator takes little of the
processor. Only http/1.1 with connections that are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

BOUNDARY = "unalike-load-7d1f"
LOST = "lost"


@dataclass
class Tally:
    """Seconds of each answer by status, and answers kept for a look."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    samples: dict[str, str] = field(default_factory=dict)
    retry_after: int = 0

    def add(self, status: str, seconds: float, head: bytes = b"", body: bytes = b"") -> None:
        self.seconds.setdefault(status, []).append(seconds)
        self.samples.setdefault(status, body[:200].decode("utf-8", "replace"))
        self.retry_after += b"retry-after:" in head.lower()


def multipart(content: bytes, name: str, field_name: str) -> bytes:
    """A body with one image."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field_name}"; filename="{name}"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def prepare(url: str, images: list[Path], field_name: str, key: str, method: str = "POST") -> list[bytes]:
    """One request for each image, as bytes."""
    parts = urlsplit(url)
    requests = []
    for path in images:
        body = multipart(path.read_bytes(), path.name, field_name)
        lines = [
            f"{method} {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
            f"Content-Length: {len(body)}", *([f"Authorization: Bearer {key}"] if key else []), "", "",
        ]  # fmt: skip
        requests.append("\r\n".join(lines).encode() + body)
    return requests


class Connection:
    """One kept connection."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, request: bytes) -> tuple[str, bytes, bytes]:
        """Status, head and body of the answer."""
        if self._reader is not None and self._reader.at_eof():  # the server closed it while it was idle
            self.close()
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=2**24)
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        body = await self._reader.readexactly(length)
        if b"connection: close" in lines:
            self.close()
        return head[9:12].decode(), head, body

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def closed_loop(host: str, port: int, requests: list[bytes], clients: int, seconds: float, tally: Tally) -> float:
    """Run ``clients`` clients for some seconds; returns the seconds that it took."""
    start = time.perf_counter()
    end = start + seconds

    async def client(number: int) -> None:
        connection, turn = Connection(host, port), number
        while (now := time.perf_counter()) < end:
            try:
                status, head, body = await connection.send(requests[turn % len(requests)])
            except (OSError, asyncio.IncompleteReadError) as error:
                connection.close()
                tally.add(type(error).__name__, time.perf_counter() - now)
                await asyncio.sleep(0.01)
                continue
            tally.add(status, time.perf_counter() - now, head, body)
            turn += clients
        connection.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return time.perf_counter() - start


async def open_loop(
    host: str, port: int, requests: list[bytes], rate: float, seconds: float, deadline: float, tally: Tally
) -> float:
    """Send ``rate`` requests a second for some seconds; returns the seconds that it took."""
    idle: list[Connection] = []
    start = time.perf_counter()

    async def one(number: int) -> None:
        connection = idle.pop() if idle else Connection(host, port)
        now = time.perf_counter()
        try:
            status, head, body = await asyncio.wait_for(connection.send(requests[number % len(requests)]), deadline)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            connection.close()
            tally.add(LOST if isinstance(error, TimeoutError) else type(error).__name__, time.perf_counter() - now)
            return
        tally.add(status, time.perf_counter() - now, head, body)
        idle.append(connection)

    tasks = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    return time.perf_counter() - start


def percentile(values: list[float], share: float) -> float:
    """The value that a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summarize(tally: Tally, took: float) -> dict[str, object]:
    """Counts, latencies in milliseconds by status, and the generator's own processor time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    counts = Counter({status: len(values) for status, values in tally.seconds.items()})
    return {
        "seconds": round(took, 3), "counts": dict(counts), "per_second": round(counts["200"] / took, 2),
        "retry_after": tally.retry_after, "generator_cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "ms": {
            status: {name: round(1e3 * percentile(values, share), 2) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}
            for status, values in tally.seconds.items()
        },
        "samples": {status: text for status, text in tally.samples.items() if status != "200"},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--field", default="image")
    parser.add_argument("--key", default="")
    parser.add_argument("--deadline", type=float, default=60.0)
    parser.add_argument("--most", type=int, default=200, help="images to use")
    arguments = parser.parse_args()
    files = sorted(path for path in arguments.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    requests = prepare(arguments.url, files[: arguments.most], arguments.field, arguments.key)
    parts, tally = urlsplit(arguments.url), Tally()
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    if arguments.rate:
        run = open_loop(host, port, requests, arguments.rate, arguments.seconds, arguments.deadline, tally)
    else:
        run = closed_loop(host, port, requests, arguments.clients, arguments.seconds, tally)
    print(json.dumps(summarize(tally, asyncio.run(run))))


if __name__ == "__main__":
    main()
