"""The log of the service: one line a request, as text or JSON, without secrets; spans where OpenTelemetry is installed."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from unalike.errors import UnalikeError
from unalike.sanitize import one_line, redact

LOGGER = logging.getLogger("unalike.serve")
FIELDS = "unalike_fields"
TRACE_MODULE = "opentelemetry.trace"
PROVIDER_VARIABLE = "OTEL_PYTHON_TRACER_PROVIDER"


class TextFormatter(logging.Formatter):
    """``time level message key=value ...`` on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows on lines of its own."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.created))
        fields = getattr(record, FIELDS, {})
        parts = [f"{key}={value}" for key, value in fields.items()]
        line = one_line(redact(" ".join([stamp, record.levelname.lower(), record.getMessage(), *parts])))
        return line if record.exc_info is None else f"{line}\n{redact(self.formatException(record.exc_info))}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The object; a traceback is one of its values."""
        values: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(), "logger": record.name, "message": redact(record.getMessage()),
            **{key: redact(value) if isinstance(value, str) else value for key, value in getattr(record, FIELDS, {}).items()},
        }  # fmt: skip
        if record.exc_info is not None:
            values["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(values)


def configure_logs(form: str, *, verbosity: int = 1) -> None:
    """Write the logs of the service and of the server to standard error.

    Args:
        form: ``text`` or ``json``.
        verbosity: 0: warnings alone; 1: requests too; 2: details too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    for name in ("python_multipart", "PIL"):  # what they complain of is answered with a problem
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in ("unalike.serve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        # The server's own notes (process started, waiting for connections) are details.
        logger.setLevel(level if name == "unalike.serve" or verbosity >= 2 else logging.WARNING)


def log(level: int, message: str, **fields: Any) -> None:
    """Write a line with fields."""
    LOGGER.log(level, message, extra={FIELDS: fields})


def log_error(message: str, error: BaseException, **fields: Any) -> None:
    """Write an error: of the user's files or machine as one line, of ours with its traceback."""
    if isinstance(error, UnalikeError):
        LOGGER.error(f"{message}: {error}", extra={FIELDS: fields})
        return
    LOGGER.error(message, exc_info=(type(error), error, error.__traceback__), extra={FIELDS: fields})


# ---- OpenTelemetry ----


class Tracer:
    """Spans of requests, where OpenTelemetry is loaded and a provider was configured; else nothing, at no cost.

    A provider is configured by who starts the service, before the first request: by ``opentelemetry-instrument``, by the
    variable ``OTEL_PYTHON_TRACER_PROVIDER``, or in the program that makes the application.
    """

    def __init__(self) -> None:
        self._tracer: Any = None
        if PROVIDER_VARIABLE in os.environ:
            with suppress(ImportError):
                importlib.import_module(TRACE_MODULE)

    @contextmanager
    def request(self, method: str, path: str, headers: dict[str, str]) -> Iterator[Any]:
        """The span of one request, below the caller's where its headers name one; yields the span or None."""
        if self._tracer is None and not self._find_provider():
            yield None
            return
        with self._tracer.start_as_current_span(
            f"{method} {path}", context=self._extract(headers), kind=self._kind,
            attributes={"http.request.method": method, "url.path": path},
        ) as span:  # fmt: skip
            yield span

    def _find_provider(self) -> bool:
        """Whether there is a provider; looked for at every request until there is one."""
        if TRACE_MODULE not in sys.modules:
            return False
        try:
            trace = importlib.import_module(
                TRACE_MODULE
            )  # where another thread is importing it, this waits until it is whole
        except ImportError:
            return False
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            return False
        from opentelemetry import propagate

        self._tracer = trace.get_tracer("unalike.serve")
        self._extract, self._kind = propagate.extract, trace.SpanKind.SERVER
        return True
