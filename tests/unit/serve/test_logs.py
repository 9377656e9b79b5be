"""Lines of the log."""

from __future__ import annotations

import json
import logging

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
