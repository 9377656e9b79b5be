"""From a model's file, or the best installed trunk, to an engine that gives feature maps.

opened = load_feature_maps("pretrained", size=(320, 320))        # a trunk as it came: extra train, exported on the fly
opened = load_feature_maps("maps.onnx")                          # written by unalike export-maps: no torch
maps = opened.engine.maps(np.stack([opened.view(path)])) # float32 (1, C, h, w) a map
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unalike import progress
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.engines.metadata import MapFacts
from unalike.engines.protocol import MapEngine, require_maps
from unalike.errors import DeviceError, ModelError
from unalike.inference.loaded_model import CHECKPOINTS, EXPORTED, SUFFIXES, load_model, require_model_file
from unalike.spec.declare import STAGES

PRETRAINED = "pretrained"
RUNTIMES = ("auto", "torch", "openvino", "onnxruntime")


@dataclass(frozen=True)
class FeatureMapModel:
    """An engine that gives maps, the preprocessing of the whole image that it was opened with, and what its maps are.

    ``content`` is the network as an ONNX file's bytes where it was exported on the fly or read from such a file, so that
    it can be kept; None for torch, ``.xml`` and TensorRT. ``licence`` is that of the trunk's weights.
    """

    engine: MapEngine
    preprocessing: Preprocessing
    maps: tuple[MapFacts, ...]
    source: str
    trunk: str = ""
    content: bytes | None = None
    licence: str = ""

    @property
    def view(self) -> View:
        """The evaluation view of the whole image."""
        return self.preprocessing.view


def load_feature_maps(
    source: str | Path = PRETRAINED,
    *,
    stages: str | Sequence[int | str] = "auto",
    size: tuple[int, int] | None = None,
    vector: bool = True,
    runtime: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    device: str | None = None,
    quiet: bool = True,
) -> FeatureMapModel:
    """``source``: a network that ``unalike export-maps`` wrote (no torch needed); a checkpoint ``.pth``; ``pretrained`` (the
    best trunk whose weights are here) or ``pretrained:NAME``. The latter two need the extra ``train`` and are exported on
    the fly, some ten seconds, unless ``runtime`` is torch.

    ``stages``: ``auto``, ``middle``, or strides and names (``model.maps``); ``size`` (height, width), any that the network takes, by
    default that of the model; ``vector``: whether the vector is wanted too. All three are fixed in an exported network: it
    is an error to ask it for others. Raises ModelError, WeightsError, DeviceError, ExportError, MissingExtra.
    """
    if isinstance(stages, str) and stages not in STAGES:
        raise ModelError(f"stages {stages!r}", expected=f"{', '.join(STAGES)}, or a sequence of strides and names")
    if str(source).split(":")[0] != PRETRAINED:
        path = require_model_file(source)
        if path.suffix in EXPORTED:
            return _exported(path, stages, size, vector, runtime, precision, threads, device, quiet)
        if path.suffix not in CHECKPOINTS:
            raise ModelError(f"{path.name}: unknown kind of model", expected=f"{PRETRAINED}, {', '.join(SUFFIXES)}")
    if runtime not in RUNTIMES:
        raise DeviceError(f"runtime {runtime!r}", expected=" or ".join(RUNTIMES))
    mapped, preprocessing = _mapped(source, stages, size, vector)
    found = _live(mapped, preprocessing, str(source), runtime, precision, threads, device)
    if not quiet:
        told = found.engine.describe()
        progress.say(f"engine: {told['runtime']} {told['precision']} on {told['device']}", once=True)
    return found


def _exported(
    path: Path, stages: Any, size: tuple[int, int] | None, vector: bool, runtime: str, precision: str,
    threads: int | None, device: str | None, quiet: bool,
) -> FeatureMapModel:  # fmt: skip
    opened = load_model(path, runtime=runtime, precision=precision, threads=threads, device=device, quiet=quiet)
    engine: Any = opened.engine
    held = tuple(getattr(engine, "map_facts", ()))
    require_maps(held)
    wanted = [] if isinstance(stages, str) else [str(stage) for stage in stages]
    there = [{fact.name, str(fact.stride)} for fact in held]
    if wanted and (len(wanted) != len(there) or any(w not in t for w, t in zip(wanted, there, strict=True))):
        told = ", ".join(f"{fact.name} (stride {fact.stride})" for fact in held)
        raise ModelError(f"{path.name} gives {told}", expected=", ".join(wanted), remedy="write it with these stages")
    if size is not None and tuple(size) != tuple(engine.input_size):
        sides = " x ".join(map(str, engine.input_size))
        raise ModelError(
            f"{path.name} is for images of {sides}", expected=f"{size[0]} x {size[1]}", remedy="write it at that size"
        )
    if vector and not engine.dim:
        raise ModelError(f"{path.name} gives maps alone", expected="a vector too", remedy="write it with its vector")
    content = path.read_bytes() if path.suffix == ".onnx" else None
    return FeatureMapModel(engine, opened.preprocessing, held, str(path), opened.trunk, content, engine.facts.licence)


def _mapped(source: str | Path, stages: Any, size: tuple[int, int] | None, vector: bool) -> tuple[Any, Preprocessing]:
    """(FeatureMapNetwork, preprocessing of its images) of a checkpoint or of a trunk as it came."""
    # A checkpoint or a trunk of timm needs torch in any case.
    from unalike.model.feature_maps import FeatureMapNetwork

    if str(source).split(":")[0] == PRETRAINED:
        network, view = _pretrained(str(source), size)
    else:
        from unalike.model.checkpoint import load_embedder

        network, meta = load_embedder(require_model_file(source))
        held = View.from_dict(meta["facts"]["view"])
        height, width = size or (held.height, held.width)
        view = View(height, width, 1.0, held.mode, held.interpolation)
    preprocessing = Preprocessing(view, network.trunk.facts.mean, network.trunk.facts.std)
    return FeatureMapNetwork(network, preprocessing.input_size, stages, vector), preprocessing


def _pretrained(source: str, size: tuple[int, int] | None) -> tuple[Any, View]:
    from unalike.model.frozen import build_frozen_trunk
    from unalike.model.pretrained import best_available_trunk

    _, _, name = source.partition(":")
    name = name or best_available_trunk()
    network = build_frozen_trunk(name, size or (224, 224))
    facts = network.trunk.facts
    if size is None and tuple(facts.input_size) != (224, 224):
        network = build_frozen_trunk(name, facts.input_size)
    height, width = size or facts.input_size
    return network, View(height, width, 1.0, "crop", "bilinear")


def _live(
    mapped: Any, preprocessing: Preprocessing, source: str, runtime: str, precision: str, threads: int | None,
    device: str | None,
) -> FeatureMapModel:  # fmt: skip
    trunk, licence = mapped.trunk.name, mapped.trunk.facts.licence
    if runtime == "torch":
        from unalike.engines.torch_engine import TorchEngine

        mean, std = preprocessing.mean, preprocessing.std
        precision = "fp32" if precision == "auto" else precision
        made: Any = TorchEngine(mapped, mean, std, preprocessing.input_size, device, precision)
        return FeatureMapModel(made, preprocessing, mapped.maps, source, trunk, None, licence)
    from unalike.deploy.feature_map_export import trace_maps

    proto, _ = trace_maps(mapped, preprocessing, trunk=trunk, licence=licence)
    content = proto.SerializeToString()
    engine = engine_from_onnx(content, runtime, precision, threads, device)
    return FeatureMapModel(engine, preprocessing, mapped.maps, source, trunk, content, licence)


def export_feature_maps(
    source: str | Path, path: str | Path, *, stages: str | Sequence[int | str] = "auto",
    size: tuple[int, int] | None = None, vector: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Export ``source`` (a checkpoint, ``pretrained`` or ``pretrained:NAME``) with feature maps, proved equal to torch.

    Returns the file, what it gives and how near it is. Raises RunError where ``path`` exists, and the errors of
    ``load_feature_maps`` (extra ``train``).
    """
    from unalike.deploy.feature_map_export import export_maps
    from unalike.storage.overwrite import refuse_existing

    path = Path(path)
    if path.suffix != ".onnx":
        raise ModelError(f"{path}", expected="a name that ends in .onnx")
    if str(source).split(":")[0] != PRETRAINED and Path(source).suffix in EXPORTED:
        raise ModelError(f"{source} is exported already", expected=f"a checkpoint (.pth) or {PRETRAINED}")
    refuse_existing(path)
    mapped, preprocessing = _mapped(source, stages, size, vector)
    trunk = mapped.trunk
    parity = export_maps(mapped, path, preprocessing, trunk=trunk.name, licence=trunk.facts.licence)
    progress.say(str(parity))
    return {
        "model": str(path), "trunk": trunk.name, "size": list(preprocessing.input_size), "dim": mapped.dim,
        "maps": [asdict(fact) for fact in mapped.maps], "parity": asdict(parity),
    }  # fmt: skip


def engine_from_onnx(
    content: bytes, runtime: str = "auto", precision: str = "auto", threads: int | None = None,
    device: str | None = None,
) -> Any:  # fmt: skip
    """An engine for an ONNX file's content: OpenVINO where it is installed, else ONNX Runtime, or the one named."""
    from unalike.errors import MissingExtra

    if runtime in ("auto", "openvino"):
        from unalike.engines.openvino_engine import OpenVinoEngine

        try:
            return OpenVinoEngine(content, precision, threads, device=device)
        except MissingExtra:
            if runtime != "auto":
                raise
    elif runtime != "onnxruntime":
        raise DeviceError(f"runtime {runtime!r} for an exported network", expected="auto, openvino or onnxruntime")
    from unalike.engines.onnx_engine import OnnxEngine

    return OnnxEngine(content, threads=threads, precision=precision, device=device)
