"""A service with an inspector of drawn parts."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from tests.support.inspected_parts import draw_part, fitted_inspector
from tests.support.serving import files, running
from unalike.serve.resources import InspectorResource

SCRATCH = (40, 44)  # row and column of a scratch


def png(image_HWC: np.ndarray) -> bytes:
    """An image as PNG."""
    stream = io.BytesIO()
    Image.fromarray(image_HWC).save(stream, "PNG")
    return stream.getvalue()


def part_picture(seed: int, *, is_scratched: bool = False) -> bytes:
    """A PNG of a part."""
    return png(draw_part(seed, SCRATCH if is_scratched else None))


@asynccontextmanager
async def inspecting(folder: Path, name: str = "part", **values: Any) -> AsyncIterator[SimpleNamespace]:
    """A started service, as of ``running``, with an inspector whose file is below ``folder``."""
    path = folder / f"{name}.inspector"
    if not path.exists():
        fitted_inspector().save(path)
    async with running(folder, **values) as it:
        it.service.resources.inspectors[name] = InspectorResource(name, str(path), fitted_inspector())
        await it.service.inspectors.refresh()
        yield it


async def inspect(it: Any, *contents: bytes, name: str = "part") -> list[dict[str, Any]]:
    """The answers of the endpoint."""
    response = await it.client.post(f"/v1/inspectors/{name}/inspect", files=files(*contents))
    assert response.status_code == 200, response.text
    return list(response.json()["answers"])
