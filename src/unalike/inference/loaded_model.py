"""Load an embedding model from a checkpoint, ONNX, OpenVINO or TensorRT file: runtime, device and precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike import progress
from unalike.data.decode import ImageInput
from unalike.data.decoding import Decoding
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.engines.checksum import read_model_file
from unalike.engines.metadata import digest_file_key
from unalike.engines.protocol import Engine
from unalike.errors import DeviceError, MissingExtra, ModelError, WeightsError, closest
from unalike.inference import runtime_benchmark
from unalike.inference.engine_selection import create_engine, log_engine, move_to_gpu
from unalike.inference.model_files import (
    CHECKPOINTS,
    EXPORTED,
    FILE_RUNTIMES,
    NETWORK_RUNTIMES,
    PRETRAINED,
    SUFFIXES,
    is_pretrained,
)
from unalike.runs.filenames import RECORD_FILE
from unalike.runs.written_model import model_in_folder
from unalike.storage.digests import content_sha256, file_sha256
from unalike.storage.fetch import local_path
from unalike.storage.outside_files import path_remedy, reader_errors

if TYPE_CHECKING:
    from unalike.engines.onnx_engine import OnnxEngine
    from unalike.engines.openvino_engine import OpenVinoEngine
    from unalike.engines.tensorrt_engine import TensorRtEngine
    from unalike.spec import Experiment

    ExportedEngine = OnnxEngine | OpenVinoEngine | TensorRtEngine


@dataclass(frozen=True)
class LoadedModel:
    """A network that is ready to embed images.

    Attributes:
        engine: runs it.
        preprocessing: of its images.
        classes: names of the classes that it was trained on.
        source: its file, or the name of a pretrained trunk.
        trunk: name of its trunk.
        network: key of the network, the same in every format (``engines.metadata.NetworkFacts``).
        knows_decoding: whether its file says how images are decoded; False for a network that was exported elsewhere.
        held_out_scores: scores of images that its training held out (``training.automatic.held_out_scores``); empty where
            its file has none.
        head: kind of its head; empty where its file does not say it.
        content: the bytes of its ONNX file, of which the engine was made, where they were asked for.
    """

    engine: Engine
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    source: Path
    trunk: str = ""
    network: str = ""
    knows_decoding: bool = True
    held_out_scores: Mapping[str, Any] = field(default_factory=dict)
    head: str = ""
    content: bytes | None = field(default=None, repr=False)

    @property
    def view(self) -> View:
        """The evaluation view of its images."""
        return self.preprocessing.view

    def with_decoding(self, decoding: Decoding) -> LoadedModel:
        """The same network for images that become 8-bit RGB in another way."""
        view = replace(self.view, decoding=decoding)
        return replace(self, preprocessing=replace(self.preprocessing, view=view))

    def fitted(self, images: Iterable[ImageInput]) -> LoadedModel:
        """The same network, with what its decoding leaves open chosen from a set of images."""
        return self if self.view.decoding.is_complete else self.with_decoding(self.view.fitted(images).decoding)


@dataclass(frozen=True)
class _ExportedFile:
    """An exported network on disk, and the options with which an engine is created for it."""

    path: Path
    precision: str
    mean: Sequence[float] | None
    std: Sequence[float] | None
    threads: int | None
    streams: int | None
    device: str | None
    gpu: int
    content: bytes | None = None

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal digest of the content, by which measured rates are found: another file meanwhile costs time alone."""
        return file_sha256(self.path) if self.content is None else content_sha256(self.content)

    def create(self, runtime: str) -> ExportedEngine:
        """Create the engine of one runtime."""
        model = self.path if self.content is None else self.content
        if runtime == "openvino":
            from unalike.engines.openvino_engine import OpenVinoEngine

            return OpenVinoEngine(
                model, self.precision, self.threads, self.mean, self.std, streams=self.streams, device=self.device
            )
        if self.streams:
            raise DeviceError(
                f"streams with {runtime}", expected="none: only OpenVINO has them", remedy="use runtime openvino"
            )
        if runtime == "tensorrt":
            from unalike.engines.tensorrt_engine import TensorRtEngine

            return TensorRtEngine(self.path, _gpu_number(self.device, self.gpu), self.mean, self.std, self.precision)
        from unalike.engines.onnx_engine import OnnxEngine

        return OnnxEngine(
            model, threads=self.threads, mean=self.mean, std=self.std, precision=self.precision, device=self.device
        )

    def select(self, runtime: str, measure: bool) -> ExportedEngine:
        """Create the engine of ``runtime``, or for ``auto`` the one that is fastest on this machine.

        Where that is not known it is measured (``measure``), or the first engine that can be created is taken.
        """
        runtimes = FILE_RUNTIMES[self.path.suffix]
        if runtime not in ("auto", *runtimes):
            raise DeviceError(
                f"runtime {runtime!r} for {self.path.name}",
                expected=f"auto{', ' if len(runtimes) > 1 else ' or '}{' or '.join(runtimes)}",
                remedy="give the checkpoint (.pth) to run in torch"
                if runtime == "torch"
                else "export it for that runtime",
            )
        if runtime != "auto" or len(runtimes) == 1:
            return self.create(runtimes[0] if runtime == "auto" else runtime)
        key = runtime_benchmark.digest_key(self.sha256)
        winner = runtime_benchmark.fastest(runtime_benchmark.load_rates(key), runtimes)
        order = [winner, *(name for name in runtimes if name != winner)] if winner else runtimes
        engines: dict[str, ExportedEngine] = {}
        for number, name in enumerate(order):
            try:
                engines[name] = self.create(name)
            except (MissingExtra, ModelError, DeviceError) as error:
                if not engines and number + 1 == len(order):
                    raise
                # Until another engine is created, what was wrong with this one must be visible.
                progress.say(f"{name} is skipped: {error}", once=True, level=1 if not engines else 2)
                continue
            if winner or not measure:
                return engines[name]
        if len(engines) == 1:
            return next(iter(engines.values()))
        rates = runtime_benchmark.measure_rates(engines)
        runtime_benchmark.save_rates(key, rates)
        return engines[runtime_benchmark.fastest(rates, runtimes)]


def require_model_file(path: str | Path) -> Path:
    """The local path of a model's file, fetched where a URI names it; of a run's folder the model that the run wrote.

    Raises:
        ModelError: There is no such file.
        RunError: The run in the folder wrote no model.
    """
    path = local_path(path)
    if (path / RECORD_FILE).is_file():
        path = model_in_folder(path)
    if path.is_dir():
        raise ModelError(f"{path} is a folder without a run, no model", expected=f"a file: {', '.join(SUFFIXES)}",
                         remedy="name the model's file, or the folder of the run that wrote it")  # fmt: skip
    if not path.is_file():
        raise ModelError(
            f"there is no model file {path}", expected=f"one of {', '.join(SUFFIXES)}", remedy=path_remedy(path)
        )
    return path


def refuse_engine_options(runtime: str, precision: str, *, streams: int | None, device: str | None) -> None:
    """Raise DeviceError for options that a checkpoint does not take, which is run by torch or exported in memory."""
    runtimes, precisions = ("auto", *NETWORK_RUNTIMES), ("auto", "fp32", "bf16", "fp16")
    if streams or device:
        raise DeviceError("streams or device for a checkpoint", expected="an exported model", remedy="unalike export")
    if runtime not in runtimes:
        raise DeviceError(
            f"runtime {runtime!r} for a checkpoint", expected=" or ".join(runtimes), remedy=closest(runtime, runtimes)
        )
    if precision not in precisions:
        raise DeviceError(f"precision {precision!r} for a checkpoint", expected=" or ".join(precisions),
                          remedy="write such a file: unalike quantize")  # fmt: skip


def load_model(
    path: str | Path,
    *,
    runtime: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    view: View | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    gpu: int = 0,
    images: int | None = None,
    quiet: bool = True,
    streams: int | None = None,
    device: str | None = None,
    experiment: Experiment | None = None,
    keep_content: bool = False,
) -> LoadedModel:
    """Load a model.

    Args:
        path: path or URI of an exported ``.onnx``, an OpenVINO ``.xml``, a TensorRT ``.engine`` or a checkpoint ``.pth``
            (extra ``train``); or ``pretrained[:NAME]``, a pretrained trunk as it is (extra ``train``).
        runtime: ``auto``, or a runtime that can run such a file.
        precision, threads, streams: of the engine.
        view, mean, std: preprocessing of a network that carries none; ``mean`` and ``std`` on the scale 0..1.
        gpu: number of the GPU that a checkpoint runs on, where there is one and the runtime is auto or torch.
        images: how many will be embedded, where that is known. For a few, a checkpoint is not traced; for many, runtimes
            that were never compared here are measured for a second.
        quiet: do not print which engine was chosen.
        device: ``CPU``, ``GPU`` or ``cuda:1`` of an exported network.
        experiment: the spec of the action; its ``model`` section describes the network of a checkpoint of TAO.
        keep_content: keep the bytes of an ONNX file that holds all of its network, and make the engine of them.

    Raises:
        ModelError: there is no such file, it is no model, or the view does not fit the network.
        WeightsError: a checkpoint is damaged.
        DeviceError: runtime, precision or device cannot be had.
        MissingExtra: the runtime is not installed.
    """
    if is_pretrained(path):
        return _load_pretrained(str(path), runtime, precision, threads, view, gpu, images, quiet)
    path = require_model_file(path)
    if path.suffix in EXPORTED:
        content = read_model_file(path) if keep_content and path.suffix == ".onnx" else None
        whole = None if content is None or content.names_other_files else content.graph
        file = _ExportedFile(path, precision, mean, std, threads, streams, device, gpu, whole)
        model = _load_exported(file, runtime, view, (images or 0) >= runtime_benchmark.MIN_IMAGES)
        log_engine(model.engine, quiet)
    elif path.suffix in CHECKPOINTS:
        refuse_engine_options(runtime, precision, streams=streams, device=device)
        model = _load_checkpoint(path, runtime, precision, threads, view, gpu, images, quiet, experiment)
    else:
        raise ModelError(f"{path.name}: unknown kind of model", expected=", ".join(SUFFIXES))
    if model.preprocessing.input_size != tuple(model.engine.input_size):
        size = model.engine.input_size
        raise ModelError(f"a view of {model.view.height} x {model.view.width}", expected=f"{size} as the network")
    return model


def _load_exported(file: _ExportedFile, runtime: str, view: View | None, measure: bool) -> LoadedModel:
    engine = file.select(runtime, measure)
    facts = engine.facts
    if view is None:
        view = View.from_dict(facts.view) if facts.view else View(*engine.input_size)
    network = facts.network
    if not network and file.path.suffix == ".onnx":
        source = getattr(engine, "source", None)
        network = digest_file_key((source and source.sha256) or file.sha256)
    preprocessing = Preprocessing(view, facts.mean, facts.std)
    has_view = facts.view is not None
    scores = facts.extra.get("held_out_scores") or {}
    return LoadedModel(engine, preprocessing, tuple(facts.classes), file.path, facts.trunk, network, has_view, scores,
                       content=file.content)  # fmt: skip


def _gpu_number(device: str | None, gpu: int) -> int:
    """``cuda:1`` -> 1; without a device the number of the spec's gpu_ids."""
    kind, _, number = (device or f"cuda:{gpu}").lower().partition(":")
    if kind not in ("cuda", "gpu") or not (number or "0").isdigit():
        raise DeviceError(f"device {device!r} with tensorrt", expected="cuda:0, cuda:1, ...")
    return int(number or 0)


def _load_pretrained(
    source: str, runtime: str, precision: str, threads: int | None, view: View | None, gpu: int, images: int | None,
    quiet: bool,
) -> LoadedModel:  # fmt: skip
    """Load ``pretrained[:NAME]``: the trunk without a head, at the input size that a spec without one means."""
    from unalike.model.checkpoint import network_key
    from unalike.model.frozen_trunk import build_frozen_trunk
    from unalike.model.pretrained import best_available_trunk
    from unalike.spec import load_spec

    name = source.partition(":")[2] or best_available_trunk()
    view = View.from_spec(load_spec("inference")) if view is None else view
    trunk = build_frozen_trunk(name, (view.height, view.width))
    preprocessing = Preprocessing(view, trunk.trunk.facts.mean, trunk.trunk.facts.std)
    network = network_key(trunk, preprocessing.mean, preprocessing.std)
    move_to_gpu(trunk, runtime, gpu)
    engine = create_engine(
        trunk, preprocessing, runtime=runtime, precision=precision, threads=threads, images=images, quiet=quiet
    )
    return LoadedModel(engine, preprocessing, (), Path(f"{PRETRAINED}:{name}"), name, network)


def _load_checkpoint(
    path: Path, runtime: str, precision: str, threads: int | None, view: View | None, gpu: int,
    images: int | None, quiet: bool, experiment: Experiment | None,
) -> LoadedModel:  # fmt: skip
    # Imported here alone: a checkpoint needs torch in any case, an exported network does not.
    from unalike.model.checkpoint import load_embedder, network_key

    embedder, payload = load_embedder(path, experiment)
    with reader_errors(f"{path} does not say how images are prepared", error=WeightsError):
        facts = payload["facts"]
        preprocessing = Preprocessing.from_facts(facts)
        classes = tuple(str(name) for name in payload["classes"])
    network = network_key(embedder, preprocessing.mean, preprocessing.std)
    if view is not None:
        preprocessing = replace(preprocessing, view=view)
    move_to_gpu(embedder, runtime, gpu)
    engine = create_engine(
        embedder, preprocessing, runtime=runtime, precision=precision, threads=threads, images=images, quiet=quiet
    )
    scores = facts.get("held_out_scores") or {}
    return LoadedModel(
        engine, preprocessing, classes, path, facts.get("trunk", ""), network, held_out_scores=scores,
        head=embedder.head_kind,
    )  # fmt: skip
