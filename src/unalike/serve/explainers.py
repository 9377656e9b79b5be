"""Explainers of the networks: prepared once, after the service is ready or when a request first needs one.

A checkpoint or a pretrained trunk is exported before it can be cut, which takes half a minute on a busy machine: in a child process
at the lowest priority, into the folder of the service, where the next start and the other processes find it.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from unalike import __version__
from unalike.data.view import View
from unalike.errors import ModelError, RunError
from unalike.explanation import exported_network
from unalike.explanation.explainer import Explainer
from unalike.inference.loaded_model import LoadedModel
from unalike.serve.child_process import run_child
from unalike.serve.logs import log_error
from unalike.serve.resources import GalleryResource, Network
from unalike.storage.digests import text_sha256

FOLDER = "explanation"
# After the start: the first requests come first.
START_S = 2.0


class Explainers:
    """The explainer of each network and view. All methods are called from the event loop.

    Args:
        folder: of the service; exported networks are kept below it.
        threads: cores that a cut network may use; OpenVINO's choice when None.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self.folder, self.threads = folder / FOLDER, threads
        self._tasks: dict[tuple[str, View], asyncio.Task[Explainer]] = {}
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    async def get(self, resource: GalleryResource) -> Explainer:
        """The explainer of a gallery's network and view; all who ask wait for one preparation, which goes on when they do not."""
        key = resource.network.key, resource.view
        task = self._tasks.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._tasks[key] = asyncio.create_task(self._prepare(resource.network, resource.view))
        return await asyncio.shield(task)

    async def prepare(self, resources: Iterable[GalleryResource]) -> None:
        """Prepare, one after another, the networks that have to be exported."""
        await asyncio.sleep(START_S)
        for resource in resources:
            try:
                if needs_export(resource.network.model):
                    await self.get(resource)
            except Exception as error:  # noqa: BLE001  a request tries again
                log_error(f"explanations of the gallery {resource.name} cannot be prepared", error)

    async def close(self) -> None:
        """End what is being prepared."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._temporary is not None:
            self._temporary.cleanup()

    async def _prepare(self, network: Network, view: View) -> Explainer:
        model = replace(network.model, preprocessing=replace(network.model.preprocessing, view=view))
        method, exported = "auto", None
        try:
            exported = await self._export(model)
        except (RunError, OSError) as error:
            log_error(f"{network.key} is explained by occlusion", error)
            method = "covers"
        make = partial(Explainer.from_model, model, method=method, exported=exported, threads=self.threads)
        return await asyncio.to_thread(make)

    async def _export(self, model: LoadedModel) -> Path | None:
        """The file of a model's exported network, written where it is not there yet; None for one that needs none."""
        if not needs_export(model):
            return None
        source, (height, width) = exported_network.export_source(model), model.preprocessing.input_size
        assert source is not None
        # Another network, size or release has another file.
        key = text_sha256("\0".join([source, model.network, str(height), str(width), __version__]))
        path = await asyncio.to_thread(self._writable_folder) / f"{key[:32]}.onnx"
        if not path.exists():
            await run_child(exported_network.__name__, [source, str(height), str(width), str(path)])
        return path

    def _writable_folder(self) -> Path:
        """The folder of exports, or a temporary one where the service's may only be read (its store and images are elsewhere)."""
        if self._temporary is not None:
            return Path(self._temporary.name)
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
            return self.folder
        self._temporary = tempfile.TemporaryDirectory(prefix="unalike-")
        return Path(self._temporary.name)


def needs_export(model: LoadedModel) -> bool:
    """Whether a model has to be exported before its network can be cut."""
    try:
        return exported_network.export_source(model) is not None
    except ModelError:  # it cannot be cut, and is explained by occlusion
        return False
