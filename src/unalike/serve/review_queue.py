"""What is most worth a look, by gallery: decisions and references that somebody should confirm, correct or name.

Decisions come from the store, and their pictures are embedded in the background where their embeddings are not at hand; references
are looked at in the background, part by part, at the lowest priority. Nothing is looked at before somebody asks.

Shape letters: N images, D width of an embedding.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from unalike.discovery.review_order import group_likely_classes, order_by_uncertainty
from unalike.errors import UnalikeError
from unalike.recognition.backends.protocol import Entry
from unalike.recognition.decision import AMBIGUOUS
from unalike.serve.batching import EmbedFinish
from unalike.serve.child_process import LOWEST_PRIORITY
from unalike.serve.logs import log_error
from unalike.serve.reference_scan import ReferenceScan
from unalike.serve.resources import GalleryResource
from unalike.serve.store import Store
from unalike.serve.store.reviews import (
    DOUBTFUL,
    DRIFTED,
    DUPLICATE,
    NEW_CLASS,
    REVIEW_KINDS,
    WRONG_LABEL,
    Candidate,
    pair_item,
    reference_item,
)
from unalike.serve.vector_cache import VectorCache

# A label is doubtful whose score is so near to the threshold, or whose margin is so near to the smallest one.
NEAR = 0.05
MOST_ENTRIES = 200  # of each kind
MOST_GROUPED = 60  # images of one likely new class that are asked about at once
# A picture is unlike everything where its best score is below what all but this share of the references have with another class.
DRIFT_SHARE = 0.01
MIN_BASELINE = 20
DEFAULT_COSINE = 0.8  # from which two unknown images are of one class, where no threshold is known
EMBED_S = 600.0  # longest time that an image of the background may wait for the network
EMBEDDED_AT_ONCE = 8


@dataclass(frozen=True)
class ReviewEntry:
    """One thing to look at.

    Attributes:
        kind: one of ``REVIEW_KINDS``.
        key: names it on the page.
        decisions: ids of decisions, the newest first.
        references: references.
        suggestion: the class that it may be of.
        score: how doubtful it is, or how near the two references are; the meaning is that of its kind.
    """

    kind: str
    key: str
    decisions: tuple[str, ...] = ()
    references: tuple[Entry, ...] = ()
    suggestion: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class ReviewList:
    """What there is to look at now.

    Attributes:
        entries: by kind, in the order of ``REVIEW_KINDS``, the most useful first.
        looked, references: number of references that were looked at, and of all.
        embedded, images: number of pictures of decisions whose embedding is known, and of those that are to be embedded.
        is_complete: whether nothing is under way.
    """

    entries: list[ReviewEntry]
    looked: int
    references: int
    embedded: int
    images: int
    is_complete: bool


@dataclass
class _Work:
    """What is done in the background for one gallery with its network; another network, such as a promoted one, begins anew."""

    resource: GalleryResource
    scan: ReferenceScan = field(default_factory=ReferenceScan)
    pending: list[str] = field(default_factory=list)  # content hashes of pictures to embed
    unreadable: set[str] = field(default_factory=set)
    # What was grouped last, and the groups: while entries are looked for, the same images are asked about again and again.
    grouped: tuple[tuple[str, ...], float, np.ndarray] | None = None
    task: asyncio.Task[None] | None = None


class ReviewQueue:
    """The reviews of all galleries of a service. All methods but the private ones are called from the event loop.

    Args:
        store: decisions, answers and images.
        vectors: embeddings at hand.
        decoders: threads that decode images.
        max_pixels: larger images are left out.
    """

    def __init__(self, store: Store, vectors: VectorCache, decoders: ThreadPoolExecutor, max_pixels: int) -> None:
        self.store, self.vectors, self.decoders, self.max_pixels = store, vectors, decoders, max_pixels
        self._works: dict[str, _Work] = {}
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="review", initializer=_lower_thread)

    def scan(self, resource: GalleryResource) -> ReferenceScan:
        """The walk over the references of a gallery, which goes on in the background."""
        return self._begin(resource).scan

    async def find(self, resource: GalleryResource) -> ReviewList:
        """What there is to look at in a gallery now; what is not known yet is looked for in the background."""
        result = await asyncio.to_thread(self._find, resource, self._work_of(resource))
        self._begin(resource)
        return result

    async def close(self) -> None:
        """End what is under way."""
        self._stop.set()
        tasks = [work.task for work in self._works.values() if work.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    # ---- in the background ----

    def _work_of(self, resource: GalleryResource) -> _Work:
        work = self._works.get(resource.name)
        if work is None or work.resource is not resource:
            if work is not None and work.task is not None:
                work.task.cancel()
            work = self._works[resource.name] = _Work(resource)
        return work

    def _begin(self, resource: GalleryResource) -> _Work:
        work = self._work_of(resource)
        if (work.task is None or work.task.done()) and not self._stop.is_set():
            work.task = asyncio.create_task(self._run(resource, work))
        return work

    async def _run(self, resource: GalleryResource, work: _Work) -> None:
        """Embed pictures and look at references until there is nothing left; half of the time is left to others."""
        loop = asyncio.get_running_loop()
        try:
            is_busy = True
            while is_busy:
                start = time.monotonic()
                is_busy = await self._embed(resource, work)
                is_busy |= await loop.run_in_executor(
                    self._pool, partial(work.scan.step, resource.gallery, self._check)
                )
                await asyncio.sleep(time.monotonic() - start)
        except Exception as error:  # noqa: BLE001  the next who asks lets it go on
            if self._stop.is_set():
                return
            log_error(f"the review of the gallery {resource.name} cannot go on", error)

    def _check(self) -> None:
        if self._stop.is_set():
            raise UnalikeError("the service stops")

    async def _embed(self, resource: GalleryResource, work: _Work) -> bool:
        """Embed some of the pictures that wait; whether there were some."""
        hashes, work.pending = work.pending[:EMBEDDED_AT_ONCE], work.pending[EMBEDDED_AT_ONCE:]
        loop, batcher = asyncio.get_running_loop(), resource.network.batcher
        for sha in hashes:
            if self.vectors.get(resource, sha) is not None or sha in work.unreadable:
                continue
            while batcher.occupied:  # requests come first
                await asyncio.sleep(0.02)
            try:
                image = await loop.run_in_executor(self.decoders, self._view, resource, sha)
            except UnalikeError:  # removed since, or unreadable
                work.unreadable.add(sha)
                continue
            vector_D = await batcher.run(image, EmbedFinish(), None, time.monotonic() + EMBED_S)
            self.vectors.put(resource, sha, vector_D)
        return bool(hashes)

    def _view(self, resource: GalleryResource, sha: str) -> np.ndarray:
        return resource.view(self.store.images.get(sha), max_pixels=self.max_pixels)

    # ---- the list ----

    def _find(self, resource: GalleryResource, work: _Work) -> ReviewList:
        with resource.gallery.view() as view:
            calibration, (references, _), revision = view.calibration, view.size, view.revision
        margin = 0.0 if calibration is None else calibration.margin
        # What another network decided says nothing about this one.
        unknown, doubtful = self.store.reviews.candidates(
            resource.name, near=NEAR, margin=margin, model=resource.network.key
        )
        vectors = self._vectors(resource, work, [*unknown, *doubtful])
        groups, singles = _group(
            unknown, vectors, None if calibration is None or calibration.second_weight else calibration.threshold, work
        )
        drifted, rest = _split_drifted(singles, work.scan)
        doubtful = [*doubtful, *(one for one in rest if one.score is not None and one.threshold is not None and one.threshold - one.score < NEAR)]  # fmt: skip
        entries = {
            NEW_CLASS: groups, DOUBTFUL: _order_doubtful(doubtful, vectors, margin),
            WRONG_LABEL: self._wrong_labels(resource, work.scan), DUPLICATE: self._duplicates(resource, work.scan),
            DRIFTED: [_entry(DRIFTED, one) for one in drifted],
        }  # fmt: skip
        images = {one.image for one in (*unknown, *doubtful) if one.image is not None} - work.unreadable
        return ReviewList(
            [entry for kind in REVIEW_KINDS for entry in entries[kind][:MOST_ENTRIES]], min(work.scan.looked, references),
            references, len(images & vectors.keys()), len(images), work.scan.idle_revision == revision and not work.pending,
        )  # fmt: skip

    def _vectors(
        self, resource: GalleryResource, work: _Work, candidates: Sequence[Candidate]
    ) -> dict[str, np.ndarray]:
        """Content hash -> embedding of the pictures of candidates; those that are not at hand wait to be embedded."""
        vectors: dict[str, np.ndarray] = {}
        pending = []
        for sha in dict.fromkeys(one.image for one in candidates if one.image is not None):
            vector_D = self.vectors.get(resource, sha)
            if vector_D is not None:
                vectors[sha] = vector_D
            elif sha not in work.unreadable:
                pending.append(sha)
        work.pending = pending
        return vectors

    def _wrong_labels(self, resource: GalleryResource, scan: ReferenceScan) -> list[ReviewEntry]:
        doubts = scan.doubts()[: 2 * MOST_ENTRIES]
        items = {
            doubt.reference.id: reference_item(doubt.reference.id, doubt.reference.label, doubt.reference.name)
            for doubt in doubts
        }
        answered = self.store.reviews.answered(resource.name, items.values())
        with resource.gallery.view() as view:
            counts = view.counts()
            return [
                ReviewEntry(WRONG_LABEL, f"r{doubt.reference.id}", (), (doubt.reference, doubt.nearest), doubt.suggested, doubt.lead)
                for doubt in doubts
                if items[doubt.reference.id] not in answered and doubt.suggested in counts
                and all(view.entry(entry.id) == entry for entry in (doubt.reference, doubt.nearest))
            ]  # fmt: skip

    def _duplicates(self, resource: GalleryResource, scan: ReferenceScan) -> list[ReviewEntry]:
        pairs = scan.pairs()[: 2 * MOST_ENTRIES]
        items = [pair_item((pair.low.id, pair.low.name), (pair.high.id, pair.high.name)) for pair in pairs]
        answered = self.store.reviews.answered(resource.name, items)
        with resource.gallery.view() as view:
            return [
                ReviewEntry(DUPLICATE, f"r{pair.low.id}-{pair.high.id}", (), (pair.low, pair.high), None, pair.score)
                for pair, item in zip(pairs, items, strict=True)
                if item not in answered and all(view.entry(entry.id) == entry for entry in (pair.low, pair.high))
            ]  # fmt: skip


def _entry(kind: str, candidate: Candidate, score: float | None = None) -> ReviewEntry:
    """The entry of one decision."""
    return ReviewEntry(
        kind, f"d{candidate.id}", (candidate.id,), (), candidate.nearest, candidate.score if score is None else score
    )


def _group(
    unknown: Sequence[Candidate], vectors: dict[str, np.ndarray], threshold: float | None, work: _Work
) -> tuple[list[ReviewEntry], list[Candidate]]:
    """Unknown images as likely new classes, the largest first, and those that are in none."""
    embedded = [one for one in unknown if one.image in vectors]
    others = [one for one in unknown if one.image not in vectors]
    if len(embedded) < 2:
        return [], list(unknown)
    thresholds = [one.threshold for one in embedded if one.threshold is not None]
    cosine = float(np.median(thresholds)) if thresholds else DEFAULT_COSINE if threshold is None else threshold
    ids = tuple(one.id for one in embedded)
    grouped = work.grouped  # another thread may replace it
    if grouped is None or grouped[:2] != (ids, cosine):
        vectors_ND = np.stack([vectors[str(one.image)] for one in embedded])
        work.grouped = grouped = ids, cosine, group_likely_classes(vectors_ND, cosine)
    group_N = grouped[2]
    order = np.argsort(group_N, kind="stable")
    starts = np.flatnonzero(np.diff(group_N[order])) + 1
    groups, singles = [], others
    for members in np.split(order, starts):
        if group_N[members[0]] < 0:
            singles = [*(embedded[number] for number in members.tolist()), *others]
            continue
        group = [embedded[number] for number in members[:MOST_GROUPED].tolist()]
        ids = tuple(one.id for one in group)
        groups.append(ReviewEntry(NEW_CLASS, f"g{ids[-1]}", ids, (), None, float(len(members))))
    return groups, singles


def _split_drifted(singles: Sequence[Candidate], scan: ReferenceScan) -> tuple[list[Candidate], list[Candidate]]:
    """Unknown images that are less like any class than the classes are like one another, and the others."""
    baseline = scan.baseline
    if baseline is None or len(baseline.foreign) < MIN_BASELINE:
        return [], list(singles)
    bound = float(np.quantile(baseline.foreign, DRIFT_SHARE))
    drifted = [one for one in singles if one.score is not None and one.score < bound]
    names = {one.id for one in drifted}
    return drifted, [one for one in singles if one.id not in names]


def _order_doubtful(doubtful: Sequence[Candidate], vectors: dict[str, np.ndarray], margin: float) -> list[ReviewEntry]:
    """Doubtful decisions, uncertain first and unlike those before; those without an embedding follow by uncertainty."""
    weights = {one.id: _uncertainty(one, margin) for one in doubtful}
    embedded = sorted((one for one in doubtful if one.image in vectors), key=lambda one: -weights[one.id])
    rest = sorted((one for one in doubtful if one.image not in vectors), key=lambda one: -weights[one.id])
    if embedded:
        vectors_ND = np.stack([vectors[str(one.image)] for one in embedded])
        weight_N = np.array([weights[one.id] for one in embedded])
        order = order_by_uncertainty(vectors_ND, weight_N, MOST_ENTRIES)
        embedded = [embedded[number] for number in order.tolist()]
    return [_entry(DOUBTFUL, one, weights[one.id]) for one in [*embedded, *rest][:MOST_ENTRIES]]


def _uncertainty(candidate: Candidate, margin: float) -> float:
    """How doubtful a decision is, 0..2: ambiguous ones from 1 on, labels and unknown images by how near they are to a bound."""
    near = [
        1 - abs(value) / NEAR
        for value in (
            None if candidate.score is None or candidate.threshold is None else candidate.score - candidate.threshold,
            None if candidate.margin is None else candidate.margin - margin,
        )
        if value is not None
    ]  # fmt: skip
    closeness = min(max([0.0, *near]), 1.0)
    return 1 + closeness if candidate.decision == AMBIGUOUS else closeness


def _lower_thread() -> None:
    """Give the thread that calls this the lowest priority, where the system can."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
