"""Networks, galleries, inspectors and sets of assets of a service, each loaded once and shared by all requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from unalike import progress
from unalike.actions.gallery import find_model
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.errors import DataError, closest
from unalike.inference.loaded_model import LoadedModel, load_model, require_model_file
from unalike.inference.model_files import is_pretrained
from unalike.recognition.backends.address import open_gallery
from unalike.recognition.backends.protocol import GalleryBackend
from unalike.recognition.gallery import Gallery
from unalike.recognition.recognizer import Recogniser
from unalike.serve.asset_sets import AssetOptions, load_changed_asset_set, open_asset_set
from unalike.serve.batching import Batcher, BatchReport
from unalike.serve.file_watch import FileWatch, Status, read_status
from unalike.serve.inspector_settings import NO_SETTINGS, InspectorSettings
from unalike.serve.model_files import own_model
from unalike.serve.problems import Problem
from unalike.serve.sources import DEFAULT_NAME, Sources
from unalike.serve.thread_budget import thread_budget

if TYPE_CHECKING:
    from unalike.inspection.inspector import Inspector
    from unalike.spec.serve import Serve
    from unalike.verification.verifier import Verifier

Named = TypeVar("Named")


@dataclass(eq=False)
class Network:
    """One network of the service, with the queue of its engine.

    Attributes:
        key: what names it: its absolute path, or ``pretrained[:NAME]``.
        model: engine and preprocessing.
        batcher: the engine's queue.
    """

    key: str
    model: LoadedModel
    batcher: Batcher

    @property
    def engine(self) -> Engine:
        """Runs it."""
        return self.model.engine

    @cached_property
    def description(self) -> dict[str, Any]:
        """Runtime, precision, device and threads, as the command line says them."""
        return self.engine.describe()


@dataclass(eq=False)
class GalleryResource:
    """A gallery with its network.

    Attributes:
        name: its name in addresses.
        address: its file, or the address of its database.
        network: makes its vectors.
        recognizer: searches it.
    """

    name: str
    address: str
    network: Network
    recognizer: Recogniser

    @property
    def gallery(self) -> GalleryBackend:
        """The references."""
        return self.recognizer.gallery

    @property
    def view(self) -> View:
        """Turns an image into the network's input."""
        return self.recognizer.view

    @property
    def index_description(self) -> dict[str, Any] | None:
        """Kind and measured recall of the approximate search; None where it is exact."""
        index = self.recognizer.index
        return None if index is None else index.to_dict()

    def refresh(self) -> bool:
        """Take over what others changed; True if there was something."""
        has_changed = self.gallery.refresh()
        if has_changed and not self.view.decoding.is_complete:
            self.recognizer.reload()  # the first images of the gallery chose how images are decoded
        return has_changed


@dataclass(eq=False)
class InspectorResource:
    """An inspector.

    Attributes:
        name: its name in addresses.
        address: its file.
        loaded: what the file holds.
        settings: what the service keeps for it.
    """

    name: str
    address: str
    loaded: Inspector
    settings: InspectorSettings = NO_SETTINGS

    @cached_property
    def inspector(self) -> Inspector:
        """The inspector with its settings."""
        return self.settings.applied_to(self.loaded)

    @cached_property
    def engine_description(self) -> dict[str, Any]:
        """Runtime, precision, device and threads, as the command line says them."""
        return self.inspector.network.engine.describe()

    def describe(self) -> dict[str, Any]:
        """The inspector as plain data, as the command line says it."""
        from unalike.actions.inspect import describe  # loaded with an inspector, not at every start

        return describe(self.inspector, self.address)


@dataclass(eq=False)
class AssetsResource:
    """A set of approved assets with its verifier."""

    name: str
    address: str
    verifier: Verifier


@dataclass
class Resources:
    """All that a service serves, by name; the first of a kind is the default one.

    An inspector or a set of assets whose files change is replaced here by a new resource; ``watches`` look for that. A gallery
    whose file is one of another network by now is replaced together with its network; ``retired`` are networks that were.
    """

    networks: dict[str, Network] = field(default_factory=dict)
    galleries: dict[str, GalleryResource] = field(default_factory=dict)
    inspectors: dict[str, InspectorResource] = field(default_factory=dict)
    assets: dict[str, AssetsResource] = field(default_factory=dict)
    watches: dict[str, FileWatch] = field(default_factory=dict)
    retired: list[Network] = field(default_factory=list)

    def replace_gallery(self, resource: GalleryResource) -> Network | None:
        """Put a gallery with its network in the place of the former one; requests that were taken keep the resource that they have.

        Returns:
            The former network where no gallery needs it any more; it is closed at the end, or earlier by ``close_network``.
        """
        former = self.galleries[resource.name].network
        self.networks.setdefault(resource.network.key, resource.network)
        self.galleries[resource.name] = resource
        if any(entry.network is former for entry in self.galleries.values()):
            return None
        self.networks.pop(former.key, None)
        self.retired.append(former)
        return former

    def close_network(self, network: Network) -> None:
        """End the threads of a network that was replaced."""
        if network in self.retired:
            self.retired.remove(network)
            network.batcher.close()

    def gallery(self, name: str | None = None) -> GalleryResource:
        """A gallery, the default one when None. Raises Problem (404)."""
        return _select(self.galleries, name, "gallery", "--gallery")

    def inspector(self, name: str | None = None) -> InspectorResource:
        """An inspector, the default one when None. Raises Problem (404)."""
        return _select(self.inspectors, name, "inspector", "--inspector")

    def asset_set(self, name: str | None = None) -> AssetsResource:
        """A set of assets, the default one when None. Raises Problem (404)."""
        return _select(self.assets, name, "set of assets", "--assets")

    def close(self) -> None:
        """End the threads of all networks, and close the galleries."""
        for network in (*self.networks.values(), *self.retired):
            network.batcher.close()
        for gallery in self.galleries.values():
            gallery.gallery.close()


def recognizer_of(network: Network, gallery: GalleryBackend | None, *, approximate: bool = False) -> Recogniser:
    """A recognizer of a loaded network; with an empty gallery when None. Raises ModelError, MissingExtra."""
    file = network.model
    return Recogniser(
        file.engine, file.view, gallery, approximate=approximate, source=network.key, trunk=file.trunk, network=file.network, classes=file.classes,
        held_out_scores=file.held_out_scores, says_changes=False,
    )  # fmt: skip


def _select(resources: Mapping[str, Named], name: str | None, kind: str, option: str) -> Named:
    if name is None and resources:
        return next(iter(resources.values()))
    if name is None:
        raise Problem(404, "no-resource", f"this service has no {kind}", remedy=f"start it with {option}")
    if name not in resources:
        raise Problem(404, "no-resource", f"no {kind} {name[:64]!r}", expected=f"one of {', '.join(resources)}",
                      remedy=closest(name, resources))  # fmt: skip
    return resources[name]


class ResourceLoader:
    """Loads what ``sources`` name; galleries of one network share its engine.

    Args:
        settings: runtime, precision, threads and the limits of the queue.
        sources: what is served.
        report: called after each batch of an engine, with the network's key.
        resources: those that are in service, whose networks are shared; none yet when None.
    """

    def __init__(
        self, settings: Serve, sources: Sources, report: Callable[[str, BatchReport], None] | None = None,
        resources: Resources | None = None,
    ) -> None:  # fmt: skip
        self.settings, self.sources, self.report = settings, sources, report
        self.resources = resources or Resources()
        self.threads = thread_budget(settings)

    def load(self) -> Resources:
        """Load all. Raises UnalikeError."""
        for name, address in self.sources.galleries.items():
            self._add_gallery(name, address)
        if not self.sources.galleries and self.sources.model is not None:
            self._add_gallery(DEFAULT_NAME, str(self.sources.new_gallery))
        for name, address in self.sources.inspectors.items():
            status = read_status(address)  # before it is read: a change meanwhile is seen afterwards
            self.resources.inspectors[name] = self.load_inspector(name, address)
            self._watch("inspector", name, address, status, self._reload_inspector)
        for name, address in self.sources.assets.items():
            status = read_status(address)
            self.resources.assets[name] = AssetsResource(name, address, open_asset_set(self._asset_options(address)))
            self._watch("set of assets", name, address, status, self._reload_assets)
        return self.resources

    def _watch(
        self, kind: str, name: str, address: str, status: Status, reload: Callable[[str, str], Awaitable[None]]
    ) -> None:
        self.resources.watches[f"{kind} {name}"] = FileWatch(address, status, partial(reload, name, address))

    def load_inspector(self, name: str, address: str) -> InspectorResource:
        """Load an inspector. Raises UnalikeError."""
        from unalike.inspection.inspector import Inspector

        inspector = Inspector.load(address, runtime=self.settings.runtime, threads=self.threads)
        return InspectorResource(name, address, inspector)

    async def _reload_inspector(self, name: str, address: str) -> None:
        # Requests that were taken keep the resource that they have.
        resource = await asyncio.to_thread(self.load_inspector, name, address)
        self.resources.inspectors[name] = replace(resource, settings=self.resources.inspectors[name].settings)

    async def _reload_assets(self, name: str, address: str) -> None:
        verifier = await load_changed_asset_set(self._asset_options(address))
        self.resources.assets[name] = AssetsResource(name, address, verifier)

    def _add_gallery(self, name: str, address: str) -> None:
        is_new = address == str(self.sources.new_gallery) and not Path(address).exists()
        gallery = None if is_new else open_gallery(address)
        network = self._network(self._model_of(gallery, address))
        recognizer = recognizer_of(network, gallery, approximate=self.settings.approximate and not is_new)
        if isinstance(recognizer.gallery, Gallery) and is_new:
            Path(address).parent.mkdir(parents=True, exist_ok=True)
            try:
                recognizer.gallery.save(address, overwrite=False)
            except DataError:
                if not Path(address).exists():
                    raise
                recognizer = recognizer_of(network, open_gallery(address))  # another process was first
        self.resources.galleries[name] = GalleryResource(name, address, network, recognizer)

    def reopen_gallery(self, name: str, address: str) -> GalleryResource:
        """A gallery whose file is one of another network by now, with that network; nothing is put into service yet. Raises UnalikeError."""
        gallery = open_gallery(address)
        network = self._load_network(self._model_of(gallery, address))
        return GalleryResource(
            name, address, network, recognizer_of(network, gallery, approximate=self.settings.approximate)
        )

    def _model_of(self, gallery: GalleryBackend | None, address: str) -> str:
        """The model of a gallery: the one that was promoted, else the one that the options name, else the gallery's own."""
        promoted = None if gallery is None else own_model(self.sources.folder, gallery.model_identity.file)
        if promoted is not None:
            if self.sources.model is not None:
                progress.say(f"{address} is served with the model that was promoted, not with {self.sources.model}")
            return str(promoted)
        if self.sources.model is not None:
            return self.sources.model
        assert gallery is not None  # a new gallery has a model
        return str(find_model(gallery, address, None))

    def _network(self, model: str) -> Network:
        network = self._load_network(model)
        return self.resources.networks.setdefault(network.key, network)

    def _load_network(self, model: str) -> Network:
        """A network that is in service already, or a new one."""
        key = model if is_pretrained(model) else str(require_model_file(model).resolve())
        if key in self.resources.networks:
            return self.resources.networks[key]
        settings, report = self.settings, self.report
        file = load_model(model, runtime=settings.runtime, precision=settings.precision, threads=self.threads)
        batcher = Batcher(
            file.engine, wait_s=settings.wait_ms / 1000, limit=settings.queue,
            report=None if report is None else lambda batch: report(key, batch),
        )  # fmt: skip
        batcher.warm_up()
        return Network(key, file, batcher)

    def _asset_options(self, address: str) -> AssetOptions:
        settings = self.settings
        # A model that serves the galleries serves the assets too, where their file holds none.
        model = None if Path(address).is_file() else self.sources.model
        return AssetOptions(address, model, settings.runtime, settings.precision, self.threads)


def build_new_gallery(settings: Serve, sources: Sources) -> None:
    """Build the service's gallery from class folders where it has none yet; once, before any process loads it."""
    if sources.references is None or sources.galleries or sources.new_gallery.exists() or sources.model is None:
        return
    from unalike.actions.gallery import build
    from unalike.actions.spec_resolution import spec_with

    sources.folder.mkdir(parents=True, exist_ok=True)
    progress.say(f"a gallery is built from {sources.references}: {sources.new_gallery}")
    options = {"model": sources.model, "source": str(sources.references), "gallery": str(sources.new_gallery)}
    with suppress(FileExistsError):
        build(spec_with("gallery_build", **options, runtime=settings.runtime, precision=settings.precision))
