"""Messages and progress bars, on standard error.

On a terminal the bar is drawn by rich; elsewhere a plain line appears every few seconds, so that logs stay readable.
Everything goes to standard error: standard output belongs to results (``--json``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from unalike.sanitize import one_line, redact
from unalike.source_names import with_source_names

# 0 quiet (errors only), 1 normal, 2 verbose; set once by the command line.
_verbosity = 1
_said: set[str] = set()
# Called with description, number of steps that are done, and total; of a program whose progress another one shows.
_listener: Callable[[str, int, int], None] | None = None
PLAIN_INTERVAL_S = 10.0


def set_verbosity(level: int) -> None:
    """Set how much is printed: 0 errors alone, 1 the normal lines, 2 details too."""
    global _verbosity
    _verbosity = level


def verbosity() -> int:
    """How much is printed, as ``set_verbosity`` set it."""
    return _verbosity


def set_listener(listener: Callable[[str, int, int], None] | None) -> None:
    """Give the progress of all long work to a function too, as (description, steps that are done, total).

    Args:
        listener: Called at each step; None ends that.
    """
    global _listener
    _listener = listener


def say(text: str, *, level: int = 1, once: bool = False) -> None:
    """Write one line to standard error when the verbosity is at least ``level``; with ``once``, only the first time."""
    if once:
        if text in _said:
            return
        _said.add(text)
    if _verbosity >= level:
        print(one_line(redact(with_source_names(text))), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Write a warning to standard error, each text once."""
    say(f"warning: {text}", once=True)


def begin_step(description: str) -> None:
    """Tell the listener what is done from now on, where nothing is counted."""
    if _listener is not None:
        _listener(description, 0, 0)


def clock(seconds: float) -> str:
    """A duration as minutes:seconds or hours:minutes:seconds."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


@contextmanager
def progress(description: str, total: int, unit: str = "images") -> Iterator[Callable[..., None]]:
    """Show a progress bar with count, rate and time left.

    Args:
        description: What is done.
        total: Number of steps.
        unit: What a step is, in the plural.

    Yields:
        ``advance(n=1, note="", more=0)``: ``n`` steps are done, ``note`` (such as a loss) is shown behind the bar, ``more``
        is added to the total.
    """
    if _verbosity < 1 or total <= 0:
        yield _with_listener(description, total, lambda n=1, note="", more=0: None)
    elif sys.stderr.isatty():
        with _rich_bar(description, total, unit) as advance:
            yield _with_listener(description, total, advance)
    else:
        yield _with_listener(description, total, _plain_lines(description, total, unit))


def _with_listener(description: str, total: int, show: Callable[..., None]) -> Callable[..., None]:
    """What shows progress, and tells the listener where there is one."""
    if _listener is None or total <= 0:
        return show
    listener, count = _listener, 0
    listener(description, 0, total)

    def advance(n: int = 1, note: str = "", more: int = 0) -> None:
        nonlocal count, total
        count, total = count + n, total + more
        show(n, note, more)
        listener(description, count, total)

    return advance


def _plain_lines(description: str, total: int, unit: str) -> Callable[..., None]:
    start = last = time.monotonic()
    count = 0

    def advance(n: int = 1, note: str = "", more: int = 0) -> None:
        nonlocal count, last, total
        count, total = count + n, total + more
        now = time.monotonic()
        if now - last < PLAIN_INTERVAL_S and count < total:
            return
        if count >= total and now - start < 1.0:
            return  # too short to deserve a line
        last = now
        rate = count / max(now - start, 1e-9)
        seconds_left = clock((total - count) / max(rate, 1e-9))
        say(f"{description}: {count}/{total} {unit}, {rate:.1f}/s, {seconds_left} left{'  ' + note if note else ''}")

    return advance


@contextmanager
def _rich_bar(description: str, total: int, unit: str) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + " {task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total, rate="", note="")
        start, count = time.monotonic(), 0

        def advance(n: int = 1, note: str = "", more: int = 0) -> None:
            nonlocal count, total
            count, total = count + n, total + more
            rate = f"{count / max(time.monotonic() - start, 1e-9):.1f}/s"
            fields = {"rate": rate, "note": one_line(note)} if note else {"rate": rate}
            bar.update(task, advance=n, total=total)
            bar.tasks[0].fields.update(fields)

        yield advance
