"""Print results to standard output: lines, JSON and text, readable on any terminal."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from unalike.sanitize import one_line, redact, redact_all


def print_line(text: object) -> None:
    """Print one line; control characters in it, which names of files and classes may hold, are escaped."""
    print(one_line(redact(str(text))))


def print_lines(text: str) -> None:
    """Print the lines of a text of this program: a table, a template."""
    for line in text.split("\n"):
        print(one_line(line))


def print_piece(text: str) -> None:
    """Print a piece of a log file at once, with the ends of lines that it has."""
    print("\n".join(one_line(redact(line)) for line in text.split("\n")), end="", flush=True)


def print_json(value: Any) -> None:
    """Print plain data as one line of JSON in ASCII, which holds also names that are not UTF-8."""
    print(json.dumps(redact_all(value), ensure_ascii=True))


def replace_closed_streams() -> None:
    """Give standard streams that are closed (``>&-``, a service without a terminal) something to write to, which goes nowhere.

    Their numbers are taken too: else a file that is opened later would get what some library prints.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  open until the process ends


def tolerate_narrow_encodings() -> None:
    """Let standard output and error escape what their encoding lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
