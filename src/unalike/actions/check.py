"""Whether a spec could run here: data, weights, extras and devices of every action that it is made for.

All faults are gathered, each one line of found, expected and remedy; nothing is written and nothing trains.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.actions.export import export_device
from unalike.actions.inference import input_images
from unalike.actions.model_source import PRETRAINED, refuse_contradictions
from unalike.actions.request import Overrides, Spec
from unalike.actions.result import Checked
from unalike.data.from_spec import load_evaluation_sets, load_from_spec, load_training_sets, load_unlabeled_images
from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.errors import DeviceError, RunError, SpecError, UnalikeError, WeightsError, missing_extra
from unalike.inference.loaded_model import load_model
from unalike.runs.folder import results_folder
from unalike.spec import Experiment
from unalike.storage.filesystems import SCHEMES
from unalike.storage.overwrite import refuse_existing

if TYPE_CHECKING:
    from unalike.spec import Experiment

# What an extra's work imports first.
TRAINING = ("torch", "timm", "lightning_fabric", "pytorch_metric_learning", "sklearn", "tensorboard", "safetensors")
EXPORTING = ("torch", "timm", "onnx", "onnxscript", "onnxruntime")
STARTS = ("model.pretrained_model_path", "model.pretrained_trunk_path", "model.pretrained_embedder_path",
          "train.resume_training_checkpoint_path")  # fmt: skip
SOURCES = (
    "dataset.train_dataset",
    "dataset.val_dataset.reference",
    "dataset.val_dataset.query",
    "inference.input_path",
)

# One of these is what a spec is for.
PURPOSES = ("dataset.train_dataset", "evaluate.checkpoint", "inference.checkpoint", "export.checkpoint",
            "gen_trt_engine.onnx_file")  # fmt: skip


class Readiness:
    """``facts``: what was found in order, by name; ``faults``: what was not, a line each."""

    def __init__(self, experiment: Experiment, faults: list[str]) -> None:
        self.experiment, self.faults = experiment, faults
        self.facts: dict[str, Any] = {"spec": "valid" if not faults else f"{len(faults)} faults"}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What goes wrong inside is a fault of ``name``, and the next part is looked at."""
        try:
            yield
        except (UnalikeError, OSError) as error:
            line = f"{name}: {' '.join(str(error).split())}"
            if line not in self.faults:
                self.faults.append(line)

    def at(self, path: str) -> Any:
        """The value at a dotted path; None below a section that is not there."""
        value: Any = self.experiment
        for name in path.split("."):
            value = getattr(value, name, None)
        return value

    def look(self) -> None:
        """Everything, in the order in which a run would meet it."""
        if not any(map(self.at, (*PURPOSES, *SOURCES))):
            with self.part("spec"):
                raise SpecError("it names neither images nor a model", expected=f"one of {', '.join(PURPOSES)}",
                                remedy="set what the action that it is for needs")  # fmt: skip
        self._extras()
        sets = self._data()
        self._devices()
        self._weights(sets)
        self._models()

    # -- extras --

    def _extras(self) -> None:
        for module, extra, purpose in dict.fromkeys(self._needs()):
            if importlib.util.find_spec(module) is None:
                with self.part("extras"):
                    raise missing_extra(module, extra, purpose)
        self.facts["extras"] = "all there" if not any(f.startswith("extras: ") for f in self.faults) else "missing"

    def _needs(self) -> Iterator[tuple[str, str, str]]:
        """(module, extra, purpose) of all that this spec would import."""
        held = self.experiment
        if held.dataset.train_dataset:
            yield from ((module, "train", "training") for module in TRAINING)
        if held.export.checkpoint:
            yield from ((module, "train", "export") for module in EXPORTING)
        if held.is_set("wandb.enable") and held.wandb.enable:
            yield "wandb", "wandb", "wandb.enable"
        for name in ("evaluate", "inference"):
            section = getattr(held, name)
            if section.checkpoint:
                yield from ((module, "train", f"{name}.checkpoint") for module in ("torch", "timm"))
            if section.runtime != "auto":
                extra = {"onnxruntime": "onnx", "torch": "train"}.get(section.runtime, section.runtime)
                yield section.runtime, extra, f"{name}.runtime"
            elif section.onnx_file and not any(map(importlib.util.find_spec, ("openvino", "onnxruntime"))):
                yield "onnxruntime", "onnx", f"{name}.onnx_file"
            if section.trt_engine:
                yield "tensorrt", "tensorrt", f"{name}.trt_engine"
        if held.gen_trt_engine.onnx_file:
            yield "tensorrt", "tensorrt", "gen_trt_engine"
        for path in SOURCES:
            source = str(self.at(path) or "")
            if source.lower().endswith((".parquet", ".pq")):
                yield "pyarrow", "parquet", path
            scheme, remote, _ = source.partition("://")
            if remote and scheme != "file":
                yield "fsspec", "remote", path
                if scheme in SCHEMES:
                    yield SCHEMES[scheme].replace("-", "_"), "remote", path

    # -- data --

    def _data(self) -> Any:
        """Every source by itself, then how they fit together; the training sets, or None."""
        held, notices = self.experiment, Notices()
        good = {path: self._source(path, notices) for path in SOURCES if self.at(path)}
        for number, source in enumerate(self.at("gen_trt_engine.tensorrt.calibration.cal_image_dir") or ()):
            with self.part(f"gen_trt_engine.tensorrt.calibration.cal_image_dir[{number}]"):
                load_from_spec(held, source, notices, labeled=False)
        sets = None
        if all(good.values()):
            if held.dataset.train_dataset:
                with self.part("data"):
                    if self._unlabelled():
                        load_unlabeled_images(held, notices)
                    else:
                        sets = load_training_sets(held, notices)
                        self.facts["validation"] = sets.validation
            elif self.at("dataset.val_dataset.query"):
                with self.part("data"):
                    load_evaluation_sets(held, notices)
        notices.say()
        return sets

    def _unlabelled(self) -> bool:
        return bool(self.experiment.dataset.labels == "none")

    def _source(self, path: str, notices: Notices) -> bool:
        with self.part(path):
            labeled = path != "inference.input_path" and not (path == "dataset.train_dataset" and self._unlabelled())
            images: ImageSet = (
                load_from_spec(self.experiment, self.at(path), notices, labeled=labeled)
                if path != "inference.input_path"
                else input_images(self.experiment, notices)
            )
            if len(images) == 0:
                raise RunError(f"{self.at(path)} holds no images", expected="one folder a class with images in it")
            self.facts[path] = f"{len(images)} images" + (f" of {len(images.classes)} classes" if labeled else "")
            return True
        return False

    # -- devices --

    def _devices(self) -> None:
        held = self.experiment
        if importlib.util.find_spec("torch") is None or importlib.util.find_spec("lightning_fabric") is None:
            return
        from unalike.training.devices import check_devices, make_fabric

        if held.dataset.train_dataset:
            with self.part("train devices"):
                self.facts["train device"] = str(make_fabric(held).device)
        for name in ("evaluate", "inference"):
            section = getattr(held, name)
            if section.checkpoint or section.onnx_file:
                with self.part(f"{name} devices"):
                    ids = check_devices(section.num_gpus, section.gpu_ids, where=name,
                                        ids_were_set=held.is_set(f"{name}.gpu_ids"))  # fmt: skip
                    if not ids and section.precision == "fp16":
                        raise DeviceError(
                            f"{name}.precision is fp16 and {name} runs on a CPU", remedy="use bf16 or fp32"
                        )
                    self.facts[f"{name} device"] = f"cuda {ids}" if ids else "cpu"
        if held.export.checkpoint:
            with self.part("export devices"):
                self.facts["export device"] = export_device(held)

    # -- weights to start from --

    def _weights(self, sets: Any) -> None:
        held = self.experiment
        there = [self._is_file(path) for path in STARTS if self.at(path)]
        if not held.dataset.train_dataset or importlib.util.find_spec("timm") is None or not all(there):
            return
        from unalike.model.checkpoint import read_checkpoint
        from unalike.model.embedder import build_embedder
        from unalike.training.losses import build_criterion
        from unalike.training.recipe import settle_backbone

        with self.part("model"):
            settle_backbone(held)
            self.facts["model.backbone"] = held.model.backbone
            self.facts["weights"] = build_embedder(held).trunk.facts.source
        with self.part("train.loss"):
            build_criterion(held, classes=len(sets.train.classes) if sets else 2, dim=held.model.feat_dim)
        if held.train.resume_training_checkpoint_path:
            with self.part("train.resume_training_checkpoint_path"):
                if not read_checkpoint(held.train.resume_training_checkpoint_path).get("training"):
                    raise WeightsError(f"{held.train.resume_training_checkpoint_path} holds weights alone",
                                       remedy="give it as model.pretrained_model_path instead")  # fmt: skip

    def _is_file(self, path: str) -> bool:
        with self.part(path):
            if not Path(self.at(path)).expanduser().is_file():
                raise WeightsError(f"there is no file {self.at(path)}", expected="weights (.pth, .ckpt, .safetensors)",
                                   remedy="correct the path or take the key out")  # fmt: skip
            return True
        return False

    # -- finished models --

    def _models(self) -> None:
        for name in ("evaluate", "inference", "export"):
            for key in ("checkpoint", "onnx_file", "trt_engine"):
                path = f"{name}.{key}"
                file = self.at(path)
                if not file or path == "export.onnx_file" or (key == "checkpoint" and file == PRETRAINED):
                    continue
                with self.part(path):
                    self.facts[path] = self._model(path, Path(file).expanduser())
        target = self.experiment.export.onnx_file
        if self.experiment.export.checkpoint and target:
            with self.part("export.onnx_file"):
                refuse_existing(target)

    def _model(self, path: str, file: Path) -> str:
        """What the model's file holds, in words. Raises what opening it would raise."""
        if not file.is_file():
            made = self._to_be_made()
            if made is not None and file.resolve().is_relative_to(made.resolve()):
                return f"{file.name}: made by training"
            raise WeightsError(f"there is no file {file}", expected="a trained model", remedy="correct the path")
        if file.suffix == ".onnx":
            section = getattr(self.experiment, path.partition(".")[0])
            model = load_model(file, runtime=section.runtime if section.runtime != "torch" else "auto")
            refuse_contradictions(self.experiment, file, model.preprocessing, dim=model.engine.dim, trunk=model.trunk)
            return f"{model.trunk or file.name}, {model.engine.dim} numbers an image"
        if path.endswith("trt_engine") or importlib.util.find_spec("timm") is None:
            return "there"
        from unalike.data.preprocessing import Preprocessing
        from unalike.model.checkpoint import load_embedder

        embedder, meta = load_embedder(file)
        facts = meta["facts"]
        refuse_contradictions(
            self.experiment, file, Preprocessing.from_facts(facts), dim=embedder.dim, trunk=facts["trunk"]
        )
        return f"{facts['trunk']}, {embedder.dim} numbers an image, {len(meta['classes'])} classes"

    def _to_be_made(self) -> Path | None:
        """The folder that training, by the same spec, would leave its checkpoints in."""
        return results_folder("train", self.experiment) if self.experiment.dataset.train_dataset else None


def check(spec: Spec = None, overrides: Overrides = (), *, data: str | Path | None = None) -> Checked:
    """Validate spec, data, weights, extras and devices of whatever the spec is made for; nothing trains.

    ``faults`` holds all that would keep it from running, a line each; ``figures`` what is there. Raises SpecError for a
    file that is no spec at all.
    """
    from unalike.actions.check import Readiness
    from unalike.spec.load import read_spec

    if isinstance(spec, str | Path) and data is None and Path(spec).suffix.lower() not in (".yaml", ".yml"):
        spec, data = None, spec
    experiment, faults = read_spec("check", spec, overrides, data=data)
    found = Readiness(experiment, [str(fault) for fault in faults])
    found.look()
    return Checked(Path("."), None, found.facts, tuple(found.faults))
