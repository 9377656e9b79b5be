"""The client of the service for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from unalike.client.answers import (
    RETRIES,
    as_array,
    client_options,
    import_httpx,
    raise_errors,
    read_answer,
    unreachable,
    wait_seconds,
)
from unalike.client.calls import (
    Call,
    Reference,
    calibrate_call,
    classes_call,
    decisions_call,
    embed_call,
    enrol_call,
    feedback_call,
    get_call,
    identify_call,
    image_call,
    merge_call,
    read_references,
    references_call,
    remove_class_call,
    remove_reference_call,
    rename_call,
    scoped_path,
)
from unalike.client.images import batches, by_label, image_list, parts_of
from unalike.client.sync import DEFAULT_ADDRESS
from unalike.errors import UnreadableImage
from unalike.recognition.attributes import Attributes, Where
from unalike.recognition.identification import Identification

if TYPE_CHECKING:
    import httpx
    import numpy as np

T = TypeVar("T")


class AsyncClient:
    """``Client`` for asyncio: the same methods, awaited.

    Args:
        address, key, timeout, options: as of ``Client``; options are those of ``httpx.AsyncClient``.
    """

    def __init__(
        self, address: str = DEFAULT_ADDRESS, key: str | None = None, *, timeout: float = 60.0, **options: Any
    ) -> None:
        library = import_httpx()
        self.address = address.rstrip("/")
        self._http: httpx.AsyncClient = library.AsyncClient(**client_options(address, key, timeout, options))
        self._broken: type[Exception] = library.TransportError

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def call(self, call: Call[T]) -> T:
        """Send one request, again where the service is busy, and return its result."""
        for attempt in range(RETRIES + 1):
            response = None
            try:
                response = await self._http.request(call.method, call.path, **call.options())
            except self._broken as error:
                if attempt == RETRIES:
                    raise unreachable(self.address, error) from error
            if response is not None and (response.status_code != 503 or attempt == RETRIES):
                return read_answer(call, response)
            await asyncio.sleep(wait_seconds(response, attempt))
        raise AssertionError("the last attempt returns or raises")

    async def identify(
        self,
        images: Any,
        k: int = 1,
        rule: str | None = None,
        *,
        where: Where | None = None,
        gallery: str | None = None,
    ) -> list[Identification]:
        """As ``Client.identify``."""
        results: list[Any] = []
        for part in batches(images):
            answers = await self.call(identify_call(part, k, rule, gallery, where))
            results += answers
        return raise_errors(results)

    async def identify_many(
        self,
        images: Any,
        k: int = 1,
        rule: str | None = None,
        *,
        where: Where | None = None,
        gallery: str | None = None,
    ) -> AsyncIterator[Identification | UnreadableImage]:
        """As ``Client.identify_many``."""
        for part in batches(images):
            for result in await self.call(identify_call(part, k, rule, gallery, where)):
                yield result

    async def embed(self, images: Any, *, gallery: str | None = None) -> np.ndarray:
        """As ``Client.embed``."""
        results: list[Any] = []
        for part in batches(images):
            answers = await self.call(embed_call(part, gallery))
            results += answers
        return as_array(raise_errors(results))

    # ---- references ----

    async def enrol(
        self,
        images: Any,
        labels: str | Sequence[str],
        *,
        attributes: Attributes | None = None,
        gallery: str | None = None,
    ) -> list[Reference]:
        """Add reference images.

        Args:
            images: one image or several, each as in ``encode_image``.
            labels: one class name for each image, or one for all.
            attributes: of all images, by which searches are filtered, such as ``{"site": "berlin"}``.
            gallery: name of the gallery.

        Returns:
            The references, in the order of the images.
        """
        every = image_list(images)
        references: dict[int, Reference] = {}
        for label, numbers in by_label(labels, len(every)).items():
            for part in parts_of(numbers):
                new = await self.call(enrol_call([every[n] for n in part], label, gallery, attributes))
                references.update(zip(part, new, strict=True))
        return [references[number] for number in range(len(every))]

    async def classes(self, *, gallery: str | None = None) -> dict[str, int]:
        """Number of references of each class."""
        counts: dict[str, int] = {}
        after = None
        while True:
            page = await self.call(classes_call(gallery, after))
            counts |= {row["label"]: row["images"] for row in page["classes"]}
            after = page["next"]
            if after is None:
                return counts

    async def references(
        self, label: str | None = None, *, where: Where | None = None, gallery: str | None = None
    ) -> AsyncIterator[Reference]:
        """Go through all references, those of one class, or those with some attributes, by id."""
        after = None
        while True:
            page = await self.call(references_call(gallery, label, after, where))
            for reference in read_references(page):
                yield reference
            after = page["next"]
            if after is None:
                return

    async def remove_reference(self, reference_id: int, *, gallery: str | None = None) -> int:
        """Remove one reference; the number of those removed."""
        return await self.call(remove_reference_call(reference_id, gallery))

    async def remove_class(self, label: str, *, gallery: str | None = None) -> int:
        """Remove a class; the number of references removed."""
        return await self.call(remove_class_call(label, gallery))

    async def rename(self, label: str, new: str, *, gallery: str | None = None) -> int:
        """Rename a class; the number of its references."""
        return await self.call(rename_call(label, new, gallery))

    async def merge(self, labels: Sequence[str], into: str, *, gallery: str | None = None) -> int:
        """Merge several classes into one, new or existing; the number of references that were changed."""
        return await self.call(merge_call(labels, into, gallery))

    async def calibrate(
        self, rate: float | None = None, max_refused: float | None = None, *, rule: str | None = None,
        gallery: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Set the threshold of "unknown", as ``Recogniser.set_threshold``; the gallery's size and calibration as plain data."""
        return await self.call(calibrate_call(rate, max_refused, rule, gallery))

    async def gallery(self, name: str | None = None) -> dict[str, Any]:
        """Size and calibration of a gallery, as plain data."""
        return await self.call(get_call(scoped_path("galleries", name, "/calibration")))

    # ---- decisions ----

    async def decisions(self, **filters: Any) -> AsyncIterator[dict[str, Any]]:
        """Go through the decisions, the newest first, as plain data.

        Args:
            filters: ``kind``, ``resource``, ``decision``, ``label``, ``nearest``, ``since``, ``until`` (ISO 8601),
                ``min_score``, ``max_score``, ``verdict``.
        """
        after = None
        while True:
            page = await self.call(decisions_call(filters, after))
            for decision in page["decisions"]:
                yield decision
            after = page["next"]
            if after is None:
                return

    async def give_feedback(
        self, decision_id: str, verdict: str, label: str | None = None, note: str = ""
    ) -> dict[str, Any]:
        """Say whether a decision was right: ``confirmed``, ``wrong`` (with the right class), ``new class``, ``unusable``."""
        return await self.call(feedback_call(decision_id, verdict, label, note))

    # ---- other features: their answers as plain data, as the command line prints them ----

    async def inspect(self, image: Any, *, overlay: bool = False, inspector: str | None = None) -> dict[str, Any]:
        """Find defects in an image."""
        values = {"overlay": "true" if overlay else None}
        return await self.call(image_call("inspectors", inspector, "/inspect", {"image": image}, values))

    async def verify(self, image: Any, asset: str | None = None, *, assets: str | None = None) -> dict[str, Any]:
        """Decide whether an image shows an approved asset, unaltered."""
        return await self.call(image_call("assets", assets, "/verify", {"image": image}, {"asset": asset}))

    async def compare(self, reference: Any, image: Any, **settings: Any) -> dict[str, Any]:
        """Find where an image differs from a reference; ``settings`` as of ``Comparer``: tolerance, contrast, align, ..."""
        images = {"reference": reference, "image": image}
        return await self.call(image_call("", None, "/compare", images, settings))

    async def explain(
        self, image: Any, reference_id: int | None = None, *, gallery: str | None = None
    ) -> dict[str, Any]:
        """Explain why an image is like its nearest reference, or like one by id."""
        values = {"reference_id": reference_id}
        return await self.call(image_call("galleries", gallery, "/explain", {"image": image}, values))

    async def models(self) -> dict[str, Any]:
        """Networks, inspectors and assets that are served."""
        return await self.call(get_call("/v1/models"))
