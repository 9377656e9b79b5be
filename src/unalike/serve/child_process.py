"""Work of many seconds in a child process at the lowest priority, so that it holds up no request; it ends with its task."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from unalike import progress
from unalike.errors import RunError

LOWEST_PRIORITY = 19
# The kernel ends the child before the service where memory runs out.
OUT_OF_MEMORY_SCORE = "1000"
MAX_DESCRIPTORS = 65536
# So many bytes of a log are searched for its last line.
TAIL_BYTES = 4096
# A child tells its progress no more often; the end of a step always.
REPORT_INTERVAL_S = 0.2


async def run_child(
    module: str, arguments: Sequence[str], on_line: Callable[[str], Awaitable[None]] | None = None, *,
    order: bytes | None = None, cores: Sequence[int] | None = None, log: Path | None = None,
) -> None:  # fmt: skip
    """Run the function ``main`` of a module in a process of its own; killed where this is cancelled.

    Args:
        module: dotted name of the module.
        arguments: what ``main`` finds in ``sys.argv[1:]``.
        on_line: called with each line that it writes to standard output; what that raises ends it.
        order: a line that the child reads from standard input, which stays open: its end tells the child that this process is gone.
        cores: CPU cores that it may use; all where None, or where the system has no such setting.
        log: file to which standard error is appended, and standard output where there is no ``on_line``.

    Raises:
        RunError: it did not end with code 0; with its last line on standard error.
    """
    with contextlib.ExitStack() as stack:
        target: int | BinaryIO = asyncio.subprocess.PIPE if log is None else stack.enter_context(log.open("ab"))
        output: int | BinaryIO = asyncio.subprocess.PIPE
        if on_line is None:
            output = asyncio.subprocess.DEVNULL if log is None else target
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _program(module), *arguments, stderr=target, stdout=output,
            stdin=asyncio.subprocess.DEVNULL if order is None else asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            _lower(process.pid, cores)
            if order is not None and process.stdin is not None:
                process.stdin.write(order + b"\n")
                await process.stdin.drain()
            errors, _ = await asyncio.gather(_read_all(process.stderr), _read_lines(process.stdout, on_line))
            await process.wait()
        finally:
            await _end(process)
    if process.returncode:
        text = errors
        if log is not None:
            with log.open("rb") as file:
                text = read_tail(file)
        lines = text.decode("utf-8", errors="replace").strip().splitlines()
        last = lines[-1].removeprefix("error: ") if lines else f"it ended with code {process.returncode}"
        raise RunError(last if process.returncode > 0 else f"it was ended by signal {-process.returncode}; {last}")


@contextlib.asynccontextmanager
async def open_child(
    module: str, order: bytes, cores: Sequence[int] | None = None, errors: BinaryIO | None = None
) -> AsyncIterator[tuple[asyncio.StreamWriter, asyncio.StreamReader]]:
    """Run the function ``main`` of a module in a process of its own as long as the block lasts.

    Args:
        module: dotted name of the module.
        order: a line that the child reads first from its standard input.
        cores: CPU cores that it may use; all where None, or where the system has no such setting.
        errors: open file that gets its standard error, which is lost where None.

    Yields:
        Its standard input, whose end tells the child that this process is gone, and its standard output.
    """
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _program(module), stdin=pipe, stdout=pipe,
        stderr=asyncio.subprocess.DEVNULL if errors is None else errors,
    )  # fmt: skip
    try:
        assert process.stdin is not None and process.stdout is not None
        _lower(process.pid, cores)
        process.stdin.write(order + b"\n")
        yield process.stdin, process.stdout
    finally:
        await _end(process)


def tell_progress() -> None:
    """Let all long work of this process, a child, tell how far it is: lines of JSON (what is done, count, total) on standard output.

    What else is printed there goes to standard error from now on.
    """
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii")
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    last_s, last_step = 0.0, ""

    def tell(step: str, count: int, total: int) -> None:
        nonlocal last_s, last_step
        now = time.monotonic()
        if step == last_step and count < total and now - last_s < REPORT_INTERVAL_S:
            return
        last_s, last_step = now, step
        print(json.dumps([step, count, total]), file=lines, flush=True)

    progress.set_listener(tell)


def _program(module: str) -> str:
    """What the child runs; before anything else it gives back what it inherited.

    uvloop closes nothing, and a worker of several has inherited descriptors of those that started it.
    """
    return f"import os; os.closerange(3, {MAX_DESCRIPTORS}); from {module} import main; main()"


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a process that runs, and wait for its end."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.stdin is not None:
        process.stdin.close()


async def _read_all(stream: asyncio.StreamReader | None) -> bytes:
    return b"" if stream is None else await stream.read()


async def _read_lines(stream: asyncio.StreamReader | None, on_line: Callable[[str], Awaitable[None]] | None) -> None:
    if stream is None or on_line is None:
        return
    async for line in stream:
        await on_line(line.decode("utf-8", errors="replace").rstrip("\n"))


def read_tail(file: BinaryIO) -> bytes:
    """The end of an open file."""
    file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
    return file.read()


def _lower(pid: int, cores: Sequence[int] | None = None) -> None:
    """Give a process the lowest priority and its cores, and let it be the first to end where memory runs out; where the system can."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, pid, LOWEST_PRIORITY)
    if cores is not None:
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setaffinity(pid, cores)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(OUT_OF_MEMORY_SCORE, encoding="ascii")
