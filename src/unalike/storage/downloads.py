"""Whether weights may be downloaded: asked for above a size, always, or never; and whether the network may be used at all.

``UNALIKE_DOWNLOAD`` states it for a process and its children: ``ask`` (default), ``always`` (``--download``) or ``never``
(``--offline``). ``model.download`` of a spec states it for one action. What forbids goes before what allows.
"""

from __future__ import annotations

import os
import shlex
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from unalike.errors import SpecError, WeightsError

VARIABLE = "UNALIKE_DOWNLOAD"
ASK, ALWAYS, NEVER = "ask", "always", "never"
# More than so many bytes are asked for.
LIMIT_BYTES = 100 << 20
# Variables of the Hugging Face libraries that forbid requests to the hub.
_HUB_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_of_action = ASK
# The program's command line without its name, and whether that command has the option --download; empty in Python.
_command: tuple[str, ...] = ()
_takes_option = False


class DownloadRefused(WeightsError):
    """A download that was not allowed."""


def download_policy() -> str:
    """Return ``ask``, ``always`` or ``never``. Raises SpecError for another value of ``UNALIKE_DOWNLOAD``."""
    stated = os.environ.get(VARIABLE, "") or ASK
    if stated not in (ASK, ALWAYS, NEVER):
        raise SpecError(f"{VARIABLE} is {stated!r}", expected=f"{ASK}, {ALWAYS} or {NEVER}")
    policies = (stated, _of_action)
    return NEVER if NEVER in policies else ALWAYS if ALWAYS in policies else ASK


def network_is_forbidden() -> bool:
    """Whether the network may not be used at all, also for images and results (``--offline``)."""
    return os.environ.get(VARIABLE, "") == NEVER


def hub_is_forbidden() -> str:
    """What forbids requests to the hub, for messages (``--offline``, ``HF_HUB_OFFLINE is set``); empty where they are allowed."""
    if download_policy() == NEVER:
        return f"downloads are switched off (--offline, {VARIABLE} or model.download)"
    is_set = any(os.environ.get(key, "").upper() in ("1", "ON", "YES", "TRUE") for key in _HUB_OFFLINE)
    return "HF_HUB_OFFLINE is set" if is_set else ""


def set_policy(policy: str, *, takes_option: bool = True) -> None:
    """State the policy for this process and the processes that it starts.

    Args:
        policy: ``always`` or ``never``; empty leaves it as it is.
        takes_option: whether the command that runs has the option ``--download``.
    """
    global _takes_option
    _takes_option = takes_option
    if policy:
        os.environ[VARIABLE] = policy
    if policy == NEVER:
        os.environ.update(dict.fromkeys(_HUB_OFFLINE, "1"))


@contextmanager
def policy_of_action(policy: str) -> Iterator[None]:
    """Within the block, ``model.download`` of a spec holds too.

    Args:
        policy: ``ask``, ``always`` or ``never``.
    """
    global _of_action
    former, _of_action = _of_action, policy
    try:
        yield
    finally:
        _of_action = former


def set_command(arguments: Sequence[str]) -> None:
    """Note the command line of the program, without its name, for the line that a refusal shows."""
    global _command, _takes_option
    _command, _takes_option = tuple(arguments), False


def allow_download(description: str, name: str, size: int | None) -> None:
    """Return where a download is allowed; above 100 MiB, or of unknown size, ask for it on the terminal.

    Args:
        description: what would be downloaded, from where.
        name: of the trunk, as ``unalike trunks fetch`` takes it.
        size: bytes; None where the hub does not say.

    Raises:
        DownloadRefused: there is no terminal to ask on, or the answer was no.
    """
    if download_policy() == ALWAYS or (size is not None and size <= LIMIT_BYTES):
        return
    amount = "an unknown number of bytes" if size is None else f"{size / 1e6:.0f} MB"
    remedy = f"to allow it: {allowing_line()}; or fetch it first: unalike trunks fetch {name}"
    if not _can_ask():
        raise DownloadRefused(
            f"{description} would download {amount}, and there is no terminal to ask on", remedy=remedy
        )
    print(f"{description}: download {amount}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise DownloadRefused(f"{description}: {amount} were not downloaded, as you answered", remedy=remedy)


def allowing_line() -> str:
    """The line that repeats this call and allows downloads."""
    if not _command:
        return f'os.environ["{VARIABLE}"] = "{ALWAYS}"'
    line = f"unalike {shlex.join(_command)}"
    return f"{line} --download" if _takes_option and "--" not in _command else f"{VARIABLE}={ALWAYS} {line}"


def _can_ask() -> bool:
    """Whether a person can answer: a terminal for question and answer, in the main thread of a process that is alone."""
    is_alone = all(os.environ.get(key, "1") in ("", "1") for key in ("WORLD_SIZE", "SLURM_NTASKS"))
    is_main = threading.current_thread() is threading.main_thread()
    streams = (sys.stdin, sys.stderr)
    return is_alone and is_main and all(stream is not None and stream.isatty() for stream in streams)
