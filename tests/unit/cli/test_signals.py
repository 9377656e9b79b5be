"""SIGTERM ends a command in order, wherever it is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

PROGRAM = """
import os, signal, sys
from pathlib import Path
from unalike import cli
from unalike.cli.signals import end_in_order
from unalike.storage.atomic import atomic_write

def write(args, prog_name, standalone_mode):
    with atomic_write(Path(sys.argv[1])) as partial:
        partial.write_bytes(b"half")
        if sys.argv[2] == "child":
            if (pid := os.fork()) == 0:
                signal.raise_signal(signal.SIGTERM)
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
        else:
            signal.raise_signal(getattr(signal, sys.argv[2]))

cli.app = write
if sys.argv[3:]:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
end_in_order()
sys.exit(cli.run_command(["train"]))
"""


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["SIGTERM"], 143, "error: stopped by SIGTERM\n"),
        (["SIGHUP"], 129, "error: stopped by SIGHUP\n"),
        (["SIGHUP", "ignored"], 0, ""),
        (["child"], 0, ""),  # a worker ends by the signal, without a word
    ],
)
def test_a_signal_leaves_no_temporary_file(tmp_path, words, code, message):
    program = [sys.executable, "-c", PROGRAM, str(tmp_path / "g"), *words]
    done = subprocess.run(program, check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (code, message)
    assert os.listdir(tmp_path) == ([] if code else ["g"])
