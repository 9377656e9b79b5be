"""What TAO's own specs hold beyond its field table: carried over where something here does the same, else said in a line.

The keys are those of the example specs that NVIDIA publishes for this network (tao_tutorials, tao_pytorch_backend and
tao_deploy, seen 2026-11-26) and of its agent skill; some of them TAO itself has stopped reading. Any other unknown key
stays an error, with close spellings: a setting that vanishes when it is misspelt is worse than a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unalike.progress import say
from unalike.spec.faults import Fault
from unalike.spec.fields import declared_fields
from unalike.spec.reading import shown

# TAO's key -> the field that does the same here.
SPELLED: Mapping[str, str] = {
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
# TAO's key -> why it is left out, or what does its work.
LEFT: Mapping[str, str] = {
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


def carry_over(tree: dict[Any, Any]) -> list[Fault]:
    """Respell or take out TAO's extra keys in ``tree``, a line each; the faults are keys that stand there twice."""
    faults = []
    for old, new in SPELLED.items():
        value, found = _take(tree, old)
        if not found:
            continue
        if not _put(tree, new, value):
            faults.append(Fault(new, f"given twice, as {old} and as {new}; keep one of the two"))
        else:
            say(f"{old} is read as {new}", once=True)
    for path, why in LEFT.items():
        value, found = _take(tree, path)
        if found:
            say(f"{path}: {shown(value)} is not used here: {why}", once=True)
    for name in _DEVICES:
        _count_devices(tree, name)
    return faults


def _place(tree: dict[Any, Any], path: str) -> tuple[Any, str]:
    *parents, name = path.split(".")
    place: Any = tree
    for part in parents:
        place = place.get(part) if isinstance(place, dict) else None
    return place, name


def _take(tree: dict[Any, Any], path: str) -> tuple[Any, bool]:
    place, name = _place(tree, path)
    if path in declared_fields() or not isinstance(place, dict) or name not in place:
        return None, False
    return place.pop(name), True


def _put(tree: dict[Any, Any], path: str, value: Any) -> bool:
    """Write a value where nothing else stands; whether it was written."""
    *parents, name = path.split(".")
    place: Any = tree
    for part in parents:
        inner = place.setdefault(part, {})
        if inner is None:
            inner = place[part] = {}
        if not isinstance(inner, dict):
            return True  # the section itself is faulty, and that will be said
        place = inner
    if name in place and place[name] != value:
        return False
    place[name] = value
    return True


def _count_devices(tree: dict[Any, Any], name: str) -> None:
    """TAO's rule where the two device fields differ: the larger number counts; its default list says nothing."""
    part = tree.get(name)
    if not isinstance(part, dict):
        return
    ids, count = part.get("gpu_ids"), part.get("num_gpus", 1)
    if not isinstance(ids, list) or not isinstance(count, int) or isinstance(count, bool):
        return
    if len(ids) > count > 0:
        say(f"{name}.num_gpus is taken to be {len(ids)}, as many as {name}.gpu_ids names", once=True)
        part["num_gpus"] = len(ids)
    elif ids == [0] and count > 1:
        del part["gpu_ids"]
