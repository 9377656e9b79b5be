"""Latency and throughput of `unalike serve`, beside the same network in process and behind other servers.

    python benchmarks/service_speed.py --model MODEL.onnx --gallery FILE --images DIR [--out FILE] [--seconds 10]
        [--clients 1,8,32,128] [--rounds 3] [--turns 30] [--parts latency,throughput] [--peers plain] [--runtime onnxruntime] [--precision fp32]
        [--peer-python PYTHON]

All servers and load generators are processes of their own and talk over sockets. Latency: one client's `/v1/identify` less the
same upload to an endpoint that parses it and answers a constant, beside `Recogniser.identify` of the same bytes in process; the
three are measured in turns of a second, `--turns` of each. Throughput: images for each second of the server's processor time, beside that of
the engine from files to vectors in process (`inference.embedding.embed_files`); the clock's images per second are given too, but
there the load generator takes processor time from the server. Peers serve the same network through the same runtime: `plain`
is a FastAPI handler that embeds image by image in a thread; `litserve` and `ray` need their packages, in an environment of their own whose interpreter
`--peer-python` names.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from load_generator import Tally, closed_loop, percentile, prepare

HERE = Path(__file__).parent
READY_S = 120.0
TURN_S = 1.0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> float:
    """Seconds until the address answers 200. Exits where the process ends before."""
    start = time.monotonic()
    while time.monotonic() - start < READY_S:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return time.monotonic() - start
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.02)
    raise SystemExit(f"{url} was not ready within {READY_S:g} s")


def processor_seconds(pid: int) -> float:
    """Processor time of a process and those it started."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return sum(sum(member.cpu_times()[:2]) for member in family)


@contextlib.contextmanager
def server(command: Sequence[str], port: int, ready: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends."""
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until_ready(f"http://127.0.0.1:{port}{ready}", process)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def generate(url: str, images: Path, **options: Any) -> dict[str, Any]:
    """Run the load generator; its summary."""
    command = [sys.executable, str(HERE / "load_generator.py"), "--url", url, "--images", str(images)]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def serve_command(arguments: argparse.Namespace, port: int, folder: Path, *more: str) -> list[str]:
    """The command line of our service."""
    return [
        sys.executable, "-m", "unalike", "serve", "--model", str(arguments.model), "--gallery", str(arguments.gallery),
        "--port", str(port), "--folder", str(folder / "serve"), "--runtime", arguments.runtime,
        "--precision", arguments.precision, *more,
    ]  # fmt: skip


def peer_command(name: str, arguments: argparse.Namespace, port: int) -> list[str]:
    """The command line of a peer: a mode of `service_peers.py`."""
    return [arguments.peer_python, str(HERE / "service_peers.py"), name, "--model", str(arguments.model), "--gallery", str(arguments.gallery),
            "--port", str(port), "--runtime", arguments.runtime, "--precision", arguments.precision]  # fmt: skip


IN_PROCESS = """
import json, sys, time
from pathlib import Path
import unalike
model, gallery, images, runtime, precision = sys.argv[1:]
recognizer = unalike.Recogniser.load(model, gallery, runtime=runtime, precision=precision)
files = sorted(path for path in Path(images).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:200]
contents = [path.read_bytes() for path in files]
print("ready", flush=True)
number = 0
for line in sys.stdin:  # seconds of a turn
    taken, start = [], time.perf_counter()
    while time.perf_counter() - start < float(line):
        begin = time.perf_counter()
        recognizer.identify(contents[number % len(contents)], k=3)
        taken.append(time.perf_counter() - begin)
        number += 1
    print(json.dumps(taken), flush=True)
"""

FILES_TO_VECTORS = """
import json, sys, time
from pathlib import Path
from unalike.inference.embedding import embed_files
from unalike.inference.loaded_model import load_model
model, images, runtime, precision, seconds = sys.argv[1:]
loaded = load_model(model, runtime=runtime, precision=precision)
files = sorted(path for path in Path(images).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:200]
embed_files(loaded.engine, files[:32], loaded.view)
start, busy, count = time.perf_counter(), time.process_time(), 0
while time.perf_counter() - start < float(seconds):
    count += len(embed_files(loaded.engine, files, loaded.view).vectors_ND)
print(json.dumps({"per_cpu_second": count / (time.process_time() - busy), "per_second": count / (time.perf_counter() - start)}))
"""


def run_program(program: str, *arguments: object) -> dict[str, Any]:
    """Run a program in a process of its own; the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], check=True, capture_output=True, text=True
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


class InProcess:
    """`Recogniser.identify` in a process of its own, which works only in its turns."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        words = [arguments.model, arguments.gallery, arguments.images, arguments.runtime, arguments.precision]
        self._process = subprocess.Popen([sys.executable, "-c", IN_PROCESS, *map(str, words)], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._answers.readline()

    def take(self, seconds: float) -> list[float]:
        """Seconds of each call of one turn."""
        print(seconds, file=self._requests, flush=True)
        return list(json.loads(self._answers.readline()))

    def close(self) -> None:
        """End the process."""
        self._requests.close()
        self._process.wait()


class OneClient:
    """One client of a server, with one connection a turn."""

    def __init__(self, url: str, images: Path) -> None:
        files = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:200]
        self._parts, self._requests = urlsplit(url), prepare(url, files, "image", "")

    def take(self, seconds: float) -> list[float]:
        """Seconds of each answer of one turn, which were all 200."""
        tally = Tally()
        asyncio.run(closed_loop(self._parts.hostname or "", self._parts.port or 80, self._requests, 1, seconds, tally))
        if set(tally.seconds) != {"200"}:
            raise SystemExit(f"answers of {self._parts.geturl()}: {tally.samples}")
        return tally.seconds["200"]


def latency_ratio(turns: Sequence[dict[str, list[float]]]) -> float:
    """(served - constant) / in process, of the medians of all calls of some turns."""
    served, constant, own = (
        statistics.median(itertools.chain.from_iterable(turn[name] for turn in turns)) for name in ("served", "constant", "in process")
    )  # fmt: skip
    return (served - constant) / own


def measure_latency(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One client: identify over HTTP less an endpoint that answers a constant, beside in process, in short turns, so that a
    machine whose speed varies gives each its share of good and bad seconds. The interval is a bootstrap of turns."""
    ours, constant = free_port(), free_port()
    with (
        server(serve_command(arguments, ours, folder), ours, "/readyz", folder),
        server(peer_command("constant", arguments, constant), constant, "/readyz", folder),
        contextlib.closing(InProcess(arguments)) as own,
    ):
        sources = {
            "in process": own, "served": OneClient(f"http://127.0.0.1:{ours}/v1/identify", arguments.images),
            "constant": OneClient(f"http://127.0.0.1:{constant}/v1/identify", arguments.images),
        }  # fmt: skip
        for source in sources.values():
            source.take(3.0)  # warm, and all of the service is loaded
        turns = [{name: source.take(TURN_S) for name, source in sources.items()} for _ in range(arguments.turns)]
    draws = random.Random(0)
    ratios = sorted(latency_ratio(draws.choices(turns, k=len(turns))) for _ in range(1000))
    pooled = {name: list(itertools.chain.from_iterable(turn[name] for turn in turns)) for name in sources}
    row = {"part": "latency", "turns": len(turns), "ratio of p50": round(latency_ratio(turns), 3), "95 %": [round(ratios[25], 3), round(ratios[974], 3)]}  # fmt: skip
    for name, values in pooled.items():
        row[name] = {"n": len(values)} | {
            f"p{100 * share:g}": round(1e3 * percentile(values, share), 2) for share in (0.5, 0.99)
        }
    print(json.dumps(row), flush=True)
    return row


def measure_throughput(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Images for each second of processor time, by the number of clients and the server."""
    rows = []
    for _ in range(arguments.rounds):
        engine = run_program(
            FILES_TO_VECTORS,
            arguments.model,
            arguments.images,
            arguments.runtime,
            arguments.precision,
            arguments.seconds,
        )
        for name in ("unalike", *arguments.peers.split(",")):
            if not name:
                continue
            port = free_port()
            command = (
                serve_command(arguments, port, folder) if name == "unalike" else peer_command(name, arguments, port)
            )
            with server(command, port, "/readyz" if name != "litserve" else "/health", folder) as process:
                url = f"http://127.0.0.1:{port}/v1/identify"
                generate(url, arguments.images, clients=8, seconds=2)
                for clients in map(int, arguments.clients.split(",")):
                    before = processor_seconds(process.pid)
                    load = generate(url, arguments.images, clients=clients, seconds=arguments.seconds)
                    used = processor_seconds(process.pid) - before
                    answers = load["counts"].get("200", 0)
                    row = {
                        "part": "throughput", "server": name, "clients": clients, "counts": load["counts"],
                        "per_second": load["per_second"], "per_cpu_second": round(answers / used, 2),
                        "engine_per_cpu_second": round(engine["per_cpu_second"], 2),
                        "share": round(answers / used / engine["per_cpu_second"], 3), "ms": load["ms"].get("200"),
                    }  # fmt: skip
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--gallery", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", default="1,8,32,128")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--parts", default="latency,throughput")
    parser.add_argument("--peers", default="plain")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        if "latency" in arguments.parts:
            rows.append(measure_latency(arguments, Path(name)))
        if "throughput" in arguments.parts:
            rows += measure_throughput(arguments, Path(name))
    if arguments.out:
        with arguments.out.open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row | {"load": os.getloadavg()[0]}) + "\n" for row in rows)


if __name__ == "__main__":
    main()
