"""Folders of vectors that ``unalike embed`` wrote as shards: how one is told from a folder of images."""

from __future__ import annotations

import os
from pathlib import Path

from unalike.errors import UnalikeError
from unalike.storage.filesystems import uri_of
from unalike.storage.output_folder import OutputFolder

# The file by which a folder is one of shards.
PLAN_FILE = "plan.parquet"


def is_vector_folder(source: str | Path) -> bool:
    """Whether a source is a folder, or an address of one, that ``unalike embed`` wrote shards into.

    Where a store cannot be asked it is taken as one of images, whose reader says why it cannot be reached.
    """
    address = uri_of(source)
    if address is not None and os.path.splitext(address)[1]:
        return False
    try:
        return OutputFolder(source).exists(PLAN_FILE)
    except UnalikeError:
        return False
