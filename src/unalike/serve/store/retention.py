"""The thread of a service that removes what is past its retention, once an hour."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Mapping

from unalike.errors import UnalikeError
from unalike.progress import warn
from unalike.recognition.backends.protocol import GalleryBackend
from unalike.serve.store.purge import PurgeReport, Retention, purge_expired
from unalike.serve.store.references import open_galleries
from unalike.serve.store.store import Store

INTERVAL_S = 3600.0


class RetentionThread:
    """Runs ``purge_expired`` again and again, beside the service and its replicas.

    An image stays while any registered gallery names it, of other services of this store too. Where one of these cannot be
    opened nothing is removed, and a warning says so.

    Args:
        store: the store.
        retention: how long things are kept.
        galleries: name -> gallery, those that this service serves now.
        interval_s: seconds between two runs; the first one comes at a random moment of the first interval.
    """

    def __init__(
        self, store: Store, retention: Retention, galleries: Callable[[], Mapping[str, GalleryBackend]], *,
        interval_s: float = INTERVAL_S,
    ) -> None:  # fmt: skip
        self._store, self._retention, self._galleries, self._interval_s = store, retention, galleries, interval_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a run that is under way ends by itself."""
        self._end.set()

    def run_once(self) -> PurgeReport:
        """Remove what is past its retention now.

        Raises:
            UnalikeError: something cannot be read or removed; a gallery cannot be opened.
        """
        own = dict(self._galleries())
        own_addresses = {_key(gallery.address) for gallery in own.values()}
        registered = self._store.galleries.list()
        others = open_galleries({n: address for n, address in registered.items() if _key(address) not in own_addresses})
        try:
            return purge_expired(self._store, self._retention, [*own.values(), *others.values()])
        finally:
            for gallery in others.values():
                gallery.close()

    def _run(self) -> None:
        pause = random.uniform(0, self._interval_s)  # replicas that start together take turns
        while not self._end.wait(pause):
            pause = self._interval_s
            try:
                self.run_once()
            except UnalikeError as error:
                warn(f"nothing is removed that is past its retention: {error}")


def _key(address: str) -> str:
    return address if "://" in address else os.path.realpath(address)
