"""The client of the service: the same answers as ``Recogniser``, over HTTP.

Shape letters: N images, D width of an embedding.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
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
from unalike.errors import UnreadableImage
from unalike.recognition.attributes import Attributes, Where
from unalike.recognition.identification import Identification

if TYPE_CHECKING:
    import httpx
    import numpy as np

DEFAULT_ADDRESS = "http://127.0.0.1:8000"

T = TypeVar("T")


class Client:
    """A connection to a service (``unalike serve``). Any number of threads may use one.

    Examples:
        >>> client = Client("http://localhost:8000")                # doctest: +SKIP
        >>> client.identify("photo.jpg")[0].label

    Args:
        address: of the service.
        key: API key, where the service asks for one.
        timeout: longest time of a request, in seconds.
        options: further ones of ``httpx.Client``, such as ``verify`` for a certificate of one's own.

    Raises:
        MissingExtra: httpx is not installed (extra ``client``).

    Every method raises ServiceError where the service refuses or cannot be reached, and repeats a request that the service was
    too busy for.
    """

    def __init__(
        self, address: str = DEFAULT_ADDRESS, key: str | None = None, *, timeout: float = 60.0, **options: Any
    ) -> None:
        library = import_httpx()
        self.address = address.rstrip("/")
        self._http: httpx.Client = library.Client(**client_options(address, key, timeout, options))
        self._broken: type[Exception] = library.TransportError

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, call: Call[T]) -> T:
        """Send one request, again where the service is busy, and return its result."""
        for attempt in range(RETRIES + 1):
            response = None
            try:
                response = self._http.request(call.method, call.path, **call.options())
            except self._broken as error:
                if attempt == RETRIES:
                    raise unreachable(self.address, error) from error
            if response is not None and (response.status_code != 503 or attempt == RETRIES):
                return read_answer(call, response)
            time.sleep(wait_seconds(response, attempt))
        raise AssertionError("the last attempt returns or raises")

    def identify(
        self,
        images: Any,
        k: int = 1,
        rule: str | None = None,
        *,
        where: Where | None = None,
        gallery: str | None = None,
    ) -> list[Identification]:
        """Find the class of each image; one that cannot be read ends it (``identify_many`` goes on).

        Args:
            images: one image or several, each as in ``encode_image``.
            k: number of nearest enrolled images to return with each.
            rule: ``nearest``, ``prototype`` or ``vote``; the rule of the calibration when None.
            where: compares with references that have these attributes alone, as in ``Recogniser.identify``.
            gallery: name of the gallery; the service's default one when None.

        Raises:
            UnreadableImage: an image cannot be decoded.
        """
        return raise_errors(
            [r for part in batches(images) for r in self.call(identify_call(part, k, rule, gallery, where))]
        )

    def identify_many(
        self,
        images: Any,
        k: int = 1,
        rule: str | None = None,
        *,
        where: Where | None = None,
        gallery: str | None = None,
    ) -> Iterator[Identification | UnreadableImage]:
        """Find the class of each of many images, in order; one that cannot be decoded gives its error, and the others go on."""
        for part in batches(images):
            yield from self.call(identify_call(part, k, rule, gallery, where))

    def embed(self, images: Any, *, gallery: str | None = None) -> np.ndarray:
        """Compute the embeddings of images: float32 (N, D)."""
        return as_array(raise_errors([r for part in batches(images) for r in self.call(embed_call(part, gallery))]))

    # ---- references ----

    def enrol(
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
                new = self.call(enrol_call([every[n] for n in part], label, gallery, attributes))
                references.update(zip(part, new, strict=True))
        return [references[number] for number in range(len(every))]

    def classes(self, *, gallery: str | None = None) -> dict[str, int]:
        """Number of references of each class."""
        counts: dict[str, int] = {}
        after = None
        while True:
            page = self.call(classes_call(gallery, after))
            counts |= {row["label"]: row["images"] for row in page["classes"]}
            after = page["next"]
            if after is None:
                return counts

    def references(
        self, label: str | None = None, *, where: Where | None = None, gallery: str | None = None
    ) -> Iterator[Reference]:
        """Go through all references, those of one class, or those with some attributes, by id."""
        after = None
        while True:
            page = self.call(references_call(gallery, label, after, where))
            yield from read_references(page)
            after = page["next"]
            if after is None:
                return

    def remove_reference(self, reference_id: int, *, gallery: str | None = None) -> int:
        """Remove one reference; the number of those removed."""
        return self.call(remove_reference_call(reference_id, gallery))

    def remove_class(self, label: str, *, gallery: str | None = None) -> int:
        """Remove a class; the number of references removed."""
        return self.call(remove_class_call(label, gallery))

    def rename(self, label: str, new: str, *, gallery: str | None = None) -> int:
        """Rename a class; the number of its references."""
        return self.call(rename_call(label, new, gallery))

    def merge(self, labels: Sequence[str], into: str, *, gallery: str | None = None) -> int:
        """Merge several classes into one, new or existing; the number of references that were changed."""
        return self.call(merge_call(labels, into, gallery))

    def calibrate(
        self, rate: float | None = None, max_refused: float | None = None, *, rule: str | None = None,
        gallery: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Set the threshold of "unknown", as ``Recogniser.set_threshold``; the gallery's size and calibration as plain data."""
        return self.call(calibrate_call(rate, max_refused, rule, gallery))

    def gallery(self, name: str | None = None) -> dict[str, Any]:
        """Size and calibration of a gallery, as plain data."""
        return self.call(get_call(scoped_path("galleries", name, "/calibration")))

    # ---- decisions ----

    def decisions(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """Go through the decisions, the newest first, as plain data.

        Args:
            filters: ``kind``, ``resource``, ``decision``, ``label``, ``nearest``, ``since``, ``until`` (ISO 8601),
                ``min_score``, ``max_score``, ``verdict``.
        """
        after = None
        while True:
            page = self.call(decisions_call(filters, after))
            yield from page["decisions"]
            after = page["next"]
            if after is None:
                return

    def give_feedback(self, decision_id: str, verdict: str, label: str | None = None, note: str = "") -> dict[str, Any]:
        """Say whether a decision was right: ``confirmed``, ``wrong`` (with the right class), ``new class``, ``unusable``."""
        return self.call(feedback_call(decision_id, verdict, label, note))

    # ---- other features: their answers as plain data, as the command line prints them ----

    def inspect(self, image: Any, *, overlay: bool = False, inspector: str | None = None) -> dict[str, Any]:
        """Find defects in an image."""
        values = {"overlay": "true" if overlay else None}
        return self.call(image_call("inspectors", inspector, "/inspect", {"image": image}, values))

    def verify(self, image: Any, asset: str | None = None, *, assets: str | None = None) -> dict[str, Any]:
        """Decide whether an image shows an approved asset, unaltered."""
        return self.call(image_call("assets", assets, "/verify", {"image": image}, {"asset": asset}))

    def compare(self, reference: Any, image: Any, **settings: Any) -> dict[str, Any]:
        """Find where an image differs from a reference; ``settings`` as of ``Comparer``: tolerance, contrast, align, ..."""
        images = {"reference": reference, "image": image}
        return self.call(image_call("", None, "/compare", images, settings))

    def explain(self, image: Any, reference_id: int | None = None, *, gallery: str | None = None) -> dict[str, Any]:
        """Explain why an image is like its nearest reference, or like one by id."""
        values = {"reference_id": reference_id}
        return self.call(image_call("galleries", gallery, "/explain", {"image": image}, values))

    def models(self) -> dict[str, Any]:
        """Networks, inspectors and assets that are served."""
        return self.call(get_call("/v1/models"))
