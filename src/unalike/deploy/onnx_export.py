"""Export a trained network to ONNX and check it against torch.

The exporter is torch's present one (``torch.onnx.export(dynamo=True)``), whose operators are those of opset 18; higher
opsets come from its own converter, lower ones from ``deploy.opset_downgrade``.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata as metadata_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unalike import __version__
from unalike.deploy.onnx_graph import strip_debug_metadata
from unalike.deploy.opset_downgrade import TRACED_OPSET, downgrade_opset
from unalike.engines.metadata import KEY, NetworkFacts
from unalike.errors import ExportError, UnalikeError, missing_extra
from unalike.storage.atomic import atomic_write

if TYPE_CHECKING:
    import onnx
    import torch

    from unalike.data.preprocessing import Preprocessing

INPUT, OUTPUT = "input", "fc_pred"
# protobuf's own limit for one message; larger networks would need their weights in a second file.
LARGEST_FILE = 2**31 - 1


def output_names(facts: NetworkFacts) -> list[str]:
    """The vector's name, then one for each feature map; maps alone where the network gives no vector."""
    maps = [f"map_{number}" for number in range(len(facts.maps))]
    return maps if maps and not facts.dim else [OUTPUT, *maps]


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """torch.onnx warns of its own internals and logs every failed attempt; what counts is raised."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _wrapper(embedder: Any, facts: NetworkFacts) -> torch.nn.Module:
    """The network as it will stand in the file: normalisation and unit length belong to the graph when asked for."""
    import torch
    from torch import nn

    class Exported(nn.Module):
        scale: torch.Tensor
        shift: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            # A copy: exporting must not move or change a network that is being trained.
            self.embedder = copy.deepcopy(embedder).to("cpu", torch.float32).eval().requires_grad_(False)
            if facts.preprocessing == "embedded":
                self.register_buffer("scale", 1.0 / (255.0 * torch.tensor(facts.std)).view(1, -1, 1, 1))
                self.register_buffer("shift", (-torch.tensor(facts.mean) / torch.tensor(facts.std)).view(1, -1, 1, 1))

        def forward(self, images: torch.Tensor) -> Any:
            if facts.preprocessing == "embedded":
                images = images.float() * self.scale + self.shift
            found = self.embedder(images)
            if not facts.unit_length or (facts.maps and not facts.dim):
                return found
            vectors, *maps = found if facts.maps else (found,)
            vectors = nn.functional.normalize(vectors, dim=-1)
            return (vectors, *maps) if maps else vectors

    return Exported().eval()


def trace(
    embedder: Any,
    input_size: tuple[int, int],
    facts: NetworkFacts,
    *,
    batch_size: int = -1,
    opset: int | None = None,
    optimize: bool = True,
) -> onnx.ModelProto:
    """``embedder`` as an ONNX graph in memory, with its metadata.

    ``batch_size`` -1 leaves the batch free. With ``optimize`` off every initialiser keeps its parameter's name behind
    ``embedder.``. Raises ExportError and MissingExtra.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        import torch
    except ImportError as error:
        raise missing_extra(str(error.name), "train", "ONNX export") from error
    kind = torch.uint8 if facts.preprocessing == "embedded" else torch.float32
    free = batch_size < 1
    example = torch.zeros((2 if free else batch_size, len(facts.mean), *input_size), dtype=kind)
    shapes = ({0: torch.export.Dim("batch")},) if free else None
    traced_opset = None if opset is None else max(opset, TRACED_OPSET)
    try:
        with quiet_exporter(), torch.no_grad():
            program = torch.onnx.export(
                _wrapper(embedder, facts),
                (example,),
                dynamo=True,
                opset_version=traced_opset,
                optimize=optimize,
                input_names=[INPUT],
                output_names=output_names(facts),
                dynamic_shapes=shapes,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter lets through whatever its hundred passes raise
        if isinstance(error, UnalikeError):
            raise
        raise ExportError(
            f"torch cannot export this network ({_first_line(error)})", remedy="try batch_size 1, or another trunk"
        ) from error
    assert program is not None
    proto = program.model_proto
    strip_debug_metadata(proto)
    if opset is not None and opset < TRACED_OPSET:
        proto = downgrade_opset(proto, opset)
    if opset is not None and opset_version_of(proto) != opset:
        # torch's converter leaves a graph that it cannot raise as it is, without an error
        raise ExportError(
            f"this network cannot be written in opset {opset}",
            remedy=f"what can be had is {opset_version_of(proto)}",
        )
    held = proto.metadata_props.add()
    held.key, held.value = KEY, facts.to_json()
    return proto


def opset_version_of(proto: onnx.ModelProto) -> int:
    """The version of ONNX's own operators; torch may list those of other domains first."""
    version: int = max(opset.version for opset in proto.opset_import if opset.domain in ("", "ai.onnx"))
    return version


def _versions() -> dict[str, str]:
    """Whose work the file is: what may change its graph or its weights."""
    import torch

    found = {"unalike": __version__, "torch": torch.__version__}  # torch's own word names the build too (+cpu)
    for name in ("onnx", "timm"):
        try:
            found[name] = metadata_of.version(name)
        except metadata_of.PackageNotFoundError:
            continue
    return found


def build_facts(
    embedder: Any,
    preprocessing: Preprocessing,
    *,
    embedded: bool = False,
    unit_length: bool = False,
    metadata: Mapping[str, Any] | None = None,
    network: str = "",
) -> NetworkFacts:
    """The facts of a network about to be exported.

    ``embedded``: the graph takes uint8 images and normalizes them itself. ``metadata`` may hold classes, trunk, licence;
    what else it holds is kept under ``extra``. ``network`` is its key (``model.checkpoint.network_key``).
    """
    rest = dict(metadata or {})
    return NetworkFacts(
        mean=preprocessing.mean,
        std=preprocessing.std,
        preprocessing="embedded" if embedded else "none",
        unit_length=unit_length,
        dim=int(getattr(embedder, "dim", 0)),
        view=preprocessing.view.to_dict(),
        classes=tuple(rest.pop("classes", ())),
        trunk=str(rest.pop("trunk", getattr(getattr(embedder, "trunk", None), "name", ""))),
        licence=str(rest.pop("licence", "")),
        network=network,
        versions={**_versions(), **rest.pop("versions", {})},
        extra=rest,
        maps=tuple(getattr(embedder, "maps", ())),
    )


@dataclass(frozen=True)
class Exported:
    """What was written: the file, its facts, how near its vectors are to torch's, and what the graph holds.

    ``graph`` is one line: input and output with their shapes, then the operators, the most frequent first.
    """

    path: Path
    opset: int
    facts: NetworkFacts
    parity: Any
    graph: str = ""


def export_onnx(
    embedder: Any,
    path: str | Path,
    preprocessing: Preprocessing,
    *,
    images_NHWC: np.ndarray,
    embedded: bool = False,
    unit_length: bool = False,
    batch_size: int = -1,
    opset: int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Exported:
    """Write ``embedder`` to ``path`` (one file) and prove it on ``images_NHWC`` (uint8, of the view's size).

    Input ``input``, output ``fc_pred``; ``embedded`` as in ``build_facts``. The file appears under its name only after ONNX Runtime's vectors equalled
    torch's (``deploy.parity``); otherwise ExportError, and no file.
    """
    from unalike.deploy.parity import check_parity
    from unalike.model.checkpoint import network_key

    path = Path(path)
    facts = build_facts(
        embedder, preprocessing, embedded=embedded, unit_length=unit_length, metadata=metadata,
        network=network_key(embedder, preprocessing.mean, preprocessing.std),
    )  # fmt: skip
    proto = trace(embedder, preprocessing.input_size, facts, batch_size=batch_size, opset=opset)
    facts = replace(facts, dim=proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value)
    proto.metadata_props[-1].value = facts.to_json()
    if proto.ByteSize() > LARGEST_FILE:
        raise ExportError(
            f"the network takes {proto.ByteSize() / 2**30:.1f} GiB", expected="less than 2 GiB in one file"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_bytes(proto.SerializeToString())
        parity = check_parity(embedder, partial, facts=facts, images_NHWC=images_NHWC, batch_size=batch_size)
    return Exported(path, opset_version_of(proto), facts, parity, describe_graph(proto))


def describe_graph(proto: onnx.ModelProto) -> str:
    """Input, output and operators of a graph in one line."""

    def shown(value: onnx.ValueInfoProto) -> str:
        shape = value.type.tensor_type.shape.dim
        return f"{value.name} {' x '.join(side.dim_param or str(side.dim_value) for side in shape)}"

    counts = Counter(node.op_type for node in proto.graph.node).most_common()
    operators = ", ".join(f"{count} {name}" for name, count in counts)
    return (
        f"{shown(proto.graph.input[0])} -> {shown(proto.graph.output[0])}; {len(proto.graph.node)} nodes: {operators}"
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
