"""The service: resources, limits and metrics, and the path of an image from upload to result.

Shape letters: N images, D width of an embedding.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from unalike.data.decode import name_of, upright_size
from unalike.data.view import View
from unalike.errors import ModelError, StoreError, UnreadableImage
from unalike.recognition.backends.protocol import GalleryBackend
from unalike.runs.environment import usable_cores
from unalike.sanitize import one_line, redact_all
from unalike.serve.batching import MIN_RETRY_S, BatchReport, Finish, Overloaded
from unalike.serve.decision_log import DecisionLog
from unalike.serve.explainers import Explainers
from unalike.serve.file_watch import FileWatch
from unalike.serve.inspector_fits import KIND as FIT
from unalike.serve.inspector_fits import InspectorFits
from unalike.serve.inspectors import Inspectors
from unalike.serve.learning.desk import LearningDesk
from unalike.serve.learning.shadow import Shadowing
from unalike.serve.logs import Tracer, log, log_error
from unalike.serve.metrics import Metrics
from unalike.serve.model_files import task_folder
from unalike.serve.request_context import answered_in_time, context_of
from unalike.serve.resources import (
    AssetsResource,
    GalleryResource,
    InspectorResource,
    Network,
    ResourceLoader,
    Resources,
)
from unalike.serve.review_queue import ReviewQueue
from unalike.serve.runtime_settings import retention_days
from unalike.serve.security import AccessControl, is_loopback, require_gallery
from unalike.serve.sources import Sources, find_sources
from unalike.serve.store import Store, open_store
from unalike.serve.store.purge import Retention, purge_expired
from unalike.serve.store.references import open_galleries
from unalike.serve.store.store import IMAGES_FOLDER
from unalike.serve.task_runner import TaskRunner
from unalike.serve.thread_budget import thread_budget
from unalike.serve.uploads import IMAGE_FIELDS, MAX_NAME, Form, Limits, Upload, read_form
from unalike.serve.url_inputs import UrlReader
from unalike.serve.vector_cache import VectorCache
from unalike.serve.work_pool import WorkPool
from unalike.storage.digests import content_sha256

if TYPE_CHECKING:
    from unalike.spec.serve import Serve

REFRESH_S = 0.25
PURGE_S = 3600.0
Result = TypeVar("Result")


class Service:
    """All that the endpoints share.

    Args:
        settings: the section ``serve`` of a spec.
        resources: what is served; loaded by the settings when None.
        sources: where that comes from; found by the settings when None.
        store: what is remembered; opened by the settings when None.
    """

    def __init__(
        self, settings: Serve, resources: Resources | None = None, sources: Sources | None = None,
        store: Store | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.sources = sources or (find_sources(settings) if resources is None else Sources())
        self.metrics, self.tracer = Metrics(), Tracer()
        self.limits = Limits(settings.max_bytes, settings.max_files)
        loader = ResourceLoader(settings, self.sources, self.report)
        self.resources = loader.resources = resources or loader.load()
        self.store = store or open_store(settings.store, self.sources.folder, settings.images)
        self.inspectors = Inspectors(self.resources, self.store, loader.load_inspector)
        self.decision_log = DecisionLog(self.store)
        self.access = AccessControl(self.store, settings.rate_limit, is_loopback=is_loopback(settings.host))
        self.access.refresh()
        self.urls = UrlReader(settings.url_hosts or (), settings.max_bytes)
        self.keepers = ThreadPoolExecutor(4, thread_name_prefix="images")
        # One after the other where the networks of this process have all cores.
        self.work = WorkPool(1, settings.queue)
        threads = thread_budget(settings)
        images = settings.images or str(self.store.folder / IMAGES_FOLDER)
        fits = InspectorFits(partial(task_folder, self.store.folder), images, settings.max_pixels, threads)
        self.fits = TaskRunner(self.store.tasks, {FIT: fits.fit})
        self.decoders = ThreadPoolExecutor(max(2, threads or usable_cores()), thread_name_prefix="decode")
        self.explainers = Explainers(self.sources.folder, threads)
        self.vectors = VectorCache()
        self.review = ReviewQueue(self.store, self.vectors, self.decoders, settings.max_pixels)
        addresses = {name: entry.address for name, entry in self.resources.galleries.items()}
        self.learning = LearningDesk(settings, self.sources, self.store, addresses)
        self.shadows = Shadowing(self.store, self.metrics, self.learning.shadow_order, settings.train_cores)
        self.is_ready = False
        self._reading = 0  # bodies that are being read
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def report(self, network: str, report: BatchReport) -> None:
        """Count a batch of an engine, which ``network`` names."""
        self.metrics.add_batch(report)

    # ---- life ----

    async def start(self) -> None:
        """Begin to look for changes of others, and to remove what is past its retention."""
        await asyncio.to_thread(self._register_galleries)
        with suppress(StoreError):  # it is looked at again
            await self.inspectors.refresh()
        self._loop = asyncio.get_running_loop()
        looks = [
            self._look_often(partial(asyncio.to_thread, self.access.refresh), "the API keys"),
            self._look_often(self.inspectors.refresh, "the settings of inspectors"),
            self._look_often(self.fits.look, "the fits that wait"),
            self._look_often(self.learning.tasks.look, "the tasks of learning that wait"),
            self._look_often(partial(self.shadows.look, self.resources), "the shadows of galleries"),
            *(
                self._look_often(partial(asyncio.to_thread, self._refresh_gallery, name), f"the gallery {name}")
                for name in self.resources.galleries
            ),
            *(self._watch(name, watch) for name, watch in self.resources.watches.items()),
        ]
        self._tasks = [asyncio.create_task(work) for work in (*looks, self._purge())]
        self.is_ready = True
        galleries = list(self.resources.galleries.values())
        self._tasks.append(asyncio.create_task(self.explainers.prepare(galleries)))

    async def stop(self) -> None:
        """End all threads; requests were answered before."""
        self.is_ready = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # what they started has ended then
        await self.shadows.stop()
        await self.explainers.close()
        await self.review.close()
        await self.urls.close()
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """End the threads, and close the store."""
        self.decoders.shutdown(wait=True, cancel_futures=True)
        self.resources.close()
        self.work.close()
        self.keepers.shutdown(wait=True)
        self.store.close()

    async def _look_often(self, function: Callable[[], Awaitable[object]], name: str) -> None:
        """Take over, four times a second, what other processes changed; one thing that cannot be read delays no other."""
        last = ""
        while True:
            await asyncio.sleep(REFRESH_S)
            error = await self._look(function)
            text = "" if error is None else f"{type(error).__name__}: {error}"
            if error is not None and text != last:  # once, not four times a second
                log_error(f"{name} cannot be read again: the former state stays in service", error)
            if error is None and last:
                log(logging.INFO, f"{name} can be read again")
            last = text
            if error is not None:
                await asyncio.sleep(10 * REFRESH_S)

    def _refresh_gallery(self, name: str) -> None:
        """Take over what others changed in a gallery, in a thread; where another model was promoted, that too."""
        resource = self.resources.galleries[name]
        try:
            resource.refresh()
        except ModelError:
            loader = ResourceLoader(self.settings, self.sources, self.report, self.resources)
            replacement = loader.reopen_gallery(name, resource.address)
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._replace_gallery, replacement)

    def _replace_gallery(self, resource: GalleryResource) -> None:
        """Put a gallery with another network into service; in the loop, so that a request sees the old or the new one."""
        former = self.resources.galleries[resource.name]
        if former.network is resource.network:
            return
        network = self.resources.replace_gallery(resource)
        log(logging.INFO, f"the gallery {resource.name} is served with another model", model=resource.network.key)
        if self._loop is not None:
            close = partial(self._close_former, former.gallery, network)
            self._loop.call_later(self.settings.deadline + REFRESH_S, self._loop.run_in_executor, None, close)

    def _close_former(self, former: GalleryBackend, network: Network | None) -> None:
        """Close a gallery that was replaced, and its network where nothing needs it, when no request has them any more; in a thread.

        Other processes may still read it, as one that cannot load the new model does; a purge removes it.
        """
        if network is not None:
            self.resources.close_network(network)
        former.close()

    async def _watch(self, name: str, watch: FileWatch) -> None:
        """Load an inspector or a set of assets again when its files change."""
        await watch.run(
            REFRESH_S, lambda: log(logging.INFO, f"the {name} changed, and was loaded again"),
            lambda error: log_error(f"the {name} changed, and cannot be loaded: the former one stays in service", error),
        )  # fmt: skip

    def _register_galleries(self) -> None:
        """Let purges and backups know the galleries."""
        addresses = {
            name: entry.address if "://" in entry.address else os.path.abspath(entry.address)
            for name, entry in self.resources.galleries.items()
        }
        self.store.galleries.register(addresses)

    async def _purge(self) -> None:
        """Remove, once an hour, what is past its retention; of several processes each may."""
        while True:
            await asyncio.sleep(PURGE_S)
            error = await self._look(partial(asyncio.to_thread, lambda: self.purge(self.retention())))
            if error is not None:
                log_error("what is past its retention cannot be removed", error)

    def retention(self) -> Retention:
        """How long things are kept: as it was changed, else as the start options say."""
        return Retention.of_days(*retention_days(self.settings, self.store.service_settings.read()))

    def purge(self, retention: Retention) -> None:
        """Remove what is past its retention."""
        with open_galleries(self.store.galleries.list()) as galleries:
            report = purge_expired(self.store, retention, galleries.values())
        log(logging.INFO, "purge", **report.to_dict())

    async def _look(self, function: Callable[[], Awaitable[object]]) -> Exception | None:
        """Call a function; its error, after which the old state stays in use."""
        try:
            await function()
        except Exception as error:  # noqa: BLE001
            return error
        return None

    # ---- images ----

    async def read_images(self, request: Request, network: Network, fields: Sequence[str] = IMAGE_FIELDS) -> Form:
        """Read the body of a request for a network.

        Raises:
            Overloaded: not even one more image fits in; the body was not read.
            Problem: as of ``uploads.read_form``.
        """
        network.batcher.refuse_overload(1, context_of(request).deadline)
        return await self.read_form(request, fields)

    async def read_form(self, request: Request, fields: Sequence[str] = IMAGE_FIELDS) -> Form:
        """Read the body of a request, and fetch the images that it names by address.

        Raises:
            Overloaded: as many bodies are being read as images may wait.
            TimeoutError: the client sends too slowly.
            Problem: as of ``uploads.read_form`` and ``UrlReader.read``.
        """
        if self._reading >= self.settings.queue:
            raise Overloaded(MIN_RETRY_S)
        self._reading += 1
        try:
            async with asyncio.timeout(context_of(request).deadline - time.monotonic()):
                form = await read_form(request, self.limits, fields)
        finally:
            self._reading -= 1
        if any(upload.url for upload in form.images):
            async with answered_in_time(request):
                for upload in form.images:
                    if upload.url:
                        upload.content = await self.urls.read(upload.url)
        return form

    # ---- resources, for the key of a request ----

    def gallery(self, request: Request, name: str | None) -> GalleryResource:
        """The gallery of a request. Raises Problem (403, 404)."""
        context = context_of(request)
        resource = self.resources.gallery(name if name is not None else context.gallery)
        require_gallery(context, "gallery", resource.name)
        return resource

    def inspector(self, request: Request, name: str | None) -> InspectorResource:
        """The inspector of a request. Raises Problem (403, 404)."""
        resource = self.resources.inspector(name)
        require_gallery(context_of(request), "inspector", resource.name)
        return resource

    def asset_set(self, request: Request, name: str | None) -> AssetsResource:
        """The set of assets of a request. Raises Problem (403, 404)."""
        resource = self.resources.asset_set(name)
        require_gallery(context_of(request), "set of assets", resource.name)
        return resource

    # ---- what is kept ----

    def keep_image(self, upload: Upload) -> None:
        """Keep the image of a decision as safely as the decision; where it cannot be written, the log says so."""
        try:
            self.store.images.put(upload.content, sync=self.store.decisions.sync, sha=upload.sha)
        except StoreError as error:
            log_error("the image of a decision is not kept", error)

    def view_upload(self, upload: Upload, view: View, keep: bool) -> np.ndarray | UnreadableImage:
        """Decode one image for a network, in a thread; an image that cannot be read is returned as its error."""
        start = time.perf_counter()
        try:
            image_HWC = view(upload.content, max_pixels=self.settings.max_pixels)
            if keep:
                upload.sha = content_sha256(upload.content)
            return image_HWC
        except UnreadableImage as error:
            return self.named_error(error, upload)
        finally:
            self.metrics.add_decoding(time.perf_counter() - start)

    def check_size(self, upload: Upload) -> None:
        """Refuse by its header an image of too many pixels. Raises UnreadableImage."""
        height, width = upright_size(upload.content)
        if height * width > self.settings.max_pixels:
            raise UnreadableImage(
                f"{name_of(upload.content)}: {width} x {height} pixels", expected=f"at most {self.settings.max_pixels}",
                remedy="max_pixels",
            )  # fmt: skip

    def kept_sha(self, upload: Upload) -> str | None:
        """Keep the image of a decision, in a thread; its content hash, or None where images are not kept."""
        if not self.settings.keep_images:
            return None
        self.keep_image(upload)
        return content_sha256(upload.content)

    async def work_on(self, request: Request, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        """Run calls for a request in the work pool; those not begun are dropped when its client hangs up or it is late.

        Raises:
            Overloaded, HungUp, TimeoutError.
        """
        context_of(request).images += len(calls)
        async with answered_in_time(request):
            return await self.work.run_all(calls)

    def named_error(self, error: UnreadableImage, upload: Upload) -> UnreadableImage:
        """The error with the client's name of the image and the service's name of the limit."""
        text = error.found.replace(name_of(upload.content), display_name(upload.name) or "the image", 1)
        remedy = error.remedy
        if "max_pixels" in remedy:
            remedy = "send a smaller image, or start the service with a larger --max-pixels"
        return UnreadableImage(text, expected=error.expected, remedy=remedy)

    async def embed(
        self, request: Request, uploads: Sequence[Upload], network: Network, view: View, finish: Finish,
        contexts: Sequence[Any], *, keep: bool = False,
    ) -> list[Any]:  # fmt: skip
        """Decode images, compute their embeddings in shared batches, and finish each.

        Args:
            request: it is given up when its client hangs up or its time is over.
            uploads: the images.
            network, view: the network and the view of its images.
            finish: what follows the network.
            contexts: one for each image, for ``finish``.
            keep: keep the images, as safely as decisions.

        Returns:
            For each image its result, or UnreadableImage.

        Raises:
            Overloaded, HungUp, TimeoutError.
        """
        context = context_of(request)
        context.images += len(uploads)
        loop, batcher = asyncio.get_running_loop(), network.batcher

        def begin_alone(upload: Upload, image_context: Any) -> asyncio.Future[Any]:
            def finish_and_keep(vectors_ND: np.ndarray, contexts: Sequence[Any]) -> Sequence[Any]:
                # An object store is written meanwhile; for a file, a thread of its own costs more than the file.
                is_remote = keep and not self.store.images.is_local
                keeping = self.keepers.submit(self.keep_image, upload) if is_remote else None
                results = finish(vectors_ND, contexts)
                if keeping is not None:
                    keeping.result()
                elif keep:
                    self.keep_image(upload)
                return results

            return batcher.run_alone(
                partial(self.view_upload, upload, view, keep), finish_and_keep, image_context, context.deadline
            )

        async def one(upload: Upload, image_context: Any) -> Any:
            image = await loop.run_in_executor(self.decoders, self.view_upload, upload, view, keep)
            if isinstance(image, UnreadableImage):
                return image
            keeping = loop.run_in_executor(self.keepers, self.keep_image, upload) if keep else None
            result = await batcher.run(image, finish, image_context, context.deadline)
            if keeping is not None:  # it went on beside the network
                await keeping
            return result

        with batcher.reserve(len(uploads), context.deadline):
            if len(uploads) == 1 and batcher.is_idle:
                future = begin_alone(uploads[0], contexts[0])  # works while its client begins to be watched
                async with answered_in_time(request):
                    return [await future]
            async with answered_in_time(request):
                if len(uploads) == 1:
                    return [await one(uploads[0], contexts[0])]
                pairs = zip(uploads, contexts, strict=True)
                return list(await asyncio.gather(*(one(upload, context) for upload, context in pairs)))


def display_name(name: str) -> str:
    """A client's name of an image as answers and messages repeat it."""
    return one_line(name[:MAX_NAME])


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Plain data as JSON in ASCII, as the command line prints it."""
    text = json.dumps(value, ensure_ascii=True)
    if "://" in text:  # names may be addresses with passwords or signatures
        text = json.dumps(redact_all(value), ensure_ascii=True)
    return Response(text.encode("ascii"), status, headers=headers, media_type="application/json")
