"""What every test may rely on: one thread a process, and signals that mean what they mean in a shell.

Sums over several threads differ in their last bits from run to run, and equal bits are what resuming is tested by.
A suite started in the background or under nohup inherits ignored signals, and so do the processes that it starts: a test
that stops one by Ctrl-C would wait for ever.
"""

import os
import signal
import threading

from tests.support.paths import ROOT

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch
# Processes that tests start find tests.support as the tests do.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

if threading.current_thread() is threading.main_thread():
    for _name in ("SIGINT", "SIGTERM", "SIGHUP"):
        _number = getattr(signal, _name, None)
        if _number is not None and signal.getsignal(_number) is signal.SIG_IGN:
            signal.signal(_number, signal.default_int_handler if _name == "SIGINT" else signal.SIG_DFL)
