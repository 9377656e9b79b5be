"""The process of a job's action: the command line, which saves and ends when its supervisor is killed.

The supervisor holds the other end of standard input. Without this, the action of a killed supervisor would continue while
the job store could no longer learn how it ended.
"""

import os
import signal
import sys
import threading
import time

GRACE_S = 120.0  # for a step, a validation and a checkpoint


def _end_with_supervisor() -> None:
    os.read(0, 1)  # not sys.stdin: its lock, held here, would block the interpreter at its end
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


def main() -> None:
    """Run ``python -m unalike.cli.job_process train -e spec.yaml``."""
    from unalike.cli import run_command

    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
