"""Sets of approved assets of the service: opened at its start, and again when their files change.

A folder of assets is enrolled and calibrated, which takes its time; while the service runs, a child process does so.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from unalike.errors import UnalikeError
from unalike.serve.child_process import run_child

if TYPE_CHECKING:
    from unalike.verification.verifier import Verifier


@dataclass(frozen=True)
class AssetOptions:
    """What a set of assets is opened with.

    Attributes:
        reference: a saved set, or a folder of assets.
        model: the network; None: that of the file, or a pretrained one.
        runtime, precision, threads: of the engine.
    """

    reference: str
    model: str | None = None
    runtime: str = "auto"
    precision: str = "auto"
    threads: int | None = None


def open_asset_set(options: AssetOptions) -> Verifier:
    """Load a saved set, or build one from a folder. Raises UnalikeError."""
    from unalike.actions.spec_resolution import spec_with
    from unalike.actions.verify import open_verifier

    values = {"reference": options.reference, "runtime": options.runtime, "precision": options.precision}
    if options.model is not None:
        values["model"] = options.model
    return open_verifier(spec_with("verify", **values).verify, options.threads)


async def load_changed_asset_set(options: AssetOptions) -> Verifier:
    """``open_asset_set`` beside requests: a folder is built in a child process, and what that saved is loaded.

    Raises:
        UnalikeError: it cannot be opened.
    """
    if Path(options.reference).is_file():
        return await asyncio.to_thread(open_asset_set, options)
    with tempfile.TemporaryDirectory(prefix="unalike-assets-") as folder:
        path = str(Path(folder, "changed.assets"))
        await run_child(__name__, [json.dumps(asdict(options)), path])
        return await asyncio.to_thread(open_asset_set, replace(options, reference=path))


def main() -> None:
    """Build the set of the arguments OPTIONS (JSON) PATH and save it there; an error is one line."""
    options, path = sys.argv[1:]
    try:
        open_asset_set(AssetOptions(**json.loads(options))).save(path)
    except UnalikeError as error:
        sys.exit(f"error: {error}")
