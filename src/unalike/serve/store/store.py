"""The store of a service: decisions, feedback, API keys, idempotency and audit in a database, and images by content hash."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from unalike.errors import SpecError, StoreError
from unalike.serve.store.audit import Audit
from unalike.serve.store.database import DATABASE_FILE, Database
from unalike.serve.store.decisions import Decisions
from unalike.serve.store.idempotency import Idempotency
from unalike.serve.store.images import ImageStore
from unalike.serve.store.keys import Keys
from unalike.serve.store.learning import Learning
from unalike.serve.store.migration import upgrade
from unalike.serve.store.references import Galleries
from unalike.serve.store.reviews import Reviews
from unalike.serve.store.service_settings import ServiceSettings
from unalike.serve.store.sessions import Sessions
from unalike.serve.store.settings import Settings
from unalike.serve.store.shadows import Shadows
from unalike.serve.store.statistics import Statistics
from unalike.serve.store.tasks import Tasks
from unalike.storage.overwrite import refuse_address

IMAGES_FOLDER = "images"
# Where ``unalike serve`` keeps its store when no folder is named, without a run and with what the demo left.
FOLDERS = ("runs/serve", "runs/demo/serve")


class Store:
    """What a service keeps. Any number of threads may use one; a forked process opens connections of its own.

    Attributes:
        folder: the folder of the service.
        database: the database.
        decisions, keys, sessions, idempotency, audit, reviews, settings, service_settings, statistics, tasks: what it holds.
        galleries: names and addresses of the galleries that are served; the references are in the galleries alone.
        learning: models, comparisons and promotions.
        shadows: candidates that answer a share of the traffic too, and what they say.
        images: the images.
    """

    def __init__(self, database: Database, images: ImageStore, folder: Path, *, sync_decisions: bool = False) -> None:
        self.database, self.images, self.folder = database, images, folder
        self.decisions = Decisions(database, sync=sync_decisions)
        self.audit, self.idempotency = Audit(database), Idempotency(database)
        self.keys = Keys(database, self.audit)
        self.sessions = Sessions(database, self.audit)
        self.settings, self.service_settings = Settings(database), ServiceSettings(database, self.audit)
        self.reviews, self.tasks, self.learning = Reviews(database), Tasks(database), Learning(database)
        self.shadows = Shadows(database)
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
    refuse_address(folder, StoreError)
    folder = Path(folder)
    database = Database(url, folder)
    upgrade(database)
    return Store(database, ImageStore(images or folder / IMAGES_FOLDER), folder, sync_decisions=sync_decisions)


def find_store(folder: str | None, url: str | None, images: str | None = None, *, create: bool = False) -> Store:
    """Open the store of a service for a command beside it.

    Args:
        folder: the folder of the service; None: the one of ``FOLDERS`` that exists.
        url, images: as of ``open_store``.
        create: make a new one in a folder or a database that was named.

    Raises:
        SpecError: there is none.
        StoreError, MissingExtra: as of ``open_store``.
    """
    candidates = [folder] if folder is not None else list(FOLDERS)
    places = [
        place
        for place in candidates
        if url or (create and folder is not None) or (Path(place) / DATABASE_FILE).is_file()
    ]
    if not places:
        raise SpecError(f"no store of a service in {' or '.join(candidates)}", expected="the folder of a service",
                        remedy="name it with --folder, or its database with --store")  # fmt: skip
    return open_store(url, places[0], images)
