"""Work of many seconds in a child process at the lowest priority, so that it holds up no request; it ends with its task."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from unalike.errors import RunError

LOWEST_PRIORITY = 19
# The kernel ends the child before the service where memory runs out.
OUT_OF_MEMORY_SCORE = "1000"


async def run_child(
    module: str, arguments: Sequence[str], on_line: Callable[[str], Awaitable[None]] | None = None
) -> None:
    """Run the function ``main`` of a module in a process of its own; killed where this is cancelled.

    Args:
        module: dotted name of the module.
        arguments: what ``main`` finds in ``sys.argv[1:]``.
        on_line: called with each line that it writes to standard output; what that raises ends it.

    Raises:
        RunError: it did not end with code 0; with its last line on standard error.
    """
    call = f"from {module} import main; main()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", call, *arguments, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL if on_line is None else asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        _lower(process.pid)
        assert process.stderr is not None
        errors, _ = await asyncio.gather(process.stderr.read(), _read_lines(process.stdout, on_line))
        await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        lines = errors.decode("utf-8", errors="replace").strip().splitlines()
        last = lines[-1].removeprefix("error: ") if lines else f"it ended with code {process.returncode}"
        raise RunError(last)


async def _read_lines(stream: asyncio.StreamReader | None, on_line: Callable[[str], Awaitable[None]] | None) -> None:
    if stream is None or on_line is None:
        return
    async for line in stream:
        await on_line(line.decode("utf-8", errors="replace").rstrip("\n"))


def _lower(pid: int) -> None:
    """Give a process the lowest priority, and let it be the first to end where memory runs out; where the system can."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, pid, LOWEST_PRIORITY)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(OUT_OF_MEMORY_SCORE, encoding="ascii")
