"""Short names of fields in overrides."""

from __future__ import annotations

from unalike.spec.automl import SPELLINGS

# Short name -> dotted path, whatever the action.
SHORTHAND = {
    "num_epochs": "train.num_epochs",
    "val_batch_size": "train.val_batch_size",
    "eval_batch_size": "evaluate.batch_size",
    "infer_batch_size": "inference.batch_size",
    "trunk_learning_rate": "train.optim.trunk.base_lr",
    "embedder_learning_rate": "train.optim.embedder.base_lr",
    "feat_dim": "model.feat_dim",
    "input_width": "model.input_width",
    "input_height": "model.input_height",
    "resume_checkpoint": "train.resume_training_checkpoint_path",
    "trt_data_type": "gen_trt_engine.tensorrt.data_type",
    "cal_batch_size": "gen_trt_engine.tensorrt.calibration.cal_batch_size",
    "cal_batches": "gen_trt_engine.tensorrt.calibration.cal_batches",
}
# Short names of a field of the action's own section -> actions that have it, and the section for other actions.
BY_ACTION = {
    "batch_size": (("train", "evaluate", "inference", "export", "gen_trt_engine"), "train"),
    "trt_engine": (("evaluate", "inference", "gen_trt_engine"), "gen_trt_engine"),
}


def long_name(key: str, action: str) -> str:
    """The dotted path of a short name in this action; any other key is returned unchanged."""
    if key in BY_ACTION:
        actions, otherwise = BY_ACTION[key]
        return f"{action if action in actions else otherwise}.{key}"
    first, dot, rest = key.partition(".")
    if first in SPELLINGS:
        return f"{SPELLINGS[first]}{dot}{rest}"
    return SHORTHAND.get(key, key)
