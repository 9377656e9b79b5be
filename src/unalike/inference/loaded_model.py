"""From a model's file to what embeds with it: an exported network without torch, a checkpoint with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unalike import progress
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.engines.metadata import file_key
from unalike.engines.protocol import Engine
from unalike.errors import DeviceError, MissingExtra, ModelError
from unalike.inference import runtime_benchmark
from unalike.storage.fetch import local_path

EXPORTED = (".onnx", ".xml", ".engine", ".plan")
CHECKPOINTS = (".pth", ".ckpt")
SUFFIXES = (*EXPORTED, *CHECKPOINTS)


@dataclass(frozen=True)
class LoadedModel:
    """An engine, the preprocessing of its images, the classes that it was trained on, and its file.

    ``trunk`` is the name of the backbone; ``network`` is the key by which the network is known in every format
    (``engines.metadata.NetworkFacts``).
    """

    engine: Engine
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    source: Path
    trunk: str = ""
    network: str = ""

    @property
    def view(self) -> View:
        """The evaluation view of its images."""
        return self.preprocessing.view


def require_model_file(path: str | Path) -> Path:
    """The path of a model's file, fetched where it is a URI's. Raises ModelError when there is none."""
    path = local_path(path)
    if not path.is_file():
        raise ModelError(f"there is no model file {path}", expected=f"one of {', '.join(SUFFIXES)}")
    return path


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
) -> LoadedModel:
    """An exported ``.onnx``, an OpenVINO ``.xml``, a TensorRT ``.engine`` or a checkpoint ``.pth`` (extra ``train``).
    What a URI names is fetched.

    ``streams`` and ``device`` (``CPU``, ``GPU``, ``cuda:1``) go to the runtime. ``gpu``: the one that a checkpoint runs on
    where there are any and the runtime is auto or torch. ``images``: how many will be embedded, where that is known; for a
    few, tracing a checkpoint does not pay, for many, runtimes that were never compared here race for a second. The engine
    chosen is printed unless ``quiet``. ``view``, ``mean`` and ``std`` are for networks that do not carry them. Raises
    ModelError for what is no model, WeightsError, DeviceError for what is not to be had, MissingExtra.
    """
    path = require_model_file(path)
    if path.suffix in EXPORTED:
        options = {"precision": precision, "mean": mean, "std": std, "threads": threads, "streams": streams,
                   "device": device}  # fmt: skip
        engine = _exported(path, runtime, options, gpu, (images or 0) >= runtime_benchmark.MIN_IMAGES)
        facts = engine.facts
        shown = view or (View.from_dict(facts.view) if facts.view else View(*engine.input_size))
        preprocessing = Preprocessing(shown, facts.mean, facts.std)
        opened = LoadedModel(engine, preprocessing, tuple(facts.classes), path, facts.trunk,
                           facts.network or (file_key(path.read_bytes()) if path.suffix == ".onnx" else ""))  # fmt: skip
        if not quiet:
            told = engine.describe()
            progress.say(f"engine: {told['runtime']} {told['precision']} on {told['device']}", once=True)
    elif path.suffix in CHECKPOINTS:
        if streams or device:
            raise DeviceError(
                "streams or device for a checkpoint", expected="an exported model", remedy="unalike export"
            )
        opened = _checkpoint(path, runtime, precision, threads, view, gpu, images, quiet)
    else:
        raise ModelError(f"{path.name}: unknown kind of model", expected=", ".join(SUFFIXES))
    if (opened.view.height, opened.view.width) != tuple(opened.engine.input_size):
        size = opened.engine.input_size
        raise ModelError(f"a view of {opened.view.height} x {opened.view.width}", expected=f"{size} as the network")
    return opened


def _exported(path: Path, runtime: str, options: dict[str, Any], gpu: int, measure: bool) -> Any:
    """The engine for an exported network; a runtime asked for by name is obeyed or an error."""
    runs = {".engine": ("tensorrt",), ".plan": ("tensorrt",), ".xml": ("openvino",)}.get(
        path.suffix, ("openvino", "onnxruntime")
    )
    if runtime not in ("auto", *runs):
        raise DeviceError(
            f"runtime {runtime!r} for {path.name}",
            expected=f"auto{', ' if len(runs) > 1 else ' or '}{' or '.join(runs)}",
            remedy="give the checkpoint (.pth) to run in torch" if runtime == "torch" else "export it for that runtime",
        )
    names = [runtime] if runtime != "auto" else list(runs)
    if len(names) == 1:
        return _make(names[0], path, options, gpu)
    return _raced(names, path, options, gpu, measure)


def _raced(names: list[str], path: Path, options: dict[str, Any], gpu: int, measure: bool) -> Any:
    """The one that was fastest here; where that was not measured and may not be, the first that can be had."""
    network = runtime_benchmark.content_key(path.read_bytes())
    rates = runtime_benchmark.load_rates(network)
    winner = runtime_benchmark.fastest(rates, names)
    order = [winner, *(name for name in names if name != winner)] if winner else names
    engines: dict[str, Any] = {}
    for number, name in enumerate(order):
        try:
            engines[name] = _make(name, path, options, gpu)
        except (MissingExtra, ModelError, DeviceError) as error:
            if not engines and number + 1 == len(order):
                raise
            # Before it is clear that another can be had, what was wrong with this one must not get lost.
            progress.say(f"{name} is passed over: {error}", once=True, level=1 if not engines else 2)
            continue
        if winner or not measure:
            return engines[name]
    if len(engines) == 1:
        return next(iter(engines.values()))
    rates = runtime_benchmark.measure_rates(engines)
    runtime_benchmark.save_rates(network, rates)
    return engines[runtime_benchmark.fastest(rates, names)]


def _make(name: str, path: Path, options: dict[str, Any], gpu: int) -> Any:
    """One engine by name, with those of the options that it has."""
    precision, mean, std = options["precision"], options["mean"], options["std"]
    threads, streams, device = options["threads"], options["streams"], options["device"]
    if name == "openvino":
        from unalike.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(path, precision, threads, mean, std, streams=streams, device=device)
    if streams:
        raise DeviceError(
            f"streams with {name}", expected="none: only OpenVINO has them", remedy="use runtime openvino"
        )
    if name == "tensorrt":
        from unalike.engines.tensorrt_engine import TensorRtEngine

        return TensorRtEngine(path, _gpu_number(device, gpu), mean, std, precision)
    from unalike.engines.onnx_engine import OnnxEngine

    return OnnxEngine(path, threads=threads, mean=mean, std=std, precision=precision, device=device)


def _gpu_number(device: str | None, gpu: int) -> int:
    """``cuda:1`` -> 1; without a device the number of the spec's gpu_ids."""
    kind, _, number = (device or f"cuda:{gpu}").lower().partition(":")
    if kind not in ("cuda", "gpu") or not (number or "0").isdigit():
        raise DeviceError(f"device {device!r} with tensorrt", expected="cuda:0, cuda:1, ...")
    return int(number or 0)


def _checkpoint(
    path: Path, runtime: str, precision: str, threads: int | None, view: View | None, gpu: int,
    images: int | None, quiet: bool,
) -> LoadedModel:  # fmt: skip
    # The one reach from the use branch into the training branch: a checkpoint needs torch in any case.
    from unalike.inference.engine_selection import create_engine, move_to_gpu
    from unalike.model.checkpoint import load_embedder, network_key

    embedder, meta = load_embedder(path)
    facts = meta["facts"]
    network = network_key(embedder, facts["mean"], facts["std"])
    move_to_gpu(embedder, runtime, gpu)
    preprocessing = Preprocessing.from_facts(facts)
    if view is not None:
        preprocessing = replace(preprocessing, view=view)
    engine = create_engine(
        embedder,
        preprocessing,
        runtime=runtime,
        precision=precision,
        threads=threads,
        images=images,
        quiet=quiet,
    )
    return LoadedModel(engine, preprocessing, tuple(meta["classes"]), path, facts.get("trunk", ""), network)
