"""The store of a service: decisions, feedback, API keys, idempotency and audit in a database, and images by content hash."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from unalike.serve.store.audit import Audit
from unalike.serve.store.database import Database
from unalike.serve.store.decisions import Decisions
from unalike.serve.store.idempotency import Idempotency
from unalike.serve.store.images import ImageStore
from unalike.serve.store.keys import Keys
from unalike.serve.store.migration import upgrade
from unalike.serve.store.references import Galleries
from unalike.serve.store.reviews import Reviews
from unalike.serve.store.service_settings import ServiceSettings
from unalike.serve.store.sessions import Sessions
from unalike.serve.store.settings import Settings
from unalike.serve.store.statistics import Statistics
from unalike.serve.store.work import Work

IMAGES_FOLDER = "images"


class Store:
    """What a service keeps. Any number of threads may use one; a forked process opens connections of its own.

    Attributes:
        folder: the folder of the service.
        database: the database.
        decisions, keys, sessions, idempotency, audit, reviews, settings, service_settings, statistics, work: what it holds.
        galleries: names and addresses of the galleries that are served; the references are in the galleries alone.
        images: the images.
    """

    def __init__(self, database: Database, images: ImageStore, folder: Path, *, sync_decisions: bool = False) -> None:
        self.database, self.images, self.folder = database, images, folder
        self.decisions = Decisions(database, sync=sync_decisions)
        self.audit, self.idempotency = Audit(database), Idempotency(database)
        self.keys = Keys(database, self.audit)
        self.sessions = Sessions(database, self.audit)
        self.settings, self.service_settings = Settings(database), ServiceSettings(database, self.audit)
        self.reviews, self.work = Reviews(database), Work(database)
        self.galleries, self.statistics = Galleries(database), Statistics(database)

    def transaction(self) -> AbstractContextManager[sa.Connection]:
        """A transaction for several changes, all or none; on the disk when it ends.

        Examples:
            >>> with store.transaction() as connection:   # doctest: +SKIP
            ...     store.audit.finish(entry_id, "done", connection=connection)
            ...     store.idempotency.complete(claim, 201, body, connection=connection)
        """
        return self.database.writing()

    def close(self) -> None:
        """Close the connections."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_store(
    url: str | None, folder: str | Path, images: str | Path | None = None, *, sync_decisions: bool = False
) -> Store:
    """Open a store; its tables are created, or brought to this release's version.

    Args:
        url: ``postgresql://HOST/DATABASE``, or None for a SQLite file in the folder.
        folder: the folder of the service; created where it is missing.
        images: a folder or an address of images, such as ``s3://bucket/images``; ``folder/images`` by default.
        sync_decisions: wait for the disk at every decision, so that one survives a loss of power too.

    Raises:
        StoreError: the database or the folder cannot be used, or a newer unalike wrote it.
        MissingExtra: a package for that kind of address is not installed.
    """
    folder = Path(folder)
    database = Database(url, folder)
    upgrade(database)
    return Store(database, ImageStore(images or folder / IMAGES_FOLDER), folder, sync_decisions=sync_decisions)
