"""Latency of `unalike serve` without and with a candidate that the service itself trains meanwhile.

    python benchmarks/service_beside_training.py --model MODEL.onnx --gallery FILE --images DIR --train DIR
        [--clients 1,4] [--seconds 15] [--rounds 3] [--windows 2] [--settle 20] [--cores all 1 0,1 ...] [--out FILE]

For each entry of ``--cores`` (`all`: no ``--train-cores``) a server is started that may train on the class folders of
``--train``. Each round measures `/v1/identify` of the clients without a training, then begins one by `POST /v1/trainings`, waits until it
computes, measures ``--windows`` times with it, and cancels it. Stated are p50 and p99 in milliseconds and answers a second as medians
over the windows, the ratios of each round's windows to that round without, and the cores that the training had meanwhile (its processor
time by the clock): below a tenth there was none to speak of, and the window does not count. Server, training and load generator
are processes of their own; the load generator takes processor time too, in both settings alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
from service_speed import free_port, generate, serve_command, server

WORKER = "unalike.serve.learning.worker"
PATIENCE_S, MINUTES, LEAST_CORES = 180.0, 60, 0.1


def training_process(pid: int) -> psutil.Process | None:
    """The process of the training among those that the server started; None where there is none."""
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if any(WORKER in word for word in child.cmdline()):
                return child
        except psutil.Error:
            continue
    return None


def processor_seconds(process: psutil.Process | None) -> float:
    """Processor time of a process and those below it; 0 without one."""
    try:
        family = [process, *process.children(recursive=True)] if process else []
        return sum(sum(member.cpu_times()[:2]) for member in family)
    except psutil.Error:
        return 0.0


def measure_window(arguments: argparse.Namespace, address: str, clients: int, pid: int) -> dict[str, Any]:
    """Latency of some clients for a while, and the cores that a training had meanwhile."""
    training = training_process(pid)
    before, start = processor_seconds(training), time.monotonic()
    load = generate(f"{address}/v1/identify", arguments.images, clients=clients, seconds=arguments.seconds)
    cores = (processor_seconds(training) - before) / (time.monotonic() - start)
    return {"clients": clients, "counts": load["counts"], "per_second": load["per_second"], **load["ms"]["200"],
            "training_cores": round(cores, 2)}  # fmt: skip


def begin_training(arguments: argparse.Namespace, address: str, pid: int) -> str:
    """Begin a training, and wait until it has computed for a while; its id."""
    order = {"folder": "photos", "with_service": False, "minutes": MINUTES}
    answer = httpx.post(f"{address}/v1/trainings", json=order, timeout=PATIENCE_S)
    answer.raise_for_status()
    task, end = str(answer.json()["id"]), time.monotonic() + PATIENCE_S
    while processor_seconds(training_process(pid)) < arguments.settle:
        state = httpx.get(f"{address}/v1/tasks/{task}", timeout=PATIENCE_S).json()
        if state["finished"] or time.monotonic() > end:
            raise SystemExit(f"the training does not compute: {state['state']} {state['message']}")
        time.sleep(0.5)
    return task


def cancel_training(address: str, task: str, pid: int) -> None:
    """Cancel a training, and wait until its process is gone."""
    httpx.post(f"{address}/v1/tasks/{task}/cancel", timeout=PATIENCE_S).raise_for_status()
    end = time.monotonic() + PATIENCE_S
    while training_process(pid) is not None and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(1)


def measure_cores(arguments: argparse.Namespace, cores: str, folder: Path) -> dict[str, Any]:
    """Alternate between no training and one on some cores."""
    port = free_port()
    words = ["--train-folder", f"photos={arguments.train}", "--no-keep-images"]
    words += [] if cores == "all" else ["--train-cores", cores]
    windows: list[dict[str, Any]] = []
    with server(serve_command(arguments, port, folder, *words), port, "/readyz", folder) as process:
        address = f"http://127.0.0.1:{port}"
        generate(f"{address}/v1/identify", arguments.images, clients=4, seconds=2)
        for turn in range(arguments.rounds):
            for clients in arguments.counts:
                row = measure_window(arguments, address, clients, process.pid)
                windows.append({"round": turn, "training": False, **row})
            task = begin_training(arguments, address, process.pid)
            for _ in range(arguments.windows):
                for clients in arguments.counts:
                    row = measure_window(arguments, address, clients, process.pid)
                    windows.append({"round": turn, "training": True, **row})
            log = httpx.get(f"{address}/v1/tasks/{task}/log", timeout=PATIENCE_S).text.strip().splitlines()
            cancel_training(address, task, process.pid)
            print(json.dumps({"cores": cores, "round": turn, "log": log[-1:] if log else []}), flush=True)
    return {
        "cores": cores,
        "summary": [summarize(windows, clients) for clients in arguments.counts],
        "windows": windows,
    }


def summarize(windows: Sequence[dict[str, Any]], clients: int) -> dict[str, Any]:
    """Medians without and with a training, and of the ratios within each round."""
    own = [row for row in windows if row["clients"] == clients]
    alone = {row["round"]: row for row in own if not row["training"]}
    beside = [row for row in own if row["training"] and row["training_cores"] >= LEAST_CORES]
    if not beside:
        raise SystemExit("in no window did the training have processor time")
    keys = ("p50", "p99", "max", "per_second")
    return {
        "clients": clients, "windows": len(beside),
        "without": {key: round(statistics.median(row[key] for row in alone.values()), 2) for key in keys},
        "with": {key: round(statistics.median(row[key] for row in beside), 2) for key in keys},
        "ratios": {key: round(statistics.median(row[key] / alone[row["round"]][key] for row in beside), 2) for key in keys},
        "training cores": round(statistics.median(row["training_cores"] for row in beside), 2),
        "other answers": sum(count for row in own for status, count in row["counts"].items() if status != "200"),
    }  # fmt: skip


def print_table(result: dict[str, Any]) -> None:
    """One readable table of a setting."""
    print(f"\ntraining on cores: {result['cores']}; milliseconds")
    print(f"{'clients':>8}{'':>10}{'p50':>9}{'p99':>9}{'max':>9}{'a second':>10}{'training cores':>16}")
    for row in result["summary"]:
        for name in ("without", "with", "ratios"):
            cells = "".join(f"{row[name][key]:>9.2f}" for key in ("p50", "p99", "max"))
            cores = f"{row['training cores']:>16.2f}" if name == "with" else ""
            print(f"{row['clients']:>8}{name:>10}{cells}{row[name]['per_second']:>10.2f}{cores}")


def main() -> None:
    """Print a table and a line of JSON for each setting of cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--gallery", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--clients", default="1,4")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument(
        "--settle", type=float, default=20.0, help="processor seconds of a training before it is measured"
    )
    parser.add_argument("--cores", nargs="+", default=["all", "1"])
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    arguments.counts = [int(count) for count in arguments.clients.split(",")]
    for cores in arguments.cores:
        with tempfile.TemporaryDirectory() as folder:
            result = {**measure_cores(arguments, cores, Path(folder)), "load": os.getloadavg()[0]}
        print_table(result)
        print(json.dumps({**result, "windows": len(result["windows"])}), flush=True)
        if arguments.out:
            with arguments.out.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
