"""First paint and scrolling of the page Classes with 10,000 classes, beside 10 classes, none, and a line of text of the same server.

    python benchmarks/workbench_paint.py --model MODEL.onnx [--classes 10000] [--references 100000] [--pictures 0.9]
        [--loads 5] [--widths 1440,390] [--seconds 6] [--folder DIR] [--trace FILE] [--out FILE]

One real server process serves three galleries of made-up vectors and drawn pictures; the share ``--pictures`` of the classes has one, with
its thumbnail made before. The model embeds nothing here: any small one will do. A Chromium ($CHROMIUM, or that of the PATH) loads the
pages in turns, each in a new context with an empty cache. "text" is `/healthz`, the barest page of the server; "none" is the same page over
an empty gallery, that is the frame of every page with nothing in it. First and largest contentful paint are those of the
browser's performance timeline, in milliseconds since the navigation began.

Scrolling: a script scrolls up to 3,000 pixels a second for ``--seconds``, each load from another place of the grid, back and forth where
the page is shorter. Frames are the intervals between animation frames; "waiting" is the share of frames at which cells near the window
were still to come. Long tasks are those of the page's main thread over 50 ms, from Chromium's trace (``--trace`` keeps the last one). Jumps
go to ten random places, as somebody who drags the scroll bar; their time is that until all cells are there. With ``--folder`` the
galleries are kept and used again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from service_speed import HERE, free_port, server

from unalike.recognition.gallery import Gallery
from unalike.recognition.recognizer import Recogniser
from unalike.serve.store import Store, open_store
from unalike.serve.store.references import reference_name

FEW, LONG_MS, SPEED, JUMPS, THUMBNAIL = 10, 50.0, 3000.0, 10, 128
MANY_NAME, FEW_NAME, NONE_NAME = "many", "ten", "none"
CATEGORIES = ["toplevel", "devtools.timeline"]
TASKS = ("RunTask", "ThreadControllerImpl::RunTask")
WORK = (
    "FunctionCall",
    "EvaluateScript",
    "ParseHTML",
    "UpdateLayoutTree",
    "Layout",
    "PrePaint",
    "Paint",
    "Layerize",
    "Commit",
)
PAINTS = """() => new Promise(resolve => {
  const largest = [];
  new PerformanceObserver(list => largest.push(...list.getEntries())).observe({type: 'largest-contentful-paint', buffered: true});
  setTimeout(() => {
    const [navigation] = performance.getEntriesByType('navigation');
    const first = performance.getEntriesByName('first-contentful-paint')[0];
    resolve({first: first ? first.startTime : null, largest: largest.length ? largest.at(-1).startTime : null,
      answer: navigation.responseStart, loaded: navigation.loadEventEnd, bytes: navigation.decodedBodySize,
      nodes: document.getElementsByTagName('*').length, requests: performance.getEntriesByType('resource').length});
  }, 300);
})"""
SCROLL = """([seconds, speed, from]) => new Promise(resolve => {
  const frames = [], grid = document.querySelector('.cells');
  const extent = document.documentElement.scrollHeight - innerHeight;
  let start = null, waiting = 0;
  function step(now) {
    start ??= now;
    frames.push(now);
    if (grid?.getAttribute('aria-busy') === 'true') waiting += 1;
    const way = from * extent + (now - start) / 1000 * speed;
    scrollTo(0, extent <= 0 ? 0 : Math.abs((way + extent) % (2 * extent) - extent));
    if (now - start < 1000 * seconds) requestAnimationFrame(step);
    else resolve({extent, waiting, frames: frames.slice(1).map((time, number) => time - frames[number])});
  }
  requestAnimationFrame(step);
})"""
JUMP = """share => new Promise(resolve => {
  const grid = document.querySelector('.cells'), start = performance.now();
  scrollTo(0, share * (document.documentElement.scrollHeight - innerHeight));
  function look() {
    const isThere = grid?.getAttribute('aria-busy') !== 'true';
    if (performance.now() - start > 30 && (isThere || performance.now() - start > 10000)) resolve(performance.now() - start);
    else requestAnimationFrame(look);
  }
  requestAnimationFrame(() => requestAnimationFrame(look));
})"""


def draw_picture(number: int) -> bytes:
    """A JPEG of 256 x 256 pixels, of colors that belong to the number."""
    colors = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(colors).resize((256, 256), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=88)
    return stream.getvalue()


def build_gallery(model: Path, path: Path, classes: int, references: int, hashes: Sequence[str]) -> None:
    """A gallery of random vectors, spread evenly over the classes; the classes of ``hashes`` have pictures."""
    network = Recogniser.load(model, runtime="onnxruntime").gallery
    gallery = Gallery(network.dim, model_identity=network.model_identity)
    if references:
        vectors_ND = np.random.default_rng(0).normal(size=(references, gallery.dim)).astype(np.float32)
        numbers = [row % classes for row in range(references)]
        names = [
            reference_name(hashes[number], f"r{row}") if number < len(hashes) else f"reference-{row}"
            for row, number in enumerate(numbers)
        ]
        gallery.enrol(vectors_ND, [f"class {number:05}" for number in numbers], names)
    gallery.save(path)


def keep_pictures(store: Store, count: int) -> list[str]:
    """Content hashes of drawn pictures that the store keeps, with their thumbnails."""
    hashes = []
    for number in range(count):
        hashes.append(store.images.put(draw_picture(number), sync=False))
        store.images.thumbnail(hashes[-1], THUMBNAIL)
    return hashes


def prepare(arguments: argparse.Namespace, folder: Path) -> None:
    """Build the galleries and pictures, unless the folder has them."""
    facts = folder / "made.json"
    wanted = [str(arguments.model), arguments.classes, arguments.references, arguments.pictures]
    if facts.exists() and json.loads(facts.read_text()) == wanted:
        return
    with open_store(None, folder / "serve") as store:
        hashes = keep_pictures(store, int(arguments.pictures * arguments.classes))
    sizes = {MANY_NAME: (arguments.classes, arguments.references), FEW_NAME: (FEW, 10 * FEW), NONE_NAME: (1, 0)}
    for name, (classes, references) in sizes.items():
        build_gallery(arguments.model, folder / f"{name}.gallery", classes, references, hashes)
    facts.write_text(json.dumps(wanted))


@contextlib.contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """The address of a server over the galleries."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "unalike",
        "serve",
        "--port",
        str(port),
        "--folder",
        str(folder / "serve"),
        "--runtime",
        "onnxruntime",
    ]
    for name in (MANY_NAME, FEW_NAME, NONE_NAME):
        command += ["--gallery", f"{name}={folder / name}.gallery"]
    with server(command, port, "/readyz", folder):
        yield f"http://127.0.0.1:{port}"


def load_page(browser: Any, address: str, width: int) -> dict[str, float]:
    """Open a page in a new context; its paints and counts."""
    context = browser.new_context(viewport={"width": width, "height": 900 if width > 600 else 844})
    try:
        page = context.new_page()
        page.goto(address, wait_until="networkidle")
        values: dict[str, float] = page.evaluate(PAINTS)
        return values
    finally:
        context.close()


def scroll_page(
    browser: Any, address: str, width: int, seconds: float, start: float, trace: Path | None
) -> dict[str, Any]:
    """Scroll a page, then jump in it: frames, long tasks, and the work of the main thread by kind."""
    context = browser.new_context(viewport={"width": width, "height": 900 if width > 600 else 844})
    try:
        page = context.new_page()
        page.goto(address, wait_until="networkidle")
        browser.start_tracing(page=page, categories=CATEGORIES)
        scrolled = page.evaluate(SCROLL, [seconds, SPEED, start])
        content = browser.stop_tracing()
        draw = random.Random(start)
        jumps = [page.evaluate(JUMP, draw.random()) for _ in range(JUMPS)]
    finally:
        context.close()
    if trace:
        trace.write_bytes(content)
    frames = sorted(scrolled["frames"])
    return {
        "extent": scrolled["extent"], "frame p50": quantile(frames, 0.5), "frame p95": quantile(frames, 0.95), "frame max": frames[-1],
        "waiting": scrolled["waiting"] / len(frames), "jump p50": statistics.median(jumps), "jump max": max(jumps),
        **read_trace(content),
    }  # fmt: skip


def quantile(values: Sequence[float], share: float) -> float:
    """The value that a share of the sorted values does not exceed."""
    return values[min(len(values) - 1, int(share * len(values)))]


def read_trace(content: bytes) -> dict[str, Any]:
    """Long tasks of the page's main thread, its longest task, and milliseconds a second by kind of work."""
    events = json.loads(content)["traceEvents"]
    mains = {
        (event["pid"], event["tid"])
        for event in events
        if event.get("name") == "thread_name" and event["args"].get("name") == "CrRendererMain"
    }
    by_thread: dict[tuple[int, int], list[dict[str, Any]]] = {thread: [] for thread in mains}
    for event in events:
        if event.get("ph") == "X" and (event["pid"], event["tid"]) in mains:
            by_thread[event["pid"], event["tid"]].append(event)
    own = max(by_thread.values(), key=len, default=[])
    tasks = [event["dur"] / 1000 for event in own if event["name"] in TASKS]
    if not tasks:
        raise SystemExit("the trace has no task of the page's main thread")
    span = (max(event["ts"] for event in own) - min(event["ts"] for event in own)) / 1e6
    work = {name: sum(event.get("dur", 0) for event in own if event["name"] == name) / 1000 / span for name in WORK}
    return {
        "long tasks": sum(task > LONG_MS for task in tasks), "longest task": max(tasks),
        "busy ms/s": sum(tasks) / span, "work ms/s": {name: round(value, 1) for name, value in work.items() if value >= 0.5},
    }  # fmt: skip


def medians(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """The median of each number of some loads; of long tasks the largest count; None where a page has no such value."""
    summary: dict[str, float | None] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name == "long tasks":
            summary[name] = max(values)
        elif all(isinstance(value, int | float) for value in values):
            summary[name] = round(statistics.median(values), 3)
        elif not isinstance(values[0], dict):
            summary[name] = None
    return summary


def measure(arguments: argparse.Namespace, address: str, browser: Any, width: int) -> dict[str, Any]:
    """Loads and scrolls of all pages in turns, at one width."""
    pages = {"text": "/healthz", **{name: f"/classes?gallery={name}" for name in (NONE_NAME, FEW_NAME, MANY_NAME)}}
    for path in pages.values():
        load_page(browser, address + path, width)
    loads: dict[str, list[dict[str, float]]] = {name: [] for name in pages}
    for _ in range(arguments.loads):
        for name, path in pages.items():
            loads[name].append(load_page(browser, address + path, width))
    scrolls: dict[str, list[dict[str, Any]]] = {FEW_NAME: [], MANY_NAME: []}
    for turn in range(arguments.loads):
        for name, rows in scrolls.items():
            start = turn / arguments.loads
            rows.append(scroll_page(browser, address + pages[name], width, arguments.seconds, start, arguments.trace))
    work = scrolls[MANY_NAME][-1]["work ms/s"]
    paint = {name: medians(rows) for name, rows in loads.items()}
    scroll = {name: medians(rows) for name, rows in scrolls.items()}
    return {
        "width": width, "loads": arguments.loads, "paint": paint, "ratios": paint_ratios(paint), "scroll": scroll,
        "scroll ratios": {
            key: ratio(scroll[MANY_NAME], scroll[FEW_NAME], key) for key in ("frame p50", "frame p95", "frame max")
        },
        "work of many, ms/s": work, "all first paints": {name: [row["first"] for row in rows] for name, rows in loads.items()},
    }  # fmt: skip


def paint_ratios(paint: dict[str, dict[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """First and largest paint of the large gallery, beside each other page."""
    others = [name for name in paint if name != MANY_NAME]
    return {
        f"{MANY_NAME} / {name}": {key: ratio(paint[MANY_NAME], paint[name], key) for key in ("first", "largest")}
        for name in others
    }


def ratio(above: dict[str, float | None], below: dict[str, float | None], key: str) -> float | None:
    """The quotient of two values; None where one is missing."""
    first, second = above.get(key), below.get(key)
    return None if not first or not second else round(first / second, 2)


def print_table(result: dict[str, Any]) -> None:
    """One readable table of a width."""
    print(f"\nwidth {result['width']}, medians of {result['loads']} loads, milliseconds")
    columns = ("answer", "first", "largest", "nodes", "requests", "bytes")
    print(f"{'page':<8}" + "".join(f"{name:>11}" for name in columns))
    for name, row in result["paint"].items():
        cells = ("-" if row.get(column) is None else f"{row[column]:.0f}" for column in columns)
        print(f"{name:<8}" + "".join(f"{cell:>11}" for cell in cells))
    for name, values in result["ratios"].items():
        print(f"{name:<16} first {values['first']}, largest {values['largest']}")
    columns = (
        "frame p50",
        "frame p95",
        "frame max",
        "long tasks",
        "longest task",
        "busy ms/s",
        "waiting",
        "jump p50",
        "jump max",
    )
    print(f"{'scroll':<8}" + "".join(f"{name:>14}" for name in columns))
    for name, row in result["scroll"].items():
        print(f"{name:<8}" + "".join(f"{row[column]:>14.2f}" for column in columns))


def main() -> None:
    """Print a table and a line of JSON for each width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--classes", type=int, default=10_000)
    parser.add_argument("--references", type=int, default=100_000)
    parser.add_argument("--pictures", type=float, default=0.9)
    parser.add_argument("--loads", type=int, default=5)
    parser.add_argument("--widths", default="1440,390")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sys.path.insert(0, str(HERE.parent))
    from playwright.sync_api import sync_playwright

    from tests.support.chromium import find_chromium

    chromium = find_chromium()
    if chromium is None:
        raise SystemExit("no Chromium on the PATH and none in CHROMIUM")
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        prepare(arguments, folder)
        address = stack.enter_context(running_server(folder))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in map(int, arguments.widths.split(",")):
            result = {**measure(arguments, address, browser, width), "load": os.getloadavg()[0]}
            print_table(result)
            print(json.dumps(result), flush=True)
            if arguments.out:
                with arguments.out.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(result) + "\n")
        browser.close()


if __name__ == "__main__":
    main()
