"""Exceptions for every error that a user can cause.

Each message says what was found, what was expected and what to do. The command line prints that line and exits with
``exit_code``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from unalike.installation import install_command
from unalike.sanitize import one_line, redact
from unalike.source_names import with_source_names


class UnalikeError(Exception):
    """Base of all errors of a user: one line that names the remedy.

    Args:
        found: The file or key, and what it holds.
        expected: What it should hold.
        remedy: What to do.
        details: Further lines, such as one a fault of a spec.
    """

    exit_code = 1

    def __init__(self, found: str, *, expected: str = "", remedy: str = "", details: Sequence[str] = ()) -> None:
        self.found, self.expected, self.remedy = found, expected, remedy
        parts = [found.rstrip(".")]
        if expected:
            parts.append(f"expected {expected.rstrip('.')}")
        if remedy:
            parts.append(remedy.rstrip("."))
        lines = ["; ".join(parts), *(f"  {detail}" for detail in details)]
        super().__init__("\n".join(one_line(redact(with_source_names(line))) for line in lines))


class SpecError(UnalikeError):
    """A spec, an override or a command line that is not valid."""

    exit_code = 2


class DataError(UnalikeError):
    """Folders, archives, manifests or images that cannot be used."""


class UnreadableImage(DataError):
    """One image file that cannot be decoded."""


class NotComparable(DataError):
    """Two images that cannot be aligned."""


class NoSuchImage(DataError):
    """An image that the store of a service does not have."""


class LastAdmin(DataError):
    """A change after which nobody could manage the keys of a service."""


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


class StoreError(UnalikeError):
    """The store of a service that cannot be opened, read or written."""


class DatabaseUnavailable(StoreError, DataError):
    """A gallery whose database does not answer now, or has no room: the same call may succeed later."""


class TrainingError(UnalikeError):
    """Training that cannot continue, such as a loss that is not finite."""


class ExportError(UnalikeError):
    """An export that failed or whose vectors differ from the trained network's."""


class ServiceError(UnalikeError):
    """A service that refused a request, or did not answer.

    Attributes:
        status: HTTP status of its answer; 0 without one.
        kind: name of the problem's type, such as ``queue-full``.
        request_id: under which the service's log has the details.
    """

    def __init__(
        self, found: str, *, expected: str = "", remedy: str = "", status: int = 0, kind: str = "", request_id: str = ""
    ) -> None:
        super().__init__(found, expected=expected, remedy=remedy)
        self.status, self.kind, self.request_id = status, kind, request_id


class Interrupted(UnalikeError):
    """Stopped by a signal; ``exit_code`` is 128 + the signal's number (130 for Ctrl-C, 143 for SIGTERM).

    Attributes:
        run_folder: Folder of the run that was stopped, with what it has written so far; empty without a run.
        is_named: Whether the user named that folder, or its root.
    """

    def __init__(self, signal_number: int, found: str) -> None:
        super().__init__(found)
        self.exit_code = 128 + signal_number
        self.run_folder, self.is_named = "", True


def missing_extra(module: str, extra: str, purpose: str = "") -> MissingExtra:
    """The error for an optional package: what needs it, and the command that installs it."""
    what = f"{purpose} needs {module}" if purpose else f"{module} is not installed"
    return MissingExtra(what, remedy=f"install it with: {install_command(extra)}")


def closest(word: str, options: Iterable[str], count: int = 3) -> str:
    """``did you mean 'a' or 'b'?`` for a misspelt name; an empty string when no option is similar."""
    near = difflib.get_close_matches(word, list(options), n=count, cutoff=0.6) if isinstance(word, str) else []
    return f"did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
