"""The commands that install an extra, or a newer version, into the environment that runs this program."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

_PACKAGE = Path(__file__).parent


def install_command(extras: str) -> str:
    """The command that installs extras here: from the checkout, the file or the address that unalike was installed from.

    Args:
        extras: Their names, separated by commas.
    """
    checkout = find_checkout()
    if checkout is not None:
        pins = checkout / "constraints.txt"
        constraints = f"-c {shlex.quote(str(pins))} " if pins.is_file() else ""
        return f"{_pip()} install {constraints}-e '{checkout}[{extras}]'"
    return f"{_pip()} install {_requirement(extras)}"


def upgrade_command() -> str:
    """The command that brings a newer version of unalike here."""
    checkout = find_checkout()
    return f"{_pip()} install -U unalike" if checkout is None else f"git -C {shlex.quote(str(checkout))} pull"


def find_checkout() -> Path | None:
    """The folder of the source tree that this program runs from; None where it was installed as a package."""
    root = _PACKAGE.parents[1]
    return root if _PACKAGE.parent.name == "src" and (root / "pyproject.toml").is_file() else None


def _pip() -> str:
    """``pip`` where that is the one of this environment, else Python's module: an environment need not be activated."""
    program = shutil.which("pip")
    same = program is not None and os.path.dirname(program) == os.path.dirname(sys.executable)
    return "pip" if same else f"{shlex.quote(sys.executable)} -m pip"


def _requirement(extras: str) -> str:
    """The requirement of an installed package with extras: its file or address where it did not come from an index."""
    from urllib.parse import unquote  # loaded for an error alone

    url = _recorded_url()
    path = unquote(url.removeprefix("file://"))  # pip writes a blank as %20
    if url.startswith("file://"):
        return f"'{path}[{extras}]'" if os.path.exists(path) else f"'unalike[{extras}]'"
    return f"'unalike[{extras}] @ {url}'" if url else f"'unalike[{extras}]'"


def _recorded_url() -> str:
    """The address in ``direct_url.json``, which pip writes for what did not come from an index; else empty."""
    from importlib import metadata  # loaded for an error alone

    try:
        record = json.loads(metadata.distribution("unalike").read_text("direct_url.json") or "{}")
        version_control = record.get("vcs_info", {})
        prefix = f"{version_control['vcs']}+" if version_control else ""
        return prefix + str(record.get("url", ""))
    except (metadata.PackageNotFoundError, ValueError, KeyError):
        return ""
