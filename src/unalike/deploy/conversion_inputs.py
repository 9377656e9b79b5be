"""The network to convert, images to calibrate on and labeled sets to compare on, as a spec names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.data.from_spec import load_evaluation_sets, load_from_spec
from unalike.data.notices import Notices
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.deploy.onnx_graph import (
    is_quantized_graph,
    quantized_layers,
    read_graph_facts,
    read_network,
    restore_layers,
    write_facts,
)
from unalike.deploy.quantization.accuracy_table import LabeledSets
from unalike.deploy.quantization.activation_ranges import CalibrationImages, sample_calibration_images
from unalike.engines.metadata import NetworkFacts, file_key
from unalike.errors import ModelError, SpecError

if TYPE_CHECKING:
    from unalike.spec import Experiment


Written = tuple[Path, Mapping[str, Any]]


@dataclass(frozen=True)
class SourceNetwork:
    """The network to work on: its ONNX content, its facts and view, a name, and its batch (0 when open)."""

    content: bytes
    facts: NetworkFacts
    view: View
    stem: str
    quantized: bool = False
    fixed_batch: int = 0

    def as_float(self) -> bytes:
        """The content without Q and DQ: what a quantized file is compared with."""
        if not self.quantized:
            return self.content
        proto = read_network(self.content, self.stem)
        proto = restore_layers(proto, None, set(quantized_layers(proto)))
        write_facts(proto, replace(self.facts, precision="fp32"))
        content: bytes = proto.SerializeToString()
        return content


def load_source_network(experiment: Experiment, section: Any, name: str) -> SourceNetwork:
    """The network that a section names: an ONNX file, or a checkpoint that is traced."""
    checkpoint = getattr(section, "checkpoint", None)
    known = [key for key in ("onnx_file", "checkpoint") if hasattr(section, key)]
    given = [key for key in known if getattr(section, key)]
    if len(given) != 1:
        found = " and ".join(f"{name}.{key}" for key in given or known)
        raise SpecError(f"{found} {'are both set' if given else 'is not set' if len(known) == 1 else 'are not set'}",
                        expected="one network to work on", remedy=f"set {name}.onnx_file=FILE.onnx")  # fmt: skip
    if checkpoint:
        return _traced(Path(checkpoint))
    path = Path(section.onnx_file)
    if not path.is_file():
        raise ModelError(f"{name}.onnx_file: there is no file {path}", remedy="write one: unalike export")
    content = path.read_bytes()
    proto = read_network(content, str(path))
    dataset = experiment.dataset
    normalization_set = experiment.is_set("dataset.pixel_mean") or experiment.is_set("dataset.pixel_std")
    facts = read_graph_facts(
        proto, str(path), *((dataset.pixel_mean, dataset.pixel_std) if normalization_set else (None, None))
    )
    facts = facts if facts.network else replace(facts, network=file_key(content))
    sides = [side.dim_value for side in proto.graph.input[0].type.tensor_type.shape.dim]
    if len(sides) != 4 or not all(sides[2:]):
        raise ModelError(f"{path} has an input of shape {sides}", expected="batch x 3 x height x width, both fixed")
    view = View.from_dict(facts.view) if facts.view else View(sides[2], sides[3], **dataset.view.model_dump())
    return SourceNetwork(proto.SerializeToString(), facts, view, path.stem, is_quantized_graph(proto), sides[0])


def _traced(path: Path) -> SourceNetwork:
    from unalike.deploy.onnx_export import build_facts, trace
    from unalike.model.checkpoint import load_embedder, network_key

    embedder, meta = load_embedder(path)
    held = meta["facts"]
    preprocessing = Preprocessing.from_facts(held)
    facts = build_facts(
        embedder, preprocessing,
        metadata={"classes": list(meta["classes"]), "trunk": held["trunk"], "licence": held["licence"]},
        network=network_key(embedder, preprocessing.mean, preprocessing.std),
    )  # fmt: skip
    proto = trace(embedder, preprocessing.input_size, facts)
    return SourceNetwork(proto.SerializeToString(), facts, preprocessing.view, path.stem)


def find_image_sources(experiment: Experiment, configured: Sequence[str] | None) -> list[str]:
    """Where images for a comparison may come from: those of the calibration, else the spec's data."""
    if configured:
        return list(configured)
    held = experiment.dataset.val_dataset
    found = [held.query if held else None, held.reference if held else None, experiment.dataset.train_dataset]
    return [str(source) for source in found if source][:1]


def load_calibration_images(
    experiment: Experiment,
    source: SourceNetwork,
    part: Any,
    name: str,
    count: int,
    seed: int,
    notices: Notices,
    *,
    needed: str = "",
) -> CalibrationImages:
    """Views for calibration and for the comparison. ``needed`` says what cannot be done without ``cal_image_dir``."""
    if needed and not part.cal_image_dir:
        raise SpecError(f"{name}.cal_image_dir is not set, and {needed}", expected="folders, archives or manifests of "
                        "images as the network will see them", remedy=f"set {name}.cal_image_dir=[DIR]")  # fmt: skip
    sources = find_image_sources(experiment, part.cal_image_dir)
    if not sources:
        raise SpecError("no images to compare the result with fp32 on", expected=f"{name}.cal_image_dir or "
                        "dataset.val_dataset.query", remedy=f"set {name}.cal_image_dir=[DIR]")  # fmt: skip
    paths = [path for where in sources for path in load_from_spec(experiment, where, notices, labeled=False).paths]
    return sample_calibration_images(
        list(dict.fromkeys(paths)), source.view, count=part.cal_batch_size * part.cal_batches, others=count, seed=seed,
        notices=notices,
    )  # fmt: skip


def load_labeled_sets(experiment: Experiment, notices: Notices) -> LabeledSets | None:
    held = experiment.dataset.val_dataset
    if held is None or not (held.reference or held.query):
        return None
    return LabeledSets(*load_evaluation_sets(experiment, notices))


def reading_options(experiment: Experiment, notices: Notices) -> dict[str, Any]:
    dataset = experiment.dataset
    return {"workers": dataset.workers, "max_unreadable": dataset.max_unreadable, "max_pixels": dataset.max_pixels,
            "notices": notices}  # fmt: skip
