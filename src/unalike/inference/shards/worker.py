"""A worker of a sharded embedding: it reads the items of a shard from the plan, embeds them and writes the shard.

Shape letters: B images of a batch, H, W height and width of an image, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from typing import TypeVar

import numpy as np

from unalike.data.decoding import Decoding
from unalike.data.regions import image_file
from unalike.data.tar_stream import TarImage
from unalike.engines.protocol import Engine
from unalike.errors import ModelError, UnreadableImage
from unalike.inference.decode_ahead import decode_ahead
from unalike.inference.embedding import MAX_REGIONS
from unalike.inference.loaded_model import LoadedModel, load_model
from unalike.inference.shards.image_reader import REMOTE_THREADS, ImageReader, prefetch, stream_tar
from unalike.inference.shards.plan import PlanFile
from unalike.inference.shards.shard_file import ShardWriter, read_record, shard_name, write_shard
from unalike.inference.shards.source import TARS
from unalike.runs.environment import usable_cores
from unalike.sanitize import redact
from unalike.storage.filesystems import uri_of
from unalike.storage.output_folder import OutputFolder

# What engines are chosen for, here and in every worker alike: a set of shards is large, however many items its listing has.
MANY_IMAGES = 100_000
T = TypeVar("T")
Advance = Callable[[int], None]


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker needs besides the plan; plain data, which another machine gets.

    Attributes:
        folder: Path or address of the folder of shards.
        model: The network's file or address, or ``pretrained``.
        threads: Threads of the network and of decoding; None: those of the machine.
    """

    folder: str
    model: str
    threads: int | None = None


@dataclass(frozen=True)
class ShardReport:
    """What became of a shard: ``images`` vectors, ``unreadable`` images without; ``skipped`` where it was there already."""

    shard: int
    images: int
    unreadable: int
    skipped: bool = False


class ShardWorker:
    """Embeds shards of the plan in a folder, one after the other.

    Args:
        options: Which folder and network.
        model: The network, where it is open in this process already.

    Raises:
        DataError: The folder holds no plan.
    """

    def __init__(self, options: WorkerOptions, model: LoadedModel | None = None) -> None:
        self._options, self._model = options, model
        self._folder = OutputFolder(options.folder)
        self._plan_file = PlanFile(self._folder)
        self.plan = self._plan_file.plan

    @cached_property
    def model(self) -> LoadedModel:
        """The network, with the decoding of the plan. Raises ModelError where it is another one than the plan's."""
        model = self._model
        if model is None:
            model = load_model(
                self._options.model, runtime=self.plan.runtime, precision=self.plan.precision,
                threads=self._options.threads, images=MANY_IMAGES,
            )  # fmt: skip
        if network_key(model) != self.plan.network or model.engine.dim != self.plan.dim:
            raise ModelError(f"{self._options.model}: network {network_key(model)}, width {model.engine.dim}",
                             expected=f"network {self.plan.network}, width {self.plan.dim}, as the plan says",
                             remedy="give every worker the same file")  # fmt: skip
        return model.with_decoding(Decoding.from_dict(self.plan.view.get("decoding")))

    @cached_property
    def _reader(self) -> ImageReader:
        return ImageReader(self.model.view)

    def __call__(self, shard: int, advance: Advance | None = None) -> ShardReport:
        """Embed a shard, unless its file is there already, which another worker may have written.

        Args:
            shard: Its 0-based number.
            advance: Called with the number of images (or tars) that were read.

        Raises:
            RunError: Its file belongs to another run.
            DataError: A store cannot be reached.
        """
        advance = advance or (lambda n: None)
        if self._folder.exists(shard_name(shard)):
            record = read_record(self._folder, self.plan, shard)
            return ShardReport(shard, record.images, len(record.unreadable), skipped=True)
        engine = self.model.engine
        with write_shard(self._folder, self.plan, shard, engine.describe()) as writer:
            items = self._plan_file.items(shard)
            if self.plan.kind == TARS:
                self._embed_tar(items[0][0], engine, writer, advance)
            else:
                self._embed_images(items, engine, writer, advance)
        return ShardReport(shard, writer.images, len(writer.unreadable))

    def _embed_images(
        self, items: Sequence[tuple[str, str]], engine: Engine, writer: ShardWriter, advance: Advance
    ) -> None:
        groups = _regions_together(items)
        remote = bool(items and uri_of(items[0][0]))
        for batch, vectors_BD, failures in embed_stream(
            engine, groups, lambda item: self._reader(item[0]), workers=self._threads(remote)
        ):
            writer.unreadable += [_failure(redact(item[0]), reason) for item, reason in failures]
            writer.add([redact(item[0]) for item in batch], [item[1] for item in batch], vectors_BD)
            advance(len(batch) + len(failures))

    def _embed_tar(self, path: str, engine: Engine, writer: ShardWriter, advance: Advance) -> None:
        images = prefetch(stream_tar(path), 2 * engine.batch)
        name = redact(path)
        for batch, vectors_BD, failures in embed_stream(
            engine, ([image] for image in images), self._reader.decode, workers=self._threads(False)
        ):
            writer.unreadable += [_failure(_member_name(name, image), reason) for image, reason in failures]
            writer.add([_member_name(name, image) for image in batch], [image.label for image in batch], vectors_BD)
        advance(1)

    def _threads(self, remote: bool) -> int:
        return REMOTE_THREADS if remote else self._options.threads or max(2, usable_cores())


def network_key(model: LoadedModel) -> str:
    """What identifies a network: its key, or where its file has none the digest of the file."""
    from unalike.engines.metadata import digest_file_key
    from unalike.storage.digests import file_sha256

    return model.network or digest_file_key(file_sha256(model.source))


def embed_stream(
    engine: Engine, groups: Iterable[Sequence[T]], read_image: Callable[[T], np.ndarray], *, workers: int
) -> Iterator[tuple[list[T], np.ndarray, list[tuple[T, str]]]]:
    """Embed any number of images, a batch in memory at a time; threads decode while the engine computes.

    Args:
        engine: Runs the network.
        groups: Items that are decoded one after the other by one thread, drawn as needed.
        read_image: Gives the uint8 (H, W, 3) image of an item.
        workers: Decoding threads.

    Yields:
        (items, vectors, failures): a batch of items, their float32 (B, D) vectors, and (item, reason) of each item since the
        batch before that cannot be read.
    """
    batch: list[T] = []
    images: list[np.ndarray] = []
    failures: list[tuple[T, str]] = []
    for item, image in decode_ahead(groups, read_image, workers=workers, ahead=2 * engine.batch):
        if isinstance(image, UnreadableImage):
            failures.append((item, str(image)))
            continue
        batch.append(item)
        images.append(image)
        if len(batch) == engine.batch:
            yield batch, engine(np.stack(images)), failures
            batch, images, failures = [], [], []
    if batch or failures:
        yield batch, engine(np.stack(images)) if batch else np.empty((0, engine.dim), np.float32), failures


def _regions_together(items: Sequence[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Consecutive regions of one file, which is decoded once for all of them; other images alone."""
    for _, same in groupby(items, lambda item: image_file(item[0])):
        while group := list(islice(same, MAX_REGIONS)):
            yield group


def _member_name(tar: str, image: TarImage) -> str:
    return f"{tar}!{image.name}" if image.name else tar


def _failure(name: str, reason: str) -> tuple[str, str]:
    """An image without a vector: its name, and the reason without it."""
    return name, reason.removeprefix(f"{name}: ")
