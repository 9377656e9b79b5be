"""The complete spec, which of its fields the user set, and which were settled from data, trunk or machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from operator import getitem
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import BeforeValidator, PrivateAttr, ValidationError

from unalike.errors import SpecError
from unalike.progress import warn
from unalike.sanitize import redact_all
from unalike.spec.actions import STANDALONE_ACTIONS, top_level_of
from unalike.spec.automl import Automl
from unalike.spec.benchmark import BenchEngine
from unalike.spec.compare import Compare
from unalike.spec.dataset import Dataset
from unalike.spec.declare import Section, Text, field, section
from unalike.spec.demo import Demo
from unalike.spec.discover import Discover
from unalike.spec.distill import Distill
from unalike.spec.embed import Embed
from unalike.spec.evaluate import Evaluate
from unalike.spec.export import Export
from unalike.spec.export_maps import ExportMaps
from unalike.spec.gallery import (
    Calibrate,
    GalleryAdd,
    GalleryBuild,
    GalleryCopy,
    GalleryList,
    GalleryMerge,
    GalleryRemove,
    GalleryRename,
    Identify,
)
from unalike.spec.gen_engine import GenEngine
from unalike.spec.gen_trt_engine import GenTrtEngine
from unalike.spec.improve import Improve
from unalike.spec.inference import Inference
from unalike.spec.inspect import InspectFit, InspectLearn, InspectRun
from unalike.spec.mlflow import Mlflow
from unalike.spec.model import Model
from unalike.spec.quantize import Quantize
from unalike.spec.serve import Serve
from unalike.spec.train import Train
from unalike.spec.verify import Verify
from unalike.spec.wandb import WandB

_AFTER_TRAINING = ("evaluate", "inference", "export", "gen_trt_engine", "quantize", "gen_engine")
_DEVICES = ["gpu_ids", "num_gpus", "num_nodes"]


def normalize_policy(value: object) -> object:
    """``auto`` or ``off`` as YAML 1.1 and TAO write them: a bare ``off`` is read as false, ``on`` as true and means auto."""
    return "off" if value is False else "auto" if value is True or value == "on" else value


_POLICY: dict[str, Any] = {"anyOf": [{"enum": ["auto", "off", "on", True, False]}, {"type": "null"}]}


def _value_at(value: Any, path: str) -> Any:
    """The value of a leaf; None below a section that is null. A leaf may be a key of a field that holds a mapping."""
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
    return value


class SettledField(NamedTuple):
    path: str
    value: Any
    reason: str


class Experiment(Section):
    """Every option of every action.

    ``is_set`` states whether the user set a field; ``settled`` lists the fields that were filled in later, with the reasons.
    """

    model_name: Text = field(None, "Name of the model; model card, checkpoint, metrics and exported file carry it.")
    encryption_key: Text = field(None, "Accepted for TAO's sake and not used: nothing here is encrypted.")
    results_dir: Text = field(None, "Folder of all output; unset means runs/<date-time>-<action>.")
    automl_policy: Annotated[Literal["auto", "off"] | None, BeforeValidator(normalize_policy)] = field(
        None, "`auto` (TAO's `on`) looks for good settings, `off` trains once as the spec says; unset: auto without a spec "
        "file, off with one.",
        ours=True, schema=_POLICY,
    )  # fmt: skip
    automl: Automl = section(Automl, "Looking for good settings: how long, over what, by which algorithm.", ours=True)
    wandb: WandB = section(WandB, "Weights & Biases; silent unless you enable it yourself.")
    mlflow: Mlflow = section(Mlflow, "MLflow; silent unless you name a tracking server or store.", ours=True)
    train: Train = section(
        Train, "Training: how long, at which rates, with which loss, and what is kept.",
        popular=["checkpoint_interval", "gpu_ids", "num_epochs", "num_gpus", "num_nodes", "validation_interval"],
    )  # fmt: skip
    model: Model = section(Model, "The network and the weights it starts from.")
    dataset: Dataset = section(Dataset, "Where the images lie and how they are seen.")
    evaluate: Evaluate = section(Evaluate, "Measuring a model.", popular=_DEVICES)
    inference: Inference = section(Inference, "Recognising images.", popular=_DEVICES)
    export: Export = section(Export, "Writing the model as ONNX.")
    gen_trt_engine: GenTrtEngine = section(
        GenTrtEngine,
        "Building a TensorRT engine.",
        popular=["batch_size", "gpu_id", "tensorrt"],
    )
    quantize: Quantize = section(Quantize, "Writing a network in fewer bits.", ours=True)
    gen_engine: GenEngine = section(GenEngine, "Compiling a network ahead for a CPU runtime.", ours=True)
    compare: Compare = section(Compare, "Aligning two images and finding where they differ.", ours=True)
    inspect_fit: InspectFit = section(InspectFit, "Fitting an inspector to images of good parts.", ours=True)
    inspect_learn: InspectLearn = section(InspectLearn, "Teaching an inspector further good images.", ours=True)
    inspect_run: InspectRun = section(InspectRun, "Finding defects in images with an inspector.", ours=True)
    verify: Verify = section(Verify, "Checking that images show an approved asset, unaltered.", ours=True)
    discover: Discover = section(Discover, "Grouping unlabeled images into folders of similar ones.", ours=True)
    distill: Distill = section(Distill, "Teaching a small network what a larger one, or several, know.", ours=True)
    gallery_build: GalleryBuild = section(GalleryBuild, "Enrolling class folders in a new gallery.", ours=True)
    bench_engine: BenchEngine = section(
        BenchEngine, "Measuring latency and rate of a model in each runtime.", ours=True
    )
    embed: Embed = section(Embed, "Writing the vectors of images to a file.", ours=True)
    calibrate: Calibrate = section(Calibrate, "Finding the thresholds of a gallery for unknown images.", ours=True)
    identify: Identify = section(Identify, "Labeling images by a gallery.", ours=True)
    gallery_add: GalleryAdd = section(GalleryAdd, "Enrolling more images in a gallery.", ours=True)
    gallery_remove: GalleryRemove = section(GalleryRemove, "Removing classes or images from a gallery.", ours=True)
    gallery_rename: GalleryRename = section(GalleryRename, "Renaming a class of a gallery.", ours=True)
    gallery_merge: GalleryMerge = section(GalleryMerge, "Merging classes of a gallery.", ours=True)
    gallery_copy: GalleryCopy = section(GalleryCopy, "Copying a gallery to another place.", ours=True)
    gallery_list: GalleryList = section(GalleryList, "Listing the classes of a gallery.", ours=True)
    export_maps: ExportMaps = section(ExportMaps, "Writing a network that outputs its feature maps.", ours=True)
    demo: Demo = section(Demo, "Training on rendered brand marks and recognizing other brands.", ours=True)
    serve: Serve = section(Serve, "Answering over HTTP.", ours=True)
    improve: Improve = section(Improve, "Learning from the corrections of a service.", ours=True)

    _action: str = PrivateAttr(default="")
    _set_paths: set[str] = PrivateAttr(default_factory=set)
    _marked: set[str] = PrivateAttr(default_factory=set)
    _settled: list[SettledField] = PrivateAttr(default_factory=list)
    _spec_given: bool = PrivateAttr(default=False)
    _override_paths: tuple[str, ...] = PrivateAttr(default=())

    @property
    def settled(self) -> list[SettledField]:
        """(path, value, reason) of every field that was settled, in order."""
        return self._settled

    @property
    def spec_given(self) -> bool:
        """Whether a spec file or dict was given (overrides alone do not count)."""
        return self._spec_given

    @property
    def override_paths(self) -> tuple[str, ...]:
        """Dotted paths of the leaves that overrides set, which are meant for this action; a spec file may serve several."""
        return self._override_paths

    @override_paths.setter
    def override_paths(self, paths: tuple[str, ...]) -> None:
        self._override_paths = paths

    def is_set(self, path: str) -> bool:
        """Whether the user set this field (of a section: any field in it)."""
        return any(s == path or s.startswith(path + ".") or path.startswith(s + ".") for s in self._set_paths)

    def changed(self, paths: Iterable[str]) -> list[str]:
        """Those of these leaves that the user set to another value than the default."""
        default = type(self)()
        return [path for path in paths if self.is_set(path) and _value_at(self, path) != _value_at(default, path)]

    def mark_unset(self, paths: Iterable[str]) -> None:
        """Record dotted paths that the spec holds as mandatory and unset (``???``, ``<required>``)."""
        self._marked.update(paths)

    def is_meant(self, section: str) -> bool:
        """Whether a section at the top differs from its defaults, or holds a field that is marked as mandatory and unset."""
        own: Section = getattr(self, section)
        return own != type(own)() or any(path.startswith(f"{section}.") for path in self._marked)

    def sections_set(self) -> set[str]:
        """Names at the top of the spec in which the user set a field."""
        return {path.partition(".")[0] for path in self._set_paths}

    def set_values(self) -> dict[str, Any]:
        """The values that the user set, as nested dicts; loaded as a spec they set the same fields to the same values."""
        values: dict[str, Any] = {}
        for path in sorted(self._set_paths):
            *parents, name = path.split(".")
            owner = values
            for parent in parents:
                owner = owner.setdefault(parent, {})
            owner[name] = _plain(_value_at(self, path))
        return values

    def mark_set(self, paths: Iterable[str]) -> None:
        """Record dotted paths as set by the user."""
        self._set_paths.update(paths)

    def set_value(self, path: str, value: Any) -> None:
        """Set a field before a run starts, whether or not the user set it (such as ``train.seed: -1``).

        Values that follow from data or trunk are set by ``settle``, which keeps the user's; after the start nothing changes.
        """
        *parents, name = path.split(".")
        owner: Any = self
        for part in parents:
            owner = getattr(owner, part)
        setattr(owner, name, value)

    def with_values(self, values: Mapping[str, Any]) -> Experiment:
        """A copy in which the fields with these dotted paths have these values; fields set by the user stay marked."""
        copy = self.model_copy(deep=True)
        for path, value in values.items():
            copy.set_value(path, value)
        return copy

    def as_set_in(self, other: Experiment) -> Experiment:
        """A copy with these values, in which the fields count as set by the user that do in ``other``."""
        copy = self.model_copy(deep=True)
        copy._set_paths = set(other._set_paths)
        return copy

    def policy(self, flag: str | None = None) -> str:
        """``auto`` or ``off``: the command line's flag, else the spec's key, else auto without a spec and off with one."""
        return flag or self.automl_policy or ("off" if self._spec_given else "auto")

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars of every field of the action's spec."""
        if self._action in STANDALONE_ACTIONS:
            return self.model_dump(mode="python", include=set(top_level_of(self._action)))
        return self.model_dump(mode="python", exclude=set(STANDALONE_ACTIONS))

    def to_yaml(self, *, redacted: bool = False) -> str:
        """YAML that loads to the same values.

        Fields that a later action settles (``export.opset_version``) are omitted until then: loaded again, their defaults
        would count as set by the user.

        Args:
            redacted: without the secrets of addresses and of fields whose names say so (``sanitize.redact_all``).
        """
        values = redact_all(self.to_dict()) if redacted else self.to_dict()
        settled_paths = {entry.path for entry in self._settled}
        for action in [name for name in _AFTER_TRAINING if name in values]:
            for path in _open_paths(getattr(self, action), f"{action}."):
                if not (self.is_set(path) or path in settled_paths):
                    *parents, name = path.split(".")
                    del reduce(getitem, parents, values)[name]
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def _open_paths(part: Section, prefix: str) -> Iterator[str]:
    """The leaves of a section that may be settled."""
    for name, info in type(part).model_fields.items():
        value, facts = getattr(part, name), info.json_schema_extra
        if isinstance(value, Section):
            yield from _open_paths(value, f"{prefix}{name}.")
        elif isinstance(facts, dict) and facts.get("settled"):
            yield prefix + name


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value.model_dump() if isinstance(value, Section) else value


def settle(experiment: Experiment, path: str, value: Any, reason: str) -> bool:
    """Set a field to a value that follows from data, trunk or machine, unless the user set it.

    A value of the user is kept; if it contradicts a fact of the pretrained trunk, one warning is printed.

    Args:
        experiment: The spec.
        path: Dotted path of a field that is declared with ``settled=True``.
        value: The value.
        reason: What it follows from, for messages.

    Returns:
        Whether the field now has this value.

    Raises:
        KeyError: The path is not declared or may not be settled.
        SpecError: The value is not valid.
    """
    *parents, name = path.split(".")
    owner: Any = experiment
    for part in parents:
        owner = getattr(owner, part, None)
    field = type(owner).model_fields.get(name) if isinstance(owner, Section) else None
    facts: Any = field.json_schema_extra if field else {}
    if not facts.get("settled"):
        raise KeyError(f"{path} is not a field that may be settled")
    value = _plain(value)
    current = _plain(getattr(owner, name))
    if experiment.is_set(path):
        if current != value and facts.get("trunk_fact"):
            warn(f"{path} is {current}, as you set it; {reason}: {value}")
        return bool(current == value)
    try:
        setattr(owner, name, value)
    except ValidationError as error:
        raise SpecError(f"{path}: cannot be settled to {value!r}", remedy=str(error.errors()[0]["msg"])) from error
    experiment._settled[:] = [entry for entry in experiment._settled if entry.path != path]
    experiment._settled.append(SettledField(path, value, reason))
    return True
