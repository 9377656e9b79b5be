"""Keys of TAO's specs that are not in its field table: renamed where a field here does the same, else reported as unused.

The keys are those of the example specs that NVIDIA publishes for this network (tao_tutorials, tao_pytorch_backend and
tao_deploy, as of 2026-11-26) and of its agent skill; TAO itself no longer reads some of them. Any other unknown key is an
error with close spellings, since a misspelt setting must not be ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unalike.progress import say
from unalike.spec.faults import Fault
from unalike.spec.fields import declared_fields
from unalike.spec.reading import format_value

# TAO's key -> the field that does the same here.
RENAMED_KEYS: Mapping[str, str] = {
    "dataset.color_augmentation.enable": "dataset.color_augmentation.enabled",
    "dataset.gaussian_blur.enable": "dataset.gaussian_blur.enabled",
    "train.grad_clip": "train.clip_grad_norm",
    "train.pretrained_model_path": "model.pretrained_model_path",
    "num_gpus": "train.num_gpus",
    "gpu_ids": "train.gpu_ids",
    "num_nodes": "train.num_nodes",
}
_FROM_MODEL = "it is read from the checkpoint or the ONNX file"
_REFERENCE = "name reference images as dataset.val_dataset.reference"
_QUERIES = "name queries as dataset.val_dataset.query, or what is to be recognized as inference.input_path"
# TAO's key -> why it is not used, or what to use instead.
UNUSED_KEYS: Mapping[str, str] = {
    "model.pretrain_choice": "pretrained weights are decided by model.pretrained and model.pretrained_trunk_path",
    "dataset.test_dataset": _REFERENCE,
    "dataset.reference_dataset": _REFERENCE,
    "dataset.query_dataset": _QUERIES,
    "dataset.batch_size": "write train.batch_size, evaluate.batch_size or inference.batch_size",
    "train.distributed_strategy": "several GPUs train as one, whatever the strategy",
    **{f"{action}.input_{name}": _FROM_MODEL for action in ("export", "gen_trt_engine")
       for name in ("channel", "channels", "width", "height")},
    "gen_trt_engine.tensorrt.force_ptq": "INT8 is always quantized after training here",
}  # fmt: skip
_DEVICES = ("train", "evaluate", "inference")


def translate_tao_keys(tree: dict[Any, Any]) -> list[Fault]:
    """Rename or remove TAO's extra keys in ``tree``, with a message for each; the faults are keys that are set twice."""
    faults = []
    for old, new in RENAMED_KEYS.items():
        value, is_set = _pop(tree, old)
        if not is_set:
            continue
        if not _set(tree, new, value):
            faults.append(Fault(new, f"given twice, as {old} and as {new}; keep one of the two"))
        else:
            say(f"{old} is read as {new}", once=True)
    for path, reason in UNUSED_KEYS.items():
        value, is_set = _pop(tree, path)
        if is_set:
            say(f"{path}: {format_value(value)} is not used here: {reason}", once=True)
    for name in _DEVICES:
        _count_devices(tree, name)
    return faults


def _parent_of(tree: dict[Any, Any], path: str) -> tuple[Any, str]:
    *parents, name = path.split(".")
    parent: Any = tree
    for part in parents:
        parent = parent.get(part) if isinstance(parent, dict) else None
    return parent, name


def _pop(tree: dict[Any, Any], path: str) -> tuple[Any, bool]:
    parent, name = _parent_of(tree, path)
    if path in declared_fields() or not isinstance(parent, dict) or name not in parent:
        return None, False
    return parent.pop(name), True


def _set(tree: dict[Any, Any], path: str, value: Any) -> bool:
    """Set a value unless another one is set; returns whether no other one was."""
    *parents, name = path.split(".")
    parent: Any = tree
    for part in parents:
        inner = parent.setdefault(part, {})
        if inner is None:
            inner = parent[part] = {}
        if not isinstance(inner, dict):
            return True  # the section itself is invalid, which is reported later
        parent = inner
    if name in parent and parent[name] != value:
        return False
    parent[name] = value
    return True


def _count_devices(tree: dict[Any, Any], name: str) -> None:
    """TAO's rule where the two device fields differ: the larger number is used; its default list is ignored."""
    part = tree.get(name)
    if not isinstance(part, dict):
        return
    ids, count = part.get("gpu_ids"), part.get("num_gpus", 1)
    if not isinstance(ids, list) or not isinstance(count, int) or isinstance(count, bool):
        return
    if len(ids) > count > 0:
        say(f"{name}.num_gpus is set to {len(ids)}, the number of {name}.gpu_ids", once=True)
        part["num_gpus"] = len(ids)
    elif ids == [0] and count > 1:
        del part["gpu_ids"]
