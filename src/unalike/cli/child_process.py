"""The process of a job's action or of a search's trial: the command line, which ends when its parent process is killed.

The parent holds the other end of standard input. Without this, the action of a killed job supervisor would continue while the
job store could no longer learn how it ended; and nobody would read the metrics of a trial whose search was killed, while the
search that is resumed would find the trial's folder locked.
"""

import os
import signal
import sys
import threading
import time


def _end_with_parent(grace_s: int) -> None:
    os.read(0, 1)  # not sys.stdin: its lock, held here, would block the interpreter at its end
    if grace_s:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s)
    os._exit(1)


def main() -> None:
    """Run ``python -m unalike.cli.child_process GRACE_S train -e spec.yaml``, as ``runs.processes.child_command`` writes it."""
    from unalike.cli import run_command
    from unalike.cli.signals import end_in_order
    from unalike.runs.program_start import mark_program

    mark_program()
    end_in_order()
    threading.Thread(target=_end_with_parent, args=(int(sys.argv[1]),), daemon=True).start()
    sys.exit(run_command(sys.argv[2:]))


if __name__ == "__main__":
    main()
