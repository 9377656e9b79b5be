"""The process in which a job's action works: the command line, which saves and ends when its runner is gone.

The runner holds the other end of standard input. Without this, an action whose runner was killed would work on while
the store could no longer learn what became of it.
"""

import os
import signal
import sys
import threading
import time

GRACE_S = 120.0


def _end_with_runner() -> None:
    os.read(0, 1)  # not sys.stdin: its lock, held here, would trouble the interpreter on its way out
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


def main() -> None:
    """``python -m unalike.cli.child train -e spec.yaml``."""
    from unalike.cli import run_command

    threading.Thread(target=_end_with_runner, daemon=True).start()
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
