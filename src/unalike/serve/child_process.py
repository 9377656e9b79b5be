"""Work of many seconds in a child process at the lowest priority, so that it holds up no request; it ends with its task."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from unalike.errors import RunError

LOWEST_PRIORITY = 19
# The kernel ends the child before the service where memory runs out.
OUT_OF_MEMORY_SCORE = "1000"


async def run_child(module: str, arguments: Sequence[str]) -> None:
    """Run the function ``main`` of a module in a process of its own; killed where this is cancelled.

    Args:
        module: dotted name of the module.
        arguments: what ``main`` finds in ``sys.argv[1:]``.

    Raises:
        RunError: it did not end with code 0; with its last line on standard error.
    """
    call = f"from {module} import main; main()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", call, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        _lower(process.pid)
        _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        lines = errors.decode("utf-8", errors="replace").strip().splitlines()
        last = lines[-1].removeprefix("error: ") if lines else f"it ended with code {process.returncode}"
        raise RunError(last)


def _lower(pid: int) -> None:
    """Give a process the lowest priority, and let it be the first to end where memory runs out; where the system can."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, pid, LOWEST_PRIORITY)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(OUT_OF_MEMORY_SCORE, encoding="ascii")
