"""Print results to standard output: figures, lines, JSON and text, readable on any terminal."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from unalike.runs.kpi_names import short_name
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


def _as_plain(value: Any) -> Any:
    """A result as JSON can hold it: dataclasses as objects, paths as text, not-finite numbers as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_as_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _as_plain(value.tolist())
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


# Keys of a share with its confidence interval.
INTERVAL = {"value", "low", "high"}


def show_result(result: Any, as_json: bool) -> None:
    """Print a result to standard output: one JSON object, or a line a figure."""
    plain = _as_plain(result)
    if not isinstance(plain, dict):
        plain = {} if plain is None else {"result": plain}
    if as_json:
        print_json(plain)
        return
    for name, value in plain.items():
        if isinstance(value, dict) and INTERVAL <= value.keys():
            print_line(f"{name}: {_format_interval(value)}")
        elif isinstance(value, dict):
            for key, item in value.items():
                if isinstance(item, dict) and INTERVAL <= item.keys():
                    print_line(f"{short_name(key)}: {_format_interval(item)}")
                elif not isinstance(item, (dict, list)):
                    print_line(f"{short_name(key)}: {_short(item)}")
        elif isinstance(value, list):
            print_line(f"{name}: {len(value)}" if len(value) > 8 else f"{name}: {', '.join(map(_short, value))}")
        elif value is not None and (name, value) != ("results_dir", "."):
            print_line(f"{name}: {_short(value)}")


def _format_interval(value: dict[str, Any]) -> str:
    return f"{_short(value['value'])} [{_short(value['low'])}, {_short(value['high'])}]"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
