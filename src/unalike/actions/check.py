"""Check whether a spec could run here: data, weights, extras and devices of every action in it.

All faults are collected, each one line of found, expected and remedy; nothing is written and nothing runs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.actions.check_conversions import check_conversions, required_modules
from unalike.actions.check_findings import Findings
from unalike.actions.check_training import check_training
from unalike.actions.evaluation_sets import vector_fields
from unalike.actions.export import export_device, no_parity_images, parity_sets
from unalike.actions.inference import input_images
from unalike.actions.model_from_spec import explicit_normalization, find_model_source
from unalike.actions.result import CheckResult
from unalike.actions.spec_resolution import Overrides, Spec, separate_data
from unalike.data.from_spec import load_evaluation_sets, load_from_spec, load_training_sets, load_unlabeled_images
from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.data.readability import find_unreadable
from unalike.errors import DataError, DeviceError, RunError, SpecError, WeightsError
from unalike.inference.contradictions import refuse_contradictions
from unalike.inference.loaded_model import load_model, refuse_engine_options
from unalike.inference.model_files import PRETRAINED
from unalike.inference.shards.vector_set import read_vector_set
from unalike.installation import install_command
from unalike.runs.folder import results_folder
from unalike.runs.mlflow_tracking import tracking_uri
from unalike.runs.ray_cluster import refuse_cluster_options
from unalike.runs.vector_folder import is_vector_folder
from unalike.spec.actions import MODEL_ACTIONS, STANDALONE_ACTIONS, command_of
from unalike.spec.mandatory import has_value, missing_fields
from unalike.storage.filesystems import SCHEMES
from unalike.storage.outside_files import expand_home
from unalike.storage.overwrite import refuse_existing

if TYPE_CHECKING:
    from unalike.data.from_spec import TrainingSets
    from unalike.spec import Experiment

# Modules that training and export import.
TRAINING_MODULES = (
    "torch",
    "timm",
    "lightning_fabric",
    "pytorch_metric_learning",
    "sklearn",
    "tensorboard",
    "safetensors",
)
EXPORT_MODULES = ("torch", "timm", "onnx", "onnxscript", "onnxruntime")
WEIGHT_FIELDS = ("model.pretrained_model_path", "model.pretrained_trunk_path", "model.pretrained_embedder_path",
          "train.resume_training_checkpoint_path")  # fmt: skip
DATA_FIELDS = (
    "dataset.train_dataset",
    "dataset.val_dataset.reference",
    "dataset.val_dataset.query",
    "inference.input_path",
)

READ_S = 20.0  # images of a source are decoded for at most so long
# One of these must be set in a spec.
MODEL_FIELDS = ("checkpoint", "onnx_file", "engine", "trt_engine")
PURPOSE_FIELDS = (
    "dataset.train_dataset", *(f"{action}.{name}" for action in ("evaluate", "inference") for name in MODEL_FIELDS),
    "export.checkpoint", "gen_trt_engine.onnx_file",
    *(f"{action}.{name}" for action in ("quantize", "gen_engine") for name in MODEL_FIELDS[:2]),
)  # fmt: skip


class ModelActionsCheck:
    """Checks what the model actions of a spec need: extras, images, devices, weights, models.

    Args:
        experiment: The spec.
        findings: Receives facts and faults.
    """

    def __init__(self, experiment: Experiment, findings: Findings) -> None:
        self.experiment, self.findings = experiment, findings

    def value(self, path: str) -> Any:
        """The value at a dotted path; None below a section that is not set."""
        value: Any = self.experiment
        for name in path.split("."):
            value = getattr(value, name, None)
        return value

    def run(self, *, data_alone: bool = False) -> None:
        """Check everything, in the order in which a run would meet it.

        Args:
            data_alone: The user gave images and nothing else: where these have a fault, devices and weights, whose
                libraries take seconds to import, are not looked at.
        """
        if not any(map(self.value, (*PURPOSE_FIELDS, *DATA_FIELDS))):
            with self.findings.collect("spec"):
                raise SpecError("neither images nor a model are named", expected="dataset.train_dataset, or the model of an action, "
                                "such as evaluate.checkpoint",
                                remedy="set the field of the action that shall run")  # fmt: skip
        self._mandatory()
        self.findings.require_modules(self._required_modules())
        if (
            self.experiment.is_set("wandb.enable")
            and self.experiment.wandb.enable
            and importlib.util.find_spec("wandb") is None
        ):
            self.findings.facts["wandb"] = f"is not installed: training goes on without it ({install_command('wandb')})"
        if tracking_uri(self.experiment) and importlib.util.find_spec("mlflow") is None:
            self.findings.facts["mlflow"] = (
                f"is not installed: the action goes on without it ({install_command('mlflow')})"
            )
        sets = self._data()
        if data_alone and self.findings.faults:
            return
        self._devices()
        self._weights(sets)
        self._models()
        check_conversions(self.experiment, self.findings, trains=bool(self.experiment.dataset.train_dataset))

    # -- mandatory fields --

    def _mandatory(self) -> None:
        """Check that the mandatory fields of every action whose section is there are set."""
        trains = bool(self.experiment.dataset.train_dataset)
        for action in MODEL_ACTIONS:
            if action == "train" or not self.experiment.is_meant(action):
                continue
            vectors = action == "evaluate" and vector_fields(self.experiment)
            for field in missing_fields(action, lambda path: has_value(self.experiment, path)):
                if vectors and field.startswith("evaluate."):
                    continue  # they were embedded before
                if trains and field.startswith(f"{action}.") and "input_path" not in field:
                    continue  # its model is what the training of this spec writes
                with self.findings.collect(action):
                    raise SpecError(f"{field} is not set", expected=f"a value, for {action}",
                                    remedy=f"set it, or take the section {action} out")  # fmt: skip

    # -- extras --

    def _required_modules(self) -> Iterator[tuple[str, str, str]]:
        """(module, extra, purpose) of the modules that the spec's actions import."""
        experiment = self.experiment
        if experiment.dataset.train_dataset:
            yield from ((module, "train", "training") for module in TRAINING_MODULES)
        if experiment.export.checkpoint:
            yield from ((module, "train", "export") for module in EXPORT_MODULES)
        for name in ("evaluate", "inference"):
            section = getattr(experiment, name)
            if section.checkpoint:
                yield from ((module, "train", f"{name}.checkpoint") for module in ("torch", "timm"))
            if section.runtime != "auto":
                extra = {"onnxruntime": "onnx", "torch": "train"}.get(section.runtime, section.runtime)
                yield section.runtime, extra, f"{name}.runtime"
            elif section.onnx_file and not any(map(importlib.util.find_spec, ("openvino", "onnxruntime"))):
                yield "onnxruntime", "onnx", f"{name}.onnx_file"
            if section.trt_engine:
                yield "tensorrt", "tensorrt", f"{name}.trt_engine"
        if experiment.evaluate.cluster == "ray":
            yield "ray", "cluster", "evaluate.cluster"
        yield from required_modules(experiment)
        for path in DATA_FIELDS:
            source = str(self.value(path) or "")
            if source.lower().endswith((".parquet", ".pq")):
                yield "pyarrow", "parquet", path
            scheme, remote, _ = source.partition("://")
            if remote and scheme != "file":
                yield "fsspec", "remote", path
                if scheme in SCHEMES:
                    yield SCHEMES[scheme].replace("-", "_"), "remote", path

    # -- data --

    def _data(self) -> TrainingSets | None:
        """Check every source by itself, then all together; the training sets, or None."""
        experiment, notices = self.experiment, Notices()
        readable = {path: self._source(path, notices) for path in DATA_FIELDS if self.value(path)}
        sets = None
        if all(readable.values()):
            if experiment.dataset.train_dataset:
                with self.findings.collect("data"):
                    if self._is_unlabeled():
                        load_unlabeled_images(experiment, notices)
                    else:
                        sets = load_training_sets(experiment, notices)
                        self.findings.facts["validation"] = sets.validation
            elif self.value("dataset.val_dataset.query") and not vector_fields(experiment):
                with self.findings.collect("data"):
                    load_evaluation_sets(experiment, notices)
        notices.say()
        return sets

    def _is_unlabeled(self) -> bool:
        return bool(self.experiment.dataset.labels == "none")

    def _source(self, path: str, notices: Notices) -> bool:
        """Whether the images of a source can be listed."""
        with self.findings.collect(path):
            if path.startswith("dataset.val_dataset.") and is_vector_folder(self.value(path)):
                vectors = read_vector_set(self.value(path)).images
                self.findings.facts[path] = f"{len(vectors)} vectors of {len(vectors.classes)} classes"
                return True
            labeled = path != "inference.input_path" and not (path == "dataset.train_dataset" and self._is_unlabeled())
            images: ImageSet = (
                load_from_spec(self.experiment, self.value(path), notices, labeled=labeled)
                if path != "inference.input_path"
                else input_images(self.experiment, notices)
            )
            if len(images) == 0:
                raise RunError(f"{self.value(path)} holds no images", expected="one folder a class with images in it")
            self.findings.facts[path] = f"{len(images)} images" + (
                f" of {len(images.classes)} classes" if labeled else ""
            )
            self._read(path, images, notices)
            return True
        return False

    def _read(self, path: str, images: ImageSet, notices: Notices) -> None:
        """Decode the images of a source, or as many as the time allows; a fault where a run would end for those that cannot be."""
        dataset = self.experiment.dataset
        count, unreadable = find_unreadable(images.paths, notices, seconds=READ_S, max_pixels=dataset.max_pixels)
        limit = max(1, int(dataset.max_unreadable * count)) if dataset.max_unreadable > 0 else 0
        if count < len(images):
            self.findings.facts[path] += f"; {count} of them, drawn at random, were decoded"
        if unreadable > limit or unreadable == count > 0:
            raise DataError(f"{unreadable} of {count} images cannot be decoded", expected=f"at most {limit}",
                            remedy="repair or remove them, or raise dataset.max_unreadable")  # fmt: skip

    # -- devices --

    def _devices(self) -> None:
        """Check that the devices of each action exist and can run its precision."""
        experiment = self.experiment
        if importlib.util.find_spec("torch") is None or importlib.util.find_spec("lightning_fabric") is None:
            return
        from unalike.training.devices import check_devices, make_fabric

        if experiment.dataset.train_dataset:
            with self.findings.collect("train devices"):
                refuse_cluster_options(experiment, "train")
                on_ray = experiment.train.cluster == "ray"
                device = "those of a Ray cluster" if on_ray else str(make_fabric(experiment).device)
                self.findings.facts["train device"] = device
        for name in ("evaluate", "inference"):
            section = getattr(experiment, name)
            if section.checkpoint or section.onnx_file:
                with self.findings.collect(f"{name} devices"):
                    ids = check_devices(section.num_gpus, section.gpu_ids, where=name,
                                        ids_were_set=experiment.is_set(f"{name}.gpu_ids"))  # fmt: skip
                    if not ids and section.precision == "fp16":
                        raise DeviceError(
                            f"{name}.precision is fp16 and {name} runs on a CPU", remedy="use bf16 or fp32"
                        )
                    self.findings.facts[f"{name} device"] = f"cuda {ids}" if ids else "cpu"
        if experiment.export.checkpoint:
            with self.findings.collect("export devices"):
                self.findings.facts["export device"] = export_device(experiment)
            with self.findings.collect("export"):
                if experiment.is_set("export.opset_version"):
                    from unalike.deploy.opset_downgrade import refuse_opset

                    refuse_opset(experiment.export.opset_version)

    # -- weights --

    def _weights(self, sets: TrainingSets | None) -> None:
        """Check the weights that training starts from, its network and its loss."""
        experiment = self.experiment
        files_exist = [self._is_file(path) for path in WEIGHT_FIELDS if self.value(path)]
        if not experiment.dataset.train_dataset or importlib.util.find_spec("timm") is None or not all(files_exist):
            return
        from unalike.model.checkpoint import read_checkpoint
        from unalike.model.embedder import build_embedder
        from unalike.training.losses import build_criterion
        from unalike.training.recipe import settle_backbone

        with self.findings.collect("model"):
            settle_backbone(experiment)
            self.findings.facts["model.backbone"] = experiment.model.backbone
            embedder = build_embedder(experiment)
            self.findings.facts["weights"] = embedder.trunk.facts.source
            check_training(experiment, sets, embedder, results_folder("train", experiment), self.findings)
        with self.findings.collect("train.loss"):
            build_criterion(experiment, classes=len(sets.train.classes) if sets else 2, dim=experiment.model.feat_dim)
        if experiment.train.resume_training_checkpoint_path:
            with self.findings.collect("train.resume_training_checkpoint_path"):
                checkpoint = read_checkpoint(experiment.train.resume_training_checkpoint_path, experiment)
                if not (checkpoint.get("training") or checkpoint.get("origin")):
                    raise WeightsError(f"{experiment.train.resume_training_checkpoint_path} holds weights only",
                                       remedy="give it as model.pretrained_model_path instead")  # fmt: skip

    def _is_file(self, path: str) -> bool:
        with self.findings.collect(path):
            if not expand_home(self.value(path)).is_file():
                raise WeightsError(f"there is no file {self.value(path)}", expected="weights (.pth, .ckpt, .safetensors)",
                                   remedy="correct the path or take the key out")  # fmt: skip
            return True
        return False

    # -- trained models --

    def _models(self) -> None:
        """Open the trained models that actions name, and check that files to write do not exist."""
        if self.experiment.is_meant("evaluate"):
            with self.findings.collect("evaluate"):
                refuse_cluster_options(self.experiment, "evaluate")
        for name in ("evaluate", "inference", "export"):
            fields = [f"{name}.{key}" for key in MODEL_FIELDS if self.value(f"{name}.{key}")]
            if name != "export" and len(fields) > 1:
                with self.findings.collect(name):
                    find_model_source(getattr(self.experiment, name), name)
            for path in fields:
                file = self.value(path)
                if path == "export.onnx_file":
                    continue
                with self.findings.collect(path):
                    self.findings.facts[path] = self._model(path, expand_home(file))
        target = self.experiment.export.onnx_file
        if self.experiment.export.checkpoint and target:
            with self.findings.collect("export.onnx_file"):
                refuse_existing(target)

    def _model(self, path: str, file: Path) -> str:
        """A description of a model file. Raises the error that opening it would raise."""
        if path.endswith(".checkpoint") and str(file) == PRETRAINED and not path.startswith("export."):
            return self._pretrained()
        if not file.is_file():
            folder = self._training_folder()
            if folder is not None and file.resolve().is_relative_to(folder.resolve()):
                return f"{file.name}: written by training"
            raise WeightsError(f"there is no file {file}", expected="a trained model", remedy="correct the path")
        section = getattr(self.experiment, path.partition(".")[0])
        if file.suffix in (".onnx", ".xml") and not path.startswith("export."):
            model = load_model(
                file, runtime=section.runtime, precision=section.precision, threads=section.threads, streams=section.streams,
                device=section.device, **explicit_normalization(self.experiment),
            )  # fmt: skip
            refuse_contradictions(self.experiment, file, model.preprocessing, dim=model.engine.dim, trunk=model.trunk)
            return f"{model.trunk or file.name}, {model.engine.dim} dimensions"
        if not path.startswith("export.") and not path.endswith("engine"):
            refuse_engine_options(section.runtime, section.precision, streams=section.streams, device=section.device)
        if path.endswith("engine") or importlib.util.find_spec("timm") is None:
            return "exists"
        from unalike.data.preprocessing import Preprocessing
        from unalike.model.checkpoint import load_embedder

        embedder, meta = load_embedder(file, experiment=self.experiment)
        facts = meta["facts"]
        refuse_contradictions(
            self.experiment,
            file,
            Preprocessing.from_facts(facts),
            dim=embedder.dim,
            trunk=facts["trunk"],
            head=embedder.head_kind,
        )
        if path == "export.checkpoint" and next(parity_sets(self.experiment, meta), None) is None:
            raise no_parity_images()
        return f"{facts['trunk']}, {embedder.dim} dimensions, {len(meta['classes'])} classes"

    def _pretrained(self) -> str:
        """A description of the pretrained trunk that is evaluated as it is. Raises the error that opening it would raise."""
        if importlib.util.find_spec("timm") is None:
            return "a pretrained trunk"
        from unalike.model.frozen_trunk import build_frozen_trunk
        from unalike.training.recipe import settle_backbone

        experiment = self.experiment.model_copy(deep=True)
        settle_backbone(experiment)
        model = experiment.model
        trunk = build_frozen_trunk(model.backbone, (model.input_height, model.input_width))
        return f"{model.backbone} as it is, {trunk.dim} dimensions"

    def _training_folder(self) -> Path | None:
        """The folder in which training by the same spec would write its checkpoints."""
        return results_folder("train", self.experiment) if self.experiment.dataset.train_dataset else None


def check(spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None) -> CheckResult:
    """Check a spec with its data, weights, extras and devices; nothing runs.

    Args:
        spec: A spec file, a mapping, or a data folder.
        overrides: Values by dotted path, which replace those of the spec.
        data: A data folder.

    Returns:
        ``faults`` has one line for each fault that would keep the spec from running; ``figures`` holds facts.

    Raises:
        SpecError: The file is no spec.
    """
    from unalike.actions.check_standalone import check_standalone
    from unalike.spec.load import read_spec

    spec, data = separate_data(spec, data)
    experiment, faults = read_spec("check", spec, overrides, data=data)
    findings = Findings([str(fault) for fault in faults])
    sections = experiment.sections_set() - {"results_dir"}
    standalone = [action for action in STANDALONE_ACTIONS if action in sections]
    for action in standalone:
        with findings.collect(action):
            if len(sections) > 1:
                raise SpecError(f"beside {', '.join(sorted(sections - {action}))}", expected="a spec of its own, for "
                                f"unalike {command_of(action)}")  # fmt: skip
        check_standalone(action, experiment, findings)
    if not standalone or sections - set(standalone):
        ModelActionsCheck(experiment, findings).run(data_alone=spec is None and not overrides)
    return CheckResult(Path("."), None, findings.facts, tuple(findings.faults))
