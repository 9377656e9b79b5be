"""The process of a search's trial: the command line, which ends at once when the search is killed.

The search holds the other end of standard input. Without this, nobody would read the trial's metrics, and the search that
is resumed would find its folder locked.
"""

import os
import sys
import threading


def _end_with_search() -> None:
    os.read(0, 1)  # not sys.stdin: its lock, held here, would block the interpreter at its end
    os._exit(1)


def main() -> None:
    """Run ``python -m unalike.cli.trial_process train -e spec.yaml``."""
    from unalike.cli import run_command

    threading.Thread(target=_end_with_search, daemon=True).start()
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
