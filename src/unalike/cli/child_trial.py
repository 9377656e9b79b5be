"""The process in which a trial of a search trains: the command line, and an eye on the search that started it.

The search holds the other end of standard input. When it is gone, killed even, the trial ends too: nobody would read
its figures, and the search that is resumed would find its folder locked.
"""

import os
import sys
import threading


def _end_with_parent() -> None:
    os.read(0, 1)  # not sys.stdin: its lock, held here, would trouble the interpreter on its way out
    os._exit(1)


def main() -> None:
    """``python -m unalike.cli.child_trial train -e spec.yaml``."""
    from unalike.cli import run_command

    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
