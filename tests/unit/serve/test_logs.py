"""Lines of the log."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from unalike.serve.logs import FIELDS, JsonFormatter, TextFormatter, Tracer, configure_logs


def record(message: str, error: Exception | None = None, **fields: object) -> logging.LogRecord:
    info = None if error is None else (type(error), error, None)
    entry = logging.LogRecord("unalike.serve", logging.INFO, "", 0, message, None, info)
    setattr(entry, FIELDS, fields)
    return entry


def test_json_lines_hold_fields_and_no_secrets() -> None:
    line = JsonFormatter().format(
        record("request", ValueError("token=abcdefgh"), path="/a\nb", status=200, url="https://u:pw@h/x")
    )
    values = json.loads(line)
    assert values["status"] == 200 and values["path"] == "/a\nb" and "\n" not in line
    assert "abcdefgh" not in line and ":pw@" not in line and "ValueError" in values["traceback"]


def test_text_is_one_line_without_control_characters() -> None:
    line = TextFormatter().format(record("request", path="/a\nb\x1b[31m"))
    assert "\n" not in line and "\x1b" not in line and "path=/a" in line


def test_verbosity_decides_what_is_written(capsys) -> None:
    for verbosity, expected in ((0, 0), (1, 1), (2, 2)):
        configure_logs("json", verbosity=verbosity)
        logger = logging.getLogger("unalike.serve")
        logger.info("one")
        logger.debug("two")
        assert len(capsys.readouterr().err.splitlines()) == expected


def test_a_tracer_without_a_provider_costs_nothing_and_passes_errors_on() -> None:
    with Tracer().request("GET", "/a", {}) as span:
        assert span is None


def test_a_span_continues_the_callers_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", trace.NoOpTracerProvider())
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    with Tracer().request("GET", "/a", headers):
        assert trace.get_current_span().get_span_context().trace_id == 0x0AF7651916CD43DD8448EB211C80319C


def test_a_request_beside_the_import_of_opentelemetry_waits_until_it_is_whole(tmp_path: Path) -> None:
    """A module stands in sys.modules before it is executed; a service loads its pages while it answers."""
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry/__init__.py").write_text("")
    (tmp_path / "opentelemetry/trace.py").write_text(
        "import time; time.sleep(0.5)\nclass ProxyTracerProvider: pass\ndef get_tracer_provider(): return ProxyTracerProvider()"
    )
    program = (
        f"import sys, threading, time; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from unalike.serve.logs import Tracer\n"
        "thread = threading.Thread(target=lambda: __import__('opentelemetry.trace'))\n"
        "thread.start()\n"
        "while 'opentelemetry.trace' not in sys.modules: time.sleep(0.001)\n"
        "with Tracer().request('GET', '/a', {}) as span: print(span)\n"
        "thread.join()"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=120)
    assert done.stdout == "None\n" and not done.stderr
