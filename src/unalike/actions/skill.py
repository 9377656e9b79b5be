"""The packaged skill, instructions for agents: generate its schemas, templates and skill_info.yaml, and install it.

``SKILL.md`` is written by hand. Schemas, templates and ``references/skill_info.yaml`` (facts for programs) are generated from
the declarations of the spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from unalike import __version__
from unalike.errors import RunError
from unalike.jobs.database import STATUSES
from unalike.jobs.parent_fields import EVERY, FIELD_RULES
from unalike.jobs.tao_layout import DATA_SOURCES
from unalike.runs.filenames import (
    BEST_CHECKPOINT,
    COMPARISON_FILE,
    DISCOVERY_FILE,
    DISTILLATION_FILE,
    EXPERIMENT_FILE,
    GROUPS_FILE,
    INSPECTION_FILE,
    LATEST_CHECKPOINT,
    METRICS_FILE,
    MODEL_CARD_FILE,
    MODEL_CARD_PAGE,
    PER_CLASS_FILE,
    RECORD_FILE,
    REPORT_FILE,
    RESULT_CSV,
    RESULT_JSONL,
    STATUS_FILE,
    UNSORTED_FILE,
    VECTORS_FILE,
    VERDICTS_FILE,
)
from unalike.spec.actions import ACTIONS, FOLDERLESS_ACTIONS, JOB_ACTIONS, command_of
from unalike.spec.declare import IMAGES, MODEL
from unalike.spec.fields import fields_of
from unalike.spec.schema import package_files as schema_files
from unalike.spec.shorthand import BY_ACTION, SHORTHAND
from unalike.spec.template import DEPLOY
from unalike.storage.atomic import write_text
from unalike.storage.outside_files import expand_home
from unalike.storage.overwrite import refuse_existing

NAME = "unalike"
SKILL = "SKILL.md"
INFO = "references/skill_info.yaml"
FOLDER = Path(__file__).parents[1] / "skill"
_MODELS = ("checkpoint", "onnx_file", "engine", "trt_engine")
# Model action -> field -> kind of value, and whether it is optional; standalone actions declare both with the field.
INPUTS: Mapping[str, Mapping[str, tuple[str, bool]]] = {
    "train": {
        "dataset.train_dataset": (IMAGES, False), "dataset.val_dataset.reference": (IMAGES, True),
        "dataset.val_dataset.query": (IMAGES, True), "dataset.class_map": (MODEL, True),
        "model.pretrained_model_path": (MODEL, True), "model.pretrained_trunk_path": (MODEL, True),
        "model.pretrained_embedder_path": (MODEL, True), "train.resume_training_checkpoint_path": (MODEL, True),
    },
    "evaluate": {
        **{f"evaluate.{name}": (MODEL, False) for name in _MODELS},
        "dataset.val_dataset.reference": (IMAGES, False), "dataset.val_dataset.query": (IMAGES, True),
    },
    "inference": {
        **{f"inference.{name}": (MODEL, False) for name in _MODELS},
        "dataset.val_dataset.reference": (IMAGES, False), "inference.input_path": (IMAGES, False),
    },
    "export": {"export.checkpoint": (MODEL, False), "dataset.val_dataset.reference": (IMAGES, True)},
    "gen_trt_engine": {
        "gen_trt_engine.onnx_file": (MODEL, False),
        "gen_trt_engine.tensorrt.calibration.cal_image_dir": (f"list: {IMAGES}; INT8 only", True),
    },
    "quantize": {
        "quantize.onnx_file": (MODEL, False), "quantize.checkpoint": (MODEL, False),
        "quantize.calibration.cal_image_dir": (f"list: {IMAGES}; needed unless queries are given", True),
        "dataset.val_dataset.reference": (IMAGES, True), "dataset.val_dataset.query": (IMAGES, True),
    },
    "gen_engine": {
        "gen_engine.onnx_file": (MODEL, False), "gen_engine.checkpoint": (MODEL, False),
        "gen_engine.calibration.cal_image_dir": (f"list: {IMAGES}; needed unless queries are given", True),
        "dataset.val_dataset.query": (IMAGES, True),
    },
}  # fmt: skip
# Fields of an action of which one must be set; a job takes it from its parent.
ONE_OF: Mapping[str, tuple[str, ...]] = {
    "evaluate": tuple(f"evaluate.{name}" for name in _MODELS),
    "inference": tuple(f"inference.{name}" for name in _MODELS),
    "quantize": ("quantize.onnx_file", "quantize.checkpoint"),
    "gen_engine": ("gen_engine.onnx_file", "gen_engine.checkpoint"),
}
# Action -> files in its results folder.
OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "train": (BEST_CHECKPOINT, LATEST_CHECKPOINT, "model_epoch_EEE_step_SSSSS.pth", MODEL_CARD_FILE,
              MODEL_CARD_PAGE, "automatic.json or search.json (policy auto)"),
    "evaluate": (METRICS_FILE, PER_CLASS_FILE, "predictions.parquet or predictions.csv", REPORT_FILE,
                 "results.json (of a TensorRT engine)"),
    "inference": (RESULT_CSV, RESULT_JSONL, "trt_result.csv (of a TensorRT engine)"),
    "export": ("<checkpoint>.onnx; as a job model.onnx",),
    "gen_trt_engine": ("<network>.engine; as a job model.engine", "cal.bin (INT8)"),
    "quantize": ("<network>_int8.onnx, _fp16.onnx or _bf16.onnx",),
    "gen_engine": ("<network>.xml and .bin (OpenVINO), or <network>_optimised.onnx",),
    "compare": (COMPARISON_FILE, REPORT_FILE, "<name>_boxes.jpg, _overlay.jpg, _heat.jpg, _reference.jpg"),
    "inspect_fit": ("part.inspector",),
    "inspect_run": (INSPECTION_FILE, REPORT_FILE, "overlays/<number>_<name>.png"),
    "verify": (VERDICTS_FILE, REPORT_FILE, "a picture an image"),
    "discover": ("group-001/ ... (images)", GROUPS_FILE, UNSORTED_FILE, DISCOVERY_FILE, REPORT_FILE),
    "distill": (BEST_CHECKPOINT, DISTILLATION_FILE, MODEL_CARD_FILE, MODEL_CARD_PAGE),
    "gallery_build": ("images.gallery",),
    "bench_engine": ("benchmark.json",),
    "embed": (VECTORS_FILE,),
    "calibrate": ("the gallery, in place", "<gallery>_card.json and .md"),
    **dict.fromkeys(("gallery_add", "gallery_remove", "gallery_rename", "gallery_merge"), ("the gallery, in place",)),
    "gallery_copy": ("the copy",),
    "export_maps": ("export_maps.output",),
    "inspect_learn": ("inspect_learn.output",),
    "serve": ("the service's folder: store, images, a new gallery",),
    "demo": (REPORT_FILE, "frozen/, train/, trained/, inference/, export/"),
}  # fmt: skip
_EVERY_RUN = (STATUS_FILE, EXPERIMENT_FILE, RECORD_FILE)


def _action_info(action: str) -> dict[str, Any]:
    fields = {
        name: {"takes": takes, "optional": optional} for name, (takes, optional) in INPUTS.get(action, {}).items()
    } | {
        path: {"takes": node.facts["takes"], "optional": "mandatory" not in node.facts}
        for path, node in fields_of(action).items() if "takes" in node.facts
    }  # fmt: skip
    info: dict[str, Any] = {"command": f"unalike {command_of(action)} -e {{spec}}"}
    if action in JOB_ACTIONS:
        info["job"] = f"unalike job create {action} -e {{spec}} --parent {{parent_job_id}}"
    info |= {
        "config_format": "yaml",
        "schema": f"../schemas/{action}.schema.json",
        "spec_template": f"spec_template_{action}.yaml",
    }
    if action in DEPLOY:
        info["deploy_spec_template"] = f"spec_template_deploy_{action}.yaml"
    info["inputs"] = fields
    if action in ONE_OF:
        info["one_of"] = list(ONE_OF[action])
    return info | {"outputs": [*(() if action in FOLDERLESS_ACTIONS else _EVERY_RUN), *OUTPUTS.get(action, ())]}


def _spec_params(action: str) -> dict[str, str]:
    """Field -> the function that fills it in a job, as in TAO's file."""
    return {rule.field: rule.function for rule in FIELD_RULES if rule.action in (EVERY, action)}


def _spec_param_parents(action: str) -> dict[str, list[str]]:
    """Field -> the parent actions for which a job's spec is completed by it."""
    return {rule.field: list(rule.parents) for rule in FIELD_RULES if rule.action in (EVERY, action) and rule.parents}


def skill_info() -> dict[str, Any]:
    """The content of ``references/skill_info.yaml``."""
    shorthand: dict[str, Any] = dict(SHORTHAND)
    for key, (actions, otherwise) in BY_ACTION.items():
        shorthand[key] = {**{action: f"{action}.{key}" for action in actions}, "otherwise": f"{otherwise}.{key}"}
    return {
        "name": NAME,
        "version": __version__,
        "network_arch": "ml_recog",
        "automl_enabled": True,
        "automl_policy": {
            "default": "auto",
            "values": ["auto", "on", "off"],
            "of": "the run alone; this file stays as it is",
        },
        "monitoring_metric": {
            "train": "val Precision at Rank 1",
            "evaluate": "test Precision at Rank 1",
            "direction": "max",
        },
        "gpu_spec_key": "train.num_gpus",
        "job_statuses": list(STATUSES),
        "actions": {action: _action_info(action) for action in ACTIONS},
        "data_sources": {action: dict(fields) for action, fields in DATA_SOURCES.items()},
        "spec_params": {action: _spec_params(action) for action in JOB_ACTIONS},
        "spec_param_parents": {action: _spec_param_parents(action) for action in JOB_ACTIONS},
        "spec_shorthand_keys": shorthand,
    }


def package_files() -> dict[str, str]:
    """Relative path -> content of every generated file of the skill."""
    text = yaml.safe_dump(skill_info(), sort_keys=False, allow_unicode=True, width=120)
    return schema_files() | {INFO: f"# Generated from the declarations: unalike schema\n{text}"}


def write_package(directory: str | Path | None = None) -> list[Path]:
    """Write the generated files below ``directory`` (default: the skill of this installation); returns their paths."""
    root = FOLDER if directory is None else expand_home(directory)
    paths = []
    for name, content in package_files().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(root / name, content)
        paths.append(root / name)
    return paths


def install(directory: str | Path, *, overwrite: bool = False) -> Path:
    """Copy the skill to ``directory/unalike``; other files there stay as they are.

    Args:
        directory: Folder of skills.
        overwrite: Replace a skill that is installed there.

    Returns:
        Path of its SKILL.md.

    Raises:
        RunError: A skill is installed there and ``overwrite`` is not set, or the folder cannot be written.
    """
    target = expand_home(directory) / NAME
    files = {path.relative_to(FOLDER): path for path in sorted(FOLDER.rglob("*")) if path.is_file()}
    refuse_existing(target / SKILL, overwrite)
    try:
        for name, source in files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            write_text(target / name, source.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(
            f"{target} cannot be written: {error.strerror or error}", remedy="name another folder"
        ) from error
    return target / SKILL
