"""Exceptions for every error that a user can cause, and the redaction of credentials in texts.

Each message says what was found, what was expected and what to do. The command line prints that line and exits with
``exit_code``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

# Parts of a query that select what is read and give no access to it; every other value of a query is hidden.
PLAIN_QUERY_KEYS = frozenset(
    ("dl", "download", "raw", "format", "version", "versionid", "ref", "rev", "revision", "expires", "x-amz-expires")
)
HIDDEN = "***"
# The last "@" of a word counts: passwords are often written with an "@" or a "/" of their own.
_PASSWORD = re.compile(r"://[^\s/?#:@]*:(?!\d+[/?#])\S*@")
# A name alone is a token on the web (https://token@host); elsewhere it is a container or an account.
_TOKEN = re.compile(r"\b((?:https?|ftp)://)[^\s/?#:@]+@", re.IGNORECASE)
_QUERY = re.compile(r"(://[^\s?'\"]*\?)([^\s'\"#<>]+)")
_PAIR = re.compile(r"([^&;=]+)(?:=([^&;]*))?")


class UnalikeError(Exception):
    """Base of all errors of a user: one line that names the remedy.

    Args:
        found: The file or key, and what it holds.
        expected: What it should hold.
        remedy: What to do.
    """

    exit_code = 1

    def __init__(self, found: str, *, expected: str = "", remedy: str = "") -> None:
        self.found, self.expected, self.remedy = found, expected, remedy
        parts = [found.rstrip(".")]
        if expected:
            parts.append(f"expected {expected.rstrip('.')}")
        if remedy:
            parts.append(remedy.rstrip("."))
        super().__init__(redact("; ".join(parts)))


class SpecError(UnalikeError):
    """A spec, an override or a command line that is not valid."""

    exit_code = 2


class DataError(UnalikeError):
    """Folders, archives, manifests or images that cannot be used."""


class UnreadableImage(DataError):
    """One image file that cannot be decoded."""


class NotComparable(DataError):
    """Two images that cannot be aligned."""


class WeightsError(UnalikeError):
    """Weights or a checkpoint that cannot be read, or do not fit the network."""


class ModelError(UnalikeError):
    """A network that does not exist or cannot be built with these settings."""


class MissingExtra(UnalikeError):
    """An optional package that is not installed."""


class DeviceError(UnalikeError):
    """A device, precision or runtime that this machine does not have."""


class RunError(UnalikeError):
    """A results folder or a job that is occupied, locked or cannot be written."""


class TrainingError(UnalikeError):
    """Training that cannot continue, such as a loss that is not finite."""


class ExportError(UnalikeError):
    """An export that failed or whose vectors differ from the trained network's."""


class Interrupted(UnalikeError):
    """Stopped by a signal; ``exit_code`` is 128 + the signal's number (130 for Ctrl-C, 143 for SIGTERM)."""

    def __init__(self, signal_number: int, found: str) -> None:
        super().__init__(found)
        self.exit_code = 128 + signal_number


def missing_extra(module: str, extra: str, purpose: str = "") -> MissingExtra:
    """The error for an optional package: what needs it, and the command that installs it."""
    what = f"{purpose} needs {module}" if purpose else f"{module} is not installed"
    return MissingExtra(what, remedy=f"install it with: pip install 'unalike[{extra}]'")


def redact(text: str) -> str:
    """Hide passwords, tokens and signed query strings in every URI of a text.

    Applied to all that is printed or written: messages, ``status.json``, ``run.json``, ``experiment.yaml``.
    """
    if "://" not in text:
        return text
    text = _TOKEN.sub(rf"\1{HIDDEN}@", _PASSWORD.sub(f"://{HIDDEN}@", text))
    return _QUERY.sub(lambda match: match[1] + _PAIR.sub(_hide_value, match[2]), text)


def _hide_value(pair: re.Match[str]) -> str:
    name, value = pair[1], pair[2]
    if value is None:
        return name if name.lower() in PLAIN_QUERY_KEYS or not name.strip(".,;:!?)") else HIDDEN
    after = value[len(value.rstrip(".,:!)")) :]  # of the sentence, not of the address
    return pair[0] if name.lower() in PLAIN_QUERY_KEYS else f"{name}={HIDDEN}{after}"


def redact_all(value: Any) -> Any:
    """A copy of plain data (dicts, lists) in which every text is redacted."""
    if isinstance(value, dict):
        return {key: redact_all(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(redact_all(item) for item in value)
    return redact(value) if isinstance(value, str) else value


def closest(word: str, options: Iterable[str], count: int = 3) -> str:
    """``did you mean 'a' or 'b'?`` for a misspelt name; an empty string when no option is similar."""
    near = difflib.get_close_matches(word, list(options), n=count, cutoff=0.6)
    return f"did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
