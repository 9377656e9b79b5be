"""Shadows of a service: which decisions are sampled, and the process in which a candidate answers them after the service has.

An image waits for the candidate in a short queue. Where that is full, or the service is busy, it is dropped and counted: no
answer of the service waits for a candidate.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from unalike.errors import RunError, StoreError, UnalikeError
from unalike.recognition.backends.address import open_gallery
from unalike.serve.child_process import open_child, read_tail
from unalike.serve.learning.shadow_worker import ANSWER, ERROR, READY, ShadowOrder
from unalike.serve.logs import log, log_error
from unalike.serve.metrics import Metrics
from unalike.serve.store import Store
from unalike.serve.store.shadows import PREPARING, RUNNING, ShadowAnswer, ShadowRecord

if TYPE_CHECKING:
    from unalike.serve.resources import GalleryResource, Resources

MODULE = "unalike.serve.learning.shadow_worker"
# Of the images that wait for a candidate; their bytes are kept meanwhile.
MAX_WAITING, MAX_BYTES = 64, 64 * 2**20
# Above this share of the places of the service nothing is sampled.
BUSY_SHARE = 0.5
RETRY_S = 10.0  # after a failure of the process
# All that those who may only look are told: errors name files and addresses.
UNPREPARED = "the candidate cannot be prepared; the service's log says why"
COMPUTED, DROPPED, FAILED = "computed", "dropped", "failed"


@dataclass(frozen=True)
class SampledImage:
    """An image that a candidate is to answer.

    Attributes:
        decision_id: what the service decided.
        content: the image.
        rule: that the request named.
    """

    decision_id: str
    content: bytes
    rule: str | None = None


def is_sampled(decision_id: str, share: float) -> bool:
    """Whether a decision is among a share of all, 0 to 1; always the same for an id, whichever process asks."""
    number = int.from_bytes(hashlib.sha256(decision_id.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return number < share * 2**64


class ShadowRunner:
    """One shadow in this process of the service.

    Args:
        record: the shadow.
        order: what the process of the candidate needs to know.
        store: gets the answers.
        metrics: counts the images.
        cores: CPU cores that the candidate may use; all when None.
    """

    def __init__(
        self, record: ShadowRecord, order: ShadowOrder, store: Store, metrics: Metrics, cores: Sequence[int] | None = None
    ) -> None:  # fmt: skip
        self.record, self.order, self.store, self.metrics, self.cores = record, order, store, metrics, cores
        self._queue: asyncio.Queue[SampledImage] = asyncio.Queue(MAX_WAITING)
        self._bytes = 0  # of the images in the queue
        self._dropped = 0  # not yet in the store
        self._counts = (0, 0)  # references of the candidate, and those without a picture
        self._reason = ""  # why it could not answer the last image that it could not answer
        self._is_ready = False
        self._task = asyncio.create_task(self._run())

    def offer(self, images: Sequence[SampledImage], *, is_busy: bool) -> None:
        """Take the images that are sampled; those for which there is no place are counted."""
        for image in images:
            if not is_sampled(image.decision_id, self.record.share):
                continue
            has_place = self._is_ready and not self._queue.full() and self._bytes + len(image.content) <= MAX_BYTES
            if is_busy or not has_place:
                self._drop(DROPPED)
                continue
            self._bytes += len(image.content)
            self._queue.put_nowait(image)

    def _drop(self, outcome: str, count: int = 1) -> None:
        if count:
            self._dropped += count
            self.metrics.add_shadow(self.record.gallery, outcome, count)

    async def flush(self) -> None:
        """Write the number of dropped images into the store."""
        count, self._dropped = self._dropped, 0
        if count:
            try:
                await asyncio.to_thread(self.store.shadows.add_dropped, self.record.id, count)
            except StoreError:
                self._dropped += count
                raise

    async def stop(self) -> None:
        """End the process; the images that wait are dropped."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._drop(DROPPED, self._queue.qsize())
        await self.flush()

    async def _run(self) -> None:
        """Let the candidate answer; after a failure its process is started again."""
        last: str | None = None
        is_said = False
        while True:
            try:
                await self._converse()
            except Exception as error:  # noqa: BLE001  one shadow's failure ends nothing else
                if self._is_ready or str(error) != last:  # once, not every few seconds
                    log_error(f"the shadow of the gallery {self.record.gallery} is interrupted", error)
                last = str(error)
            # Once too: other processes of the service, which may be well, write the same shadow.
            is_said = is_said and not self._is_ready
            self._is_ready = False
            if not is_said:
                try:
                    await asyncio.to_thread(
                        self.store.shadows.change, self.record.id, state=PREPARING, message=UNPREPARED
                    )
                    is_said = True
                except StoreError as error:
                    log_error("the state of a shadow cannot be written", error)
            await asyncio.sleep(RETRY_S)

    async def _converse(self) -> None:
        """Start the process, and let it answer; what it says on standard error goes to the log. Raises RunError where it ends."""
        with tempfile.TemporaryFile() as errors:
            try:
                await self._answer_all(errors)
            except RunError as error:
                text = read_tail(errors).decode("utf-8", errors="replace").strip()
                raise RunError(f"{error}: {text}" if text else str(error)) from error

    async def _answer_all(self, errors: BinaryIO) -> None:
        """Give the process one image after the other."""
        async with open_child(MODULE, self.order.to_line(), self.cores, errors) as (requests, answers):
            await self._note(await _read(answers))
            self._is_ready = True
            while True:
                image = await self._queue.get()
                self._bytes -= len(image.content)
                outcome = DROPPED  # where this is stopped meanwhile
                try:
                    outcome = await self._ask(image, requests, answers)
                except Exception:
                    outcome = FAILED
                    raise
                finally:
                    self._count(outcome)

    async def _ask(self, image: SampledImage, requests: asyncio.StreamWriter, answers: asyncio.StreamReader) -> str:
        """Let the candidate answer an image; what became of it. Raises RunError where the process ended."""
        head = json.dumps({"bytes": len(image.content), "rule": image.rule}).encode("ascii")
        requests.write(head + b"\n" + image.content)
        await requests.drain()
        value = await _read(answers)
        try:
            return await self._keep(image, value)
        except StoreError as error:
            log_error("an answer of a candidate cannot be written", error)
            return FAILED

    def _count(self, outcome: str) -> None:
        if outcome == COMPUTED:
            self.metrics.add_shadow(self.record.gallery, COMPUTED)
        else:
            self._drop(outcome)

    async def _note(self, value: dict[str, Any]) -> None:
        """Write down that the candidate is ready. Raises RunError where it is not."""
        if READY not in value:
            raise RunError(str(value.get(ERROR, "the process of the candidate said nothing")))
        state = value[READY]
        self._counts = state["references"], state["left_out"]
        values: dict[str, Any] = {"reference_count": self._counts[0], "left_out": self._counts[1]}
        await asyncio.to_thread(lambda: self.store.shadows.change(self.record.id, state=RUNNING, message="", **values))

    async def _keep(self, image: SampledImage, value: dict[str, Any]) -> str:
        """Write an answer into the store; what became of the image. Raises StoreError."""
        if "references" not in value:
            raise RunError(str(value.get(ERROR, "the process of the candidate said nothing")))
        counts = value["references"], value["left_out"]
        if counts != self._counts:
            values: dict[str, Any] = {"reference_count": counts[0], "left_out": counts[1]}
            await asyncio.to_thread(lambda: self.store.shadows.change(self.record.id, **values))
            self._counts = counts
        answer = value.get(ANSWER)
        if answer is None:
            reason = str(value.get(ERROR))
            if reason != self._reason:  # once, not for each image
                log(
                    logging.WARNING,
                    f"the candidate of the gallery {self.record.gallery} cannot answer an image: {reason}",
                )
            self._reason = reason
            return FAILED
        record = ShadowAnswer(self.record.id, image.decision_id, **answer)
        return COMPUTED if await asyncio.to_thread(self.store.shadows.add_answer, record) else DROPPED


async def _read(answers: asyncio.StreamReader) -> dict[str, Any]:
    """The next line of the process. Raises RunError where it ended."""
    line = await answers.readline()
    if not line:
        raise RunError("the process of the candidate ended")
    value: dict[str, Any] = json.loads(line)
    return value


class Shadowing:
    """The shadows that run in this process of a service.

    Args:
        store: of the service, which says which shadows run: what another process begins or ends is taken over.
        metrics: of the service.
        order_for: the order for the process of a shadow of a gallery.
        cores: CPU cores that candidates may use; all when None.
    """

    def __init__(
        self, store: Store, metrics: Metrics, order_for: Callable[[GalleryResource, ShadowRecord], ShadowOrder],
        cores: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        self.store, self.metrics, self._order_for, self.cores = store, metrics, order_for, cores
        self._runners: dict[str, ShadowRunner] = {}

    async def look(self, resources: Resources) -> None:
        """Begin, and end, what the store says; end what is compared with a model that is in service no more."""
        records = {record.id: record for record in await asyncio.to_thread(self.store.shadows.active)}
        for record in records.values():
            resource = resources.galleries.get(record.gallery)
            if resource is None:
                continue
            if resource.gallery.model_identity.network == record.former:
                if record.id not in self._runners:
                    order = self._order_for(resource, record)
                    self._runners[record.id] = ShadowRunner(record, order, self.store, self.metrics, self.cores)
            elif await asyncio.to_thread(self._end_superseded, record, resource.address):
                records = {id: other for id, other in records.items() if id != record.id}
        await self._stop([id for id in self._runners if id not in records])
        for runner in self._runners.values():
            await runner.flush()

    def _end_superseded(self, record: ShadowRecord, address: str) -> bool:
        """End a shadow whose gallery is one of another model by now; this process may serve an earlier one yet, which ends nothing."""
        try:
            gallery = open_gallery(address)
        except UnalikeError:  # the service reports it, and this looks again
            return False
        network = gallery.model_identity.network
        gallery.close()
        if network == record.former:
            return False
        self.store.shadows.end(record.id, "another model is in service")
        return True

    def has_shadow(self, gallery: str) -> bool:
        """Whether a candidate answers decisions of a gallery too."""
        return any(runner.record.gallery == gallery for runner in self._runners.values())

    async def offer(self, resource: GalleryResource, images: Sequence[SampledImage]) -> None:
        """Let the candidate of a gallery, where it has one, answer those of some decisions that are sampled."""
        batcher = resource.network.batcher
        is_busy = batcher.occupied > BUSY_SHARE * batcher.limit
        network = resource.gallery.model_identity.network
        for runner in self._runners.values():
            if runner.record.gallery == resource.name and runner.record.former == network:
                runner.offer(images, is_busy=is_busy)

    async def stop(self) -> None:
        """End all processes; the shadows go on when a service starts again."""
        await self._stop(list(self._runners))

    async def _stop(self, ids: Sequence[str]) -> None:
        """End the processes of some shadows; a failure of one is written to the log, and keeps no other."""
        runners = [self._runners.pop(id) for id in ids]
        results = await asyncio.gather(*(runner.stop() for runner in runners), return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                log_error("the number of dropped images of a shadow cannot be written", result)


def describe_answer(answer: ShadowAnswer) -> dict[str, Any]:
    """What a candidate answered, as plain data."""
    values = asdict(answer)
    return {name: values[name] for name in ("decision", "label", "nearest", "score", "threshold")}
