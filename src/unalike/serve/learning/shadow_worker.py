"""The process of a shadow: it reads images from standard input, and answers each as the candidate would; it ends with the service."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from unalike.errors import UnalikeError
from unalike.serve.learning.gallery_models import LearningGallery
from unalike.serve.learning.shadow_gallery import ShadowGallery
from unalike.serve.store import open_store

READY, ERROR, ANSWER = "ready", "error", "answer"
WATCH_S = 1.0


@dataclass(frozen=True)
class ShadowOrder:
    """What the process of a shadow needs to know.

    Attributes:
        model: id of the candidate.
        folder, store, images: of the service.
        gallery, address: name of the gallery, and its file or its address in a database.
        service_model: the model that the service was started with.
        runtime, precision, threads, max_pixels: of its networks.
    """

    model: str
    folder: str
    store: str | None
    images: str | None
    gallery: str
    address: str
    service_model: str | None
    runtime: str
    precision: str
    threads: int | None
    max_pixels: int

    def to_line(self) -> bytes:
        """One line of JSON."""
        return json.dumps(asdict(self)).encode("ascii")


def main() -> None:
    """Read an order, say that the candidate is ready, and answer images until the standard input ends."""
    order = ShadowOrder(**json.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=_end_with_service, args=(os.getppid(),), daemon=True).start()
    serve(order, sys.stdin.buffer, sys.stdout.buffer)


def serve(order: ShadowOrder, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer images until ``requests`` ends.

    Args:
        order: what is to be known.
        requests: for each image a line of JSON with its number of ``bytes`` and the ``rule`` that labels it, and these bytes.
        answers: gets a line when the candidate is ready, and one for each image.
    """

    def reply(value: Mapping[str, Any]) -> None:
        answers.write(json.dumps(value).encode("ascii") + b"\n")
        answers.flush()

    try:
        with open_store(order.store, order.folder, order.images) as store:
            place = LearningGallery(
                store, order.gallery, order.address, order.service_model, order.runtime, order.precision, order.threads, order.max_pixels
            )  # fmt: skip
            with place.opened() as gallery:
                shadow = ShadowGallery(place, gallery, place.candidate(order.model))
                reply({READY: _state(shadow)})
                while line := requests.readline():
                    request = json.loads(line)
                    content = requests.read(request["bytes"])
                    try:
                        reply({ANSWER: asdict(shadow.identify(content, request["rule"])), **_state(shadow)})
                    except UnalikeError as error:
                        reply({ERROR: str(error), **_state(shadow)})
                    except Exception as error:  # noqa: BLE001  one image ends no others
                        traceback.print_exc()
                        reply({ERROR: f"{type(error).__name__}: {error}", **_state(shadow)})
    except UnalikeError as error:
        reply({ERROR: str(error)})


def _state(shadow: ShadowGallery) -> dict[str, int]:
    return {"references": shadow.size, "left_out": len(shadow.left_out)}


def _end_with_service(parent: int) -> None:
    """End this process when that of the service is gone, also in the middle of a computation."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)
