"""Export a trained network to ONNX and check it against torch.

The exporter is torch's current one (``torch.onnx.export(dynamo=True)``), whose operators are those of opset 18; higher
opsets come from torch's converter, lower ones from ``deploy.opset_downgrade``.
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
from unalike.engines.checksum import append_onnx_checksum
from unalike.engines.metadata import KEY, NetworkFacts
from unalike.errors import ExportError, UnalikeError, missing_extra
from unalike.storage.atomic import atomic_write

if TYPE_CHECKING:
    import onnx
    import torch

    from unalike.data.preprocessing import Preprocessing
    from unalike.deploy.parity import Parity

INPUT, OUTPUT = "input", "fc_pred"
# protobuf's own limit for one message; larger networks would need their weights in a second file.
LARGEST_FILE = 2**31 - 1


def output_names(facts: NetworkFacts) -> list[str]:
    """Names of the outputs: of the vector, if there is one, then of each feature map."""
    maps = [f"map_{number}" for number in range(len(facts.maps))]
    return maps if maps and not facts.dim else [OUTPUT, *maps]


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Suppress warnings and log messages of torch's exporter about its internals; failures are raised as exceptions."""
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


def _exported_module(embedder: torch.nn.Module, facts: NetworkFacts) -> torch.nn.Module:
    """The module to trace: the network, with normalization of images and vectors in the graph where the facts say so."""
    import torch
    from torch import nn

    class ExportedModule(nn.Module):
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
            outputs = self.embedder(images)
            if not facts.unit_length or (facts.maps and not facts.dim):
                return outputs
            vectors, *maps = outputs if facts.maps else (outputs,)
            vectors = nn.functional.normalize(vectors, dim=-1)
            return (vectors, *maps) if maps else vectors

    return ExportedModule().eval()


def trace(
    embedder: torch.nn.Module,
    input_size: tuple[int, int],
    facts: NetworkFacts,
    *,
    batch_size: int = -1,
    opset: int | None = None,
    optimize: bool = True,
) -> onnx.ModelProto:
    """Trace a network into an ONNX graph in memory.

    Args:
        embedder: maps normalized float (B, C, H, W) to vectors (B, D), or to a tuple where ``facts`` lists feature maps. It
            is copied, not changed.
        input_size: height and width of the images, in pixels.
        facts: metadata to store; says which normalization is part of the graph.
        batch_size: fixed batch of the graph; -1 for any.
        opset: version of ONNX's operators; the exporter's own when None.
        optimize: whether the graph is optimized. Without, each initializer is named ``embedder.`` + its parameter's name.

    Raises:
        ExportError: torch cannot trace the network, or it cannot be written in that opset.
        MissingExtra: onnx or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        import torch
    except ImportError as error:
        raise missing_extra(str(error.name), "train", "ONNX export") from error
    dtype = torch.uint8 if facts.preprocessing == "embedded" else torch.float32
    any_batch = batch_size < 1
    example = torch.zeros((2 if any_batch else batch_size, len(facts.mean), *input_size), dtype=dtype)
    shapes = ({0: torch.export.Dim("batch")},) if any_batch else None
    traced_opset = None if opset is None else max(opset, TRACED_OPSET)
    try:
        with quiet_exporter(), torch.no_grad():
            program = torch.onnx.export(
                _exported_module(embedder, facts),
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
    except Exception as error:  # the exporter's passes raise exceptions of any kind
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
        # torch's converter returns a graph that it cannot convert unchanged, without an error
        raise ExportError(
            f"this network cannot be written in opset {opset}",
            remedy=f"opset {opset_version_of(proto)} is possible",
        )
    proto.metadata_props.add(key=KEY, value=facts.to_json())
    return proto


def opset_version_of(proto: onnx.ModelProto) -> int:
    """Version of the operators of ONNX's own domain; torch may list other domains first."""
    version: int = max(opset.version for opset in proto.opset_import if opset.domain in ("", "ai.onnx"))
    return version


def _versions() -> dict[str, str]:
    """Versions of the packages that determine the graph and its weights."""
    import torch

    versions = {"unalike": __version__, "torch": torch.__version__}  # names the build too, such as +cpu
    for name in ("onnx", "timm"):
        try:
            versions[name] = metadata_of.version(name)
        except metadata_of.PackageNotFoundError:
            continue
    return versions


def build_facts(
    embedder: torch.nn.Module,
    preprocessing: Preprocessing,
    *,
    embedded: bool = False,
    unit_length: bool = False,
    metadata: Mapping[str, Any] | None = None,
    network: str = "",
) -> NetworkFacts:
    """Build the metadata of a network that will be exported.

    Args:
        embedder: gives the width of its vectors, the name of its trunk and its feature maps.
        preprocessing: view, mean and std of its images.
        embedded: whether the graph takes uint8 images and normalizes them itself.
        unit_length: whether the graph normalizes vectors to unit length.
        metadata: may contain classes, trunk, licence and versions; everything else is stored under ``extra``.
        network: key of the network (``model.checkpoint.network_key``).
    """
    extra = dict(metadata or {})
    return NetworkFacts(
        mean=preprocessing.mean,
        std=preprocessing.std,
        preprocessing="embedded" if embedded else "none",
        unit_length=unit_length,
        dim=int(getattr(embedder, "dim", 0)),
        view=preprocessing.view.to_dict(),
        classes=tuple(extra.pop("classes", ())),
        trunk=str(extra.pop("trunk", getattr(getattr(embedder, "trunk", None), "name", ""))),
        licence=str(extra.pop("licence", "")),
        network=network,
        versions={**_versions(), **extra.pop("versions", {})},
        extra=extra,
        maps=tuple(getattr(embedder, "maps", ())),
    )


@dataclass(frozen=True)
class Exported:
    """An exported file.

    Attributes:
        path: the file.
        opset: version of its operators.
        facts: its metadata.
        parity: comparison of its vectors with torch's.
        graph: description in one line (``describe_graph``).
    """

    path: Path
    opset: int
    facts: NetworkFacts
    parity: Parity
    graph: str = ""


def export_onnx(
    embedder: torch.nn.Module,
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
    """Export a network to one ONNX file with input ``input`` and output ``fc_pred``.

    The file gets its name only after its vectors in ONNX Runtime agreed with torch's (``deploy.parity``).

    Args:
        embedder: the network.
        path: the file to write.
        preprocessing: view, mean and std of its images.
        images_NHWC: uint8 images of the view's size, on which vectors are compared.
        embedded, unit_length, metadata: as in ``build_facts``.
        batch_size, opset: as in ``trace``.

    Raises:
        ExportError: the network cannot be exported, takes 2 GiB or more, or its vectors differ; no file is written.
        MissingExtra: onnx, onnxscript or ONNX Runtime is not installed.
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
        partial.write_bytes(append_onnx_checksum(proto.SerializeToString()))
        parity = check_parity(embedder, partial, facts=facts, images_NHWC=images_NHWC, batch_size=batch_size)
    return Exported(path, opset_version_of(proto), facts, parity, describe_graph(proto))


def describe_graph(proto: onnx.ModelProto) -> str:
    """Describe a graph in one line: input and output with shapes, then its operators, the most frequent first."""

    def describe(value: onnx.ValueInfoProto) -> str:
        shape = value.type.tensor_type.shape.dim
        return f"{value.name} {' x '.join(side.dim_param or str(side.dim_value) for side in shape)}"

    counts = Counter(node.op_type for node in proto.graph.node).most_common()
    operators = ", ".join(f"{count} {name}" for name, count in counts)
    return f"{describe(proto.graph.input[0])} -> {describe(proto.graph.output[0])}; {len(proto.graph.node)} nodes: {operators}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
