"""Find the Chromium of this machine, or install Debian's; ``python -m tests.support.chromium`` prints its path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Without a font package a bare machine draws every letter as a box.
PACKAGES = ("chromium", "fonts-dejavu-core", "fonts-liberation")


def find_chromium() -> str | None:
    """The path in the environment variable CHROMIUM, else that of the first program of NAMES on the PATH."""
    chosen = os.environ.get("CHROMIUM")
    if chosen:
        return shutil.which(chosen)
    return next((path for path in map(shutil.which, NAMES) if path), None)


def main() -> int:
    """Print the path; as root on Debian, install Chromium where it is missing."""
    path = find_chromium()
    may_install = not os.environ.get("CHROMIUM") and hasattr(os, "geteuid") and os.geteuid() == 0
    if path is None and may_install and shutil.which("apt-get"):
        for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *PACKAGES]):
            subprocess.run(["apt-get", *command], check=False, stdout=sys.stderr)
        path = find_chromium()
    if path is None:
        wanted = os.environ.get("CHROMIUM") or ", ".join(NAMES)
        print(f"no browser: {wanted} not found; install Chromium, or set CHROMIUM to its path", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
