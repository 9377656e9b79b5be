"""Decisions of a service over the stand-in engine that a review asks about: unknown, ambiguous and doubtful colors."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from tests.support.serving import PATIENCE_S, files, picture
from unalike.recognition.decision import GalleryCalibration, RateGuarantee

THRESHOLD, MARGIN = 0.5, 0.3
# Colors by what the gallery of three colors says of them, with the threshold and the margin above.
YELLOW, PURPLE = [(255, 255, shade) for shade in (0, 4, 8)], [(200, 30, shade) for shade in (196, 200)]
MIXED = (125, 35, 120)  # ambiguous: between red and blue
RED = (220, 30, 30)


def set_threshold(
    it: SimpleNamespace, threshold: float = THRESHOLD, margin: float = MARGIN, name: str = "colors"
) -> None:
    """Set threshold and margin of a gallery, as a calibration would."""
    resource = it.service.resources.galleries[name]
    with resource.gallery.change() as gallery:
        vectors, classes = gallery.view().size
        guarantee = RateGuarantee(0.01, 0.0, 0.0, 0.1, 0.95, 10, 5, 10.0, 10)
        gallery.calibration = GalleryCalibration(
            threshold, margin, "nearest", 10, guarantee, None, vectors, classes, "a test", revision=gallery.revision
        )
    resource.refresh()


async def identify(it: SimpleNamespace, *colors: Any) -> list[dict[str, Any]]:
    """The answers about pictures of some colors."""
    response = await it.client.post("/v1/identify", files=files(*(picture(color) for color in colors)))
    assert response.status_code == 200, response.text
    return list(response.json()["answers"])


async def review(it: SimpleNamespace, query: str = "") -> dict[str, Any]:
    """What there is to look at, when nothing is under way any more."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            response = await it.client.get(f"/v1/review{query}")
            assert response.status_code == 200, response.text
            document: dict[str, Any] = response.json()
            if document["progress"]["complete"]:
                return document
            await asyncio.sleep(0.01)


async def answer(
    it: SimpleNamespace, status: int = 201, headers: dict[str, str] | None = None, **values: Any
) -> dict[str, Any]:
    """Answer an entry."""
    response = await it.client.post("/v1/review/answers", json=values, headers=headers)
    assert response.status_code == status, response.text
    document: dict[str, Any] = response.json()
    return document


def of_kind(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The entries of a kind."""
    return [entry for entry in document["entries"] if entry["kind"] == kind]


def ids_of(entry: dict[str, Any]) -> list[str]:
    """The ids of the decisions of an entry."""
    return [decision["id"] for decision in entry["decisions"]]
