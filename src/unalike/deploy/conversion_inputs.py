"""The network to convert, images to calibrate on and labeled sets to compare on, as a spec names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.data.decoding import Decoding
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
from unalike.engines.checksum import read_model_file
from unalike.engines.metadata import NetworkFacts, file_key
from unalike.errors import ModelError, SpecError
from unalike.inference.contradictions import refuse_contradictions

if TYPE_CHECKING:
    from unalike.model.embedder import Embedder
    from unalike.spec import Experiment
    from unalike.spec.gen_engine import GenEngine
    from unalike.spec.gen_trt_engine import Calibration, GenTrtEngine
    from unalike.spec.quantize import Quantize, Ranges


@dataclass(frozen=True)
class SourceNetwork:
    """A network to convert.

    Attributes:
        content: bytes of its ONNX file.
        facts: its metadata.
        view: the evaluation view of its images.
        stem: name of its file without suffix.
        quantized: whether the graph holds Q/DQ nodes.
        fixed_batch: the batch size of its input; 0 where any is allowed.
    """

    content: bytes
    facts: NetworkFacts
    view: View
    stem: str
    quantized: bool = False
    fixed_batch: int = 0

    def as_float(self) -> bytes:
        """The content without Q/DQ nodes: the fp32 network that a quantized file is compared with."""
        if not self.quantized:
            return self.content
        proto = read_network(self.content, self.stem)
        proto = restore_layers(proto, None, set(quantized_layers(proto)))
        write_facts(proto, replace(self.facts, precision="fp32"))
        content: bytes = proto.SerializeToString()
        return content


def load_source_network(
    experiment: Experiment, section: Quantize | GenEngine | GenTrtEngine, name: str
) -> SourceNetwork:  # fmt: skip
    """Load the network that a section names: an ONNX file, or a checkpoint, which is traced.

    Args:
        experiment: gives the model's name, and the normalization of an ONNX file without metadata of ours.
        section: has ``onnx_file``, and ``checkpoint`` but for TensorRT.
        name: the section's key in the spec, for messages.

    Raises:
        SpecError: the section names no network, or two; or the spec contradicts it.
        ModelError: the file does not exist or has an unsuitable input.
        ExportError: the file is no ONNX file, or the checkpoint cannot be traced.
        MissingExtra: onnx or torch is not installed.
    """
    source = _read_source_network(experiment, section, name)
    decoding = source.view.decoding.completed(Decoding.from_section(experiment.dataset.decoding))
    source = replace(source, view=replace(source.view, decoding=decoding))
    if not experiment.model_name:
        return source
    return replace(source, facts=replace(source.facts, extra={**source.facts.extra, "name": experiment.model_name}))


def _read_source_network(
    experiment: Experiment, section: Quantize | GenEngine | GenTrtEngine, name: str
) -> SourceNetwork:  # fmt: skip
    checkpoint = getattr(section, "checkpoint", None)
    keys = [key for key in ("onnx_file", "checkpoint") if hasattr(section, key)]
    set_keys = [key for key in keys if getattr(section, key)]
    if len(set_keys) != 1:
        names = " and ".join(f"{name}.{key}" for key in set_keys or keys)
        raise SpecError(f"{names} {'are both set' if set_keys else 'is not set' if len(keys) == 1 else 'are not set'}",
                        expected="one network to convert", remedy=f"set {name}.onnx_file=FILE.onnx")  # fmt: skip
    if checkpoint:
        return _trace_checkpoint(Path(checkpoint), experiment)
    assert section.onnx_file is not None
    path = Path(section.onnx_file)
    if not path.is_file():
        raise ModelError(f"{name}.onnx_file: there is no file {path}", remedy="write one: unalike export")
    content = read_model_file(path).graph
    proto = read_network(content, str(path))
    dataset = experiment.dataset
    normalization_set = experiment.is_set("dataset.pixel_mean") or experiment.is_set("dataset.pixel_std")
    mean, std = (dataset.pixel_mean, dataset.pixel_std) if normalization_set else (None, None)
    facts = read_graph_facts(proto, str(path), mean, std)
    facts = facts if facts.network else replace(facts, network=file_key(content))
    sides = [side.dim_value for side in proto.graph.input[0].type.tensor_type.shape.dim]
    if len(sides) != 4 or not all(sides[2:]):
        raise ModelError(f"{path} has an input of shape {sides}", expected="batch x 3 x height x width, both fixed")
    view = View.from_dict(facts.view) if facts.view else View(sides[2], sides[3], **dataset.view.model_dump())
    preprocessing = Preprocessing(view, facts.mean, facts.std)
    refuse_contradictions(experiment, path, preprocessing, dim=facts.dim, trunk=facts.trunk)
    return SourceNetwork(proto.SerializeToString(), facts, view, path.stem, is_quantized_graph(proto), sides[0])


def _open_checkpoint(path: Path, experiment: Experiment) -> tuple[Embedder, Preprocessing, dict[str, Any]]:
    """Network, preprocessing and payload of a checkpoint that the spec does not contradict."""
    from unalike.model.checkpoint import load_embedder

    embedder, meta = load_embedder(path, experiment)
    preprocessing = Preprocessing.from_facts(meta["facts"])
    refuse_contradictions(experiment, path, preprocessing, dim=embedder.dim, trunk=meta["facts"]["trunk"],
                          head=embedder.head_kind)  # fmt: skip
    return embedder, preprocessing, meta


def _trace_checkpoint(path: Path, experiment: Experiment) -> SourceNetwork:
    from unalike.deploy.onnx_export import build_facts, trace
    from unalike.model.checkpoint import network_key

    embedder, preprocessing, meta = _open_checkpoint(path, experiment)
    checkpoint_facts = meta["facts"]
    facts = build_facts(
        embedder, preprocessing,
        metadata={"classes": list(meta["classes"]), "trunk": checkpoint_facts["trunk"],
                  "licence": checkpoint_facts["licence"],
                  **{key: checkpoint_facts[key] for key in ("held_out_scores", "name") if checkpoint_facts.get(key)}},
        network=network_key(embedder, preprocessing.mean, preprocessing.std),
    )  # fmt: skip
    proto = trace(embedder, preprocessing.input_size, facts)
    return SourceNetwork(proto.SerializeToString(), facts, preprocessing.view, path.stem)


def describe_source_network(
    experiment: Experiment, section: Quantize | GenEngine | GenTrtEngine, name: str
) -> tuple[str, SourceNetwork | None]:
    """A description of the network that a section names, for ``check``; nothing is traced.

    Returns:
        Trunk and width, and the network where it is an ONNX file.

    Raises:
        As ``load_source_network``.
    """
    if checkpoint := getattr(section, "checkpoint", None):
        embedder, _, meta = _open_checkpoint(Path(checkpoint), experiment)
        return f"{meta['facts']['trunk']}, {embedder.dim} dimensions", None
    source = _read_source_network(experiment, section, name)
    return f"{source.facts.trunk or source.stem}, {source.facts.dim or 'unknown'} dimensions", source


def find_image_sources(experiment: Experiment, own_sources: Sequence[str] | None) -> list[str]:
    """The calibration's sources of images where they are configured, else the first data set of the spec; may be empty."""
    if own_sources:
        return list(own_sources)
    dataset = experiment.dataset
    val = dataset.val_dataset
    sources = [val.query if val else None, val.reference if val else None, dataset.train_dataset]
    return [str(source) for source in sources if source][:1]


def require_images(experiment: Experiment, own_sources: Sequence[str] | None, name: str, *, int8: bool) -> list[str]:
    """The sources of images to measure ranges and to compare with fp32 on.

    Args:
        experiment: gives the data sets.
        own_sources: those of the calibration.
        name: the calibration's key in the spec, for messages.
        int8: whether ranges are measured.

    Raises:
        SpecError: no images are named.
    """
    if int8 and not own_sources:
        raise SpecError(f"{name}.cal_image_dir is not set, and INT8 needs images to measure ranges on",
                        expected="folders, archives or manifests of images as the network will see them",
                        remedy=f"set {name}.cal_image_dir=[DIR]")  # fmt: skip
    sources = find_image_sources(experiment, own_sources)
    if not sources:
        raise SpecError("no images to compare the result with fp32 on", expected=f"{name}.cal_image_dir or "
                        "dataset.val_dataset.query", remedy=f"set {name}.cal_image_dir=[DIR]")  # fmt: skip
    return sources


def load_calibration_images(
    experiment: Experiment,
    source: SourceNetwork,
    calibration: Ranges | Calibration,
    name: str,
    count: int,
    seed: int,
    notices: Notices,
    *,
    int8: bool,
) -> CalibrationImages:
    """Load images for calibration and for the comparison with fp32.

    Args:
        experiment: gives the data sets where the calibration names no images.
        source: the network; its view is applied to the images.
        calibration: the section's calibration.
        name: the calibration's key in the spec, for messages.
        count: number of images for the comparison.
        seed: of the random choice of images.
        notices: collects unreadable files.
        int8: whether ranges are measured, for which ``cal_image_dir`` must be set.

    Raises:
        SpecError: no images are named.
        DataError: none of them can be read.
    """
    sources = require_images(experiment, calibration.cal_image_dir, name, int8=int8)
    paths = [path for where in sources for path in load_from_spec(experiment, where, notices, labeled=False).paths]
    return sample_calibration_images(
        list(dict.fromkeys(paths)), source.view, count=calibration.cal_batch_size * calibration.cal_batches if int8 else 0,
        validation_count=count, seed=seed, notices=notices, max_pixels=experiment.dataset.max_pixels,
    )  # fmt: skip


def load_labeled_sets(experiment: Experiment, notices: Notices) -> LabeledSets | None:
    """Load the spec's reference and query sets, on which retrieval is measured; None where the spec names none."""
    val = experiment.dataset.val_dataset
    if val is None or not (val.reference or val.query):
        return None
    return LabeledSets(*load_evaluation_sets(experiment, notices))


def reading_options(experiment: Experiment, notices: Notices) -> dict[str, Any]:
    """The spec's options for reading images, as arguments of ``inference.embedding.embed_files``."""
    dataset = experiment.dataset
    return {"workers": dataset.workers, "max_unreadable": dataset.max_unreadable, "max_pixels": dataset.max_pixels,
            "notices": notices}  # fmt: skip
