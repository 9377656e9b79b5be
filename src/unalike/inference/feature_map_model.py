"""Loading of networks that give feature maps: an exported file, a checkpoint, or a pretrained trunk.

>>> model = load_feature_maps("pretrained", size=(320, 320))  # a pretrained trunk: extra train, exported in memory
>>> model = load_feature_maps("maps.onnx")                    # written by unalike export-maps: no torch
>>> maps = model.engine.maps(np.stack([model.view(path)]))    # float32 (1, C, h, w) each
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike import progress
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.engines.metadata import MapFacts
from unalike.engines.protocol import MapEngine, require_maps
from unalike.errors import DeviceError, ModelError
from unalike.inference.engine_selection import engine_from_onnx, log_engine
from unalike.inference.loaded_model import load_model, require_model_file
from unalike.inference.model_files import CHECKPOINTS, EXPORTED, NETWORK_RUNTIMES, PRETRAINED, SUFFIXES, is_pretrained
from unalike.spec.declare import STAGES

if TYPE_CHECKING:
    from unalike.model.feature_maps import FeatureMapNetwork
    from unalike.model.frozen_trunk import FrozenTrunk


@dataclass(frozen=True)
class FeatureMapModel:
    """A network that is ready to compute feature maps.

    Attributes:
        engine: runs it.
        preprocessing: of a whole image.
        maps: name, stride and shape of each feature map.
        source: its file, or the name of a pretrained trunk.
        trunk: name of its trunk.
        content: the network as the bytes of an ONNX file, where it was exported in memory or read from such a file; None
            for torch, ``.xml`` and TensorRT.
        licence: license of the trunk's weights.
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
        """The evaluation view of a whole image."""
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
    """Load a network that gives feature maps.

    Stages, size and vector are fixed in an exported network: asking it for others is an error.

    Args:
        source: a network that ``unalike export-maps`` wrote (needs no torch); a checkpoint ``.pth``; ``pretrained`` (the
            best trunk whose weights are installed) or ``pretrained:NAME``. The latter three need the extra ``train`` and
            are exported in memory, in some ten seconds, unless ``runtime`` is torch.
        stages: ``auto``, ``middle``, or strides and names of feature maps (``model.feature_maps``).
        size: height and width of the input, any that the network takes; that of the model when None.
        vector: whether the embedding is wanted too.
        runtime: ``auto``, ``torch``, ``openvino`` or ``onnxruntime``.
        precision, threads, device: of the engine.
        quiet: do not print which engine was chosen.

    Raises:
        ModelError, WeightsError, DeviceError, ExportError, MissingExtra.
    """
    if isinstance(stages, str) and stages not in STAGES:
        raise ModelError(f"stages {stages!r}", expected=f"{', '.join(STAGES)}, or a sequence of strides and names")
    if not is_pretrained(source):
        path = require_model_file(source)
        if path.suffix in EXPORTED:
            return _load_exported(path, stages, size, vector, runtime, precision, threads, device, quiet)
        if path.suffix not in CHECKPOINTS:
            raise ModelError(f"{path.name}: unknown kind of model", expected=f"{PRETRAINED}, {', '.join(SUFFIXES)}")
    if runtime not in ("auto", *NETWORK_RUNTIMES):
        raise DeviceError(f"runtime {runtime!r}", expected=" or ".join(("auto", *NETWORK_RUNTIMES)))
    network, preprocessing = _build_network(source, stages, size, vector)
    model = _create_model(network, preprocessing, str(source), runtime, precision, threads, device)
    log_engine(model.engine, quiet)
    return model


def _load_exported(
    path: Path, stages: str | Sequence[int | str], size: tuple[int, int] | None, vector: bool, runtime: str,
    precision: str, threads: int | None, device: str | None, quiet: bool,
) -> FeatureMapModel:  # fmt: skip
    """Load an exported network. ModelError where its stages, size or vector are not the requested ones."""
    model = load_model(
        path, runtime=runtime, precision=precision, threads=threads, device=device, quiet=quiet, keep_content=True
    )
    engine: Any = model.engine
    maps = tuple(getattr(engine, "map_facts", ()))
    require_maps(maps)
    stage_names = [] if isinstance(stages, str) else [str(stage) for stage in stages]
    names = [{fact.name, str(fact.stride)} for fact in maps]
    if stage_names and (
        len(stage_names) != len(names) or any(stage not in name for stage, name in zip(stage_names, names, strict=True))
    ):
        available = ", ".join(f"{fact.name} (stride {fact.stride})" for fact in maps)
        raise ModelError(
            f"{path.name} gives {available}", expected=", ".join(stage_names), remedy="export it with these stages"
        )
    if size is not None and tuple(size) != tuple(engine.input_size):
        sides = " x ".join(map(str, engine.input_size))
        raise ModelError(
            f"{path.name} is for images of {sides}", expected=f"{size[0]} x {size[1]}", remedy="export it at that size"
        )
    if vector and not engine.dim:
        raise ModelError(f"{path.name} gives maps alone", expected="a vector too", remedy="export it with its vector")
    return FeatureMapModel(
        engine, model.preprocessing, maps, str(path), model.trunk, model.content, engine.facts.licence
    )


def _build_network(
    source: str | Path, stages: str | Sequence[int | str], size: tuple[int, int] | None, vector: bool
) -> tuple[FeatureMapNetwork, Preprocessing]:
    """The torch network of a checkpoint or of a pretrained trunk, and the preprocessing of its images."""
    # Imported here alone: a checkpoint or a pretrained trunk needs torch in any case.
    from unalike.model.feature_maps import FeatureMapNetwork

    network: Any
    if is_pretrained(source):
        network = _build_pretrained(str(source), size)
        view = View.whole_image(*(size or network.trunk.facts.input_size))
    else:
        from unalike.model.checkpoint import load_embedder

        network, payload = load_embedder(require_model_file(source))
        trained = View.from_dict(payload["facts"]["view"])
        height, width = size or (trained.height, trained.width)
        view = View.whole_image(height, width, trained.mode, trained.interpolation)
    preprocessing = Preprocessing(view, network.trunk.facts.mean, network.trunk.facts.std)
    return FeatureMapNetwork(network, preprocessing.input_size, stages, vector), preprocessing


def _build_pretrained(source: str, size: tuple[int, int] | None) -> FrozenTrunk:
    """The trunk that ``source`` names, of this input size, or of its own."""
    from unalike.model.frozen_trunk import build_frozen_trunk
    from unalike.model.pretrained import best_available_trunk

    _, _, name = source.partition(":")
    name = name or best_available_trunk()
    network = build_frozen_trunk(name, size or (224, 224))
    own_size = network.trunk.facts.input_size
    if size is None and tuple(own_size) != (224, 224):
        network = build_frozen_trunk(name, own_size)
    return network


def _create_model(
    network: FeatureMapNetwork, preprocessing: Preprocessing, source: str, runtime: str, precision: str,
    threads: int | None, device: str | None,
) -> FeatureMapModel:  # fmt: skip
    """Create an engine for a torch network: torch itself, or another runtime by an export in memory."""
    trunk, licence = network.trunk.name, network.trunk.facts.license
    if runtime == "torch":
        from unalike.engines.torch_engine import TorchEngine

        mean, std = preprocessing.mean, preprocessing.std
        precision = "fp32" if precision == "auto" else precision
        torch_engine = TorchEngine(network, mean, std, preprocessing.input_size, device, precision)
        return FeatureMapModel(torch_engine, preprocessing, network.maps, source, trunk, None, licence)
    from unalike.deploy.feature_map_export import trace_feature_maps

    proto, _ = trace_feature_maps(network, preprocessing, trunk=trunk, licence=licence)
    content = proto.SerializeToString()
    engine = engine_from_onnx(content, runtime, precision, threads, device)
    return FeatureMapModel(engine, preprocessing, network.maps, source, trunk, content, licence)


def export_feature_maps(
    source: str | Path, path: str | Path, *, stages: str | Sequence[int | str] = "auto",
    size: tuple[int, int] | None = None, vector: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Export a network with its feature maps as ONNX, after comparing them with torch's.

    Args:
        source: a checkpoint, ``pretrained`` or ``pretrained:NAME`` (extra ``train``).
        path: the ``.onnx`` file to write.
        stages, size, vector: as in ``load_feature_maps``.

    Returns:
        Plain data: the file, its trunk, size, width and maps, and the largest deviations from torch.

    Raises:
        RunError: ``path`` exists.
        ModelError, WeightsError, ExportError, MissingExtra: as ``load_feature_maps``.
    """
    from unalike.deploy.feature_map_export import export_maps
    from unalike.storage.overwrite import refuse_existing

    path = Path(path)
    if path.suffix != ".onnx":
        raise ModelError(f"{path}", expected="a name that ends in .onnx")
    if not is_pretrained(source) and Path(source).suffix in EXPORTED:
        raise ModelError(f"{source} is exported already", expected=f"a checkpoint (.pth) or {PRETRAINED}")
    refuse_existing(path)
    network, preprocessing = _build_network(source, stages, size, vector)
    trunk = network.trunk
    parity = export_maps(network, path, preprocessing, trunk=trunk.name, licence=trunk.facts.license)
    progress.say(str(parity))
    return {
        "model": str(path), "trunk": trunk.name, "size": list(preprocessing.input_size), "dim": network.dim,
        "maps": [asdict(fact) for fact in network.maps], "parity": asdict(parity),
    }  # fmt: skip
