"""Inspectors of the service: those that were fitted here, in its own folder, and what is set for any; followed by all processes."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from unalike.errors import DataError
from unalike.serve.file_watch import Status, read_status
from unalike.serve.inspector_settings import KIND, InspectorSettings
from unalike.serve.logs import log_error
from unalike.serve.problems import Problem
from unalike.serve.resources import InspectorResource, Resources
from unalike.serve.store import Store

FOLDER, REMOVED, SUFFIX = "inspectors", "removed", ".inspector"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Inspectors:
    """Keeps the inspectors among the resources as the folder and the store have them. Called from the event loop, but for paths.

    Args:
        resources: where the inspectors are served from.
        store: its folder holds the service's own inspectors, its settings what is set.
        load: loads one, by name and path; in a thread.
    """

    def __init__(self, resources: Resources, store: Store, load: Callable[[str, str], InspectorResource]) -> None:
        self.resources, self.store, self._load = resources, store, load
        self.folder = store.folder / FOLDER
        self._own: dict[str, Status] = {}  # of files that were loaded
        self._failed: dict[str, Status] = {}  # of files that could not be

    def path(self, name: str) -> Path:
        """Where an inspector of the service's own is kept."""
        return self.folder / f"{name}{SUFFIX}"

    def removed_path(self, name: str) -> Path:
        """Where the inspector of a name is that was removed last."""
        return self.folder / REMOVED / f"{name}{SUFFIX}"

    def is_own(self, name: str) -> bool:
        """Whether an inspector was fitted by the service."""
        return name in self._own

    def require_free(self, name: str) -> None:
        """Refuse a name that an inspector cannot get, or has. Raises Problem (409, 422)."""
        if not NAME.fullmatch(name):
            raise Problem(422, "invalid-value", f"the name {name[:64]!r}",
                          expected="1 to 64 letters, digits, '_', '.' or '-', a letter or digit first")  # fmt: skip
        if name in self.resources.inspectors or self.path(name).exists():
            raise Problem(409, "name-taken", f"there is an inspector {name!r}", expected="another name",
                          remedy="remove that one first, or choose another name")  # fmt: skip

    async def refresh(self) -> None:
        """Take over what changed in the folder and in the store."""
        statuses, settings = await asyncio.to_thread(self._look)
        for name in [name for name in self._own if name not in statuses]:
            del self._own[name]
            self.resources.inspectors.pop(name, None)
        for name, status in statuses.items():
            # An inspector that the options name goes before one of the folder.
            is_other = name in self.resources.inspectors and name not in self._own
            if status not in (self._own.get(name), self._failed.get(name)) and not is_other:
                await self._take(name, status)
        for name, resource in self.resources.inspectors.items():
            wanted_settings = settings.get(name, InspectorSettings())
            if wanted_settings != resource.settings:
                self.resources.inspectors[name] = replace(resource, settings=wanted_settings)

    async def _take(self, name: str, status: Status) -> None:
        try:
            resource = await asyncio.to_thread(self._load, name, str(self.path(name)))
        except Exception as error:  # noqa: BLE001  a damaged file stops nothing else
            self._failed[name] = status
            log_error(f"the inspector {name} cannot be loaded", error)
            return
        self._own[name] = status
        self.resources.inspectors[name] = resource

    def _look(self) -> tuple[dict[str, Status], dict[str, InspectorSettings]]:
        settings = {
            name: InspectorSettings.from_dict(content) for name, content in self.store.settings.all(KIND).items()
        }
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            names = []
        stems = [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]
        statuses = {stem: read_status(str(self.path(stem))) for stem in stems if NAME.fullmatch(stem)}
        return {stem: status for stem, status in statuses.items() if status}, settings

    # ---- files, in a thread ----

    def remove(self, name: str) -> None:
        """Take an inspector of the service's own out of service; its file stays until another one of this name is removed."""
        target = self.removed_path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.replace(self.path(name), target)
        except FileNotFoundError:
            if not target.exists():  # a repeated request finds it removed
                raise DataError(f"no inspector {name!r} was fitted here") from None

    def restore(self, name: str) -> None:
        """Bring back the inspector of a name that was removed last. Raises Problem (404, 409)."""
        if not self.removed_path(name).exists():
            raise Problem(404, "no-resource", f"no inspector {name[:64]!r} was removed")
        self.require_free(name)
        os.replace(self.removed_path(name), self.path(name))
