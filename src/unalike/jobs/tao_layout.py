"""The data of each action in the layout of TAO's retail example: seven archives below one root."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ROOT = "metric_learning_recognition/retail-product-checkout-dataset_classification_demo"
# Action -> field -> archive below the root.
DATA_SOURCES: Mapping[str, Mapping[str, str]] = {
    "train": {"dataset.train_dataset": f"{_ROOT}/known_classes/train.tar.gz",
              "dataset.val_dataset.reference": f"{_ROOT}/known_classes/reference.tar.gz",
              "dataset.val_dataset.query": f"{_ROOT}/known_classes/val.tar.gz"},
    "evaluate": {"dataset.val_dataset.reference": f"{_ROOT}/unknown_classes/reference.tar.gz",
                 "dataset.val_dataset.query": f"{_ROOT}/unknown_classes/test.tar.gz"},
    "inference": {"dataset.val_dataset.reference": f"{_ROOT}/unknown_classes/reference.tar.gz",
                  "inference.input_path": f"{_ROOT}/unknown_classes/test.tar.gz"},
    **{action: {f"{prefix}calibration.cal_image_dir": f"{_ROOT}/known_classes/test.tar.gz"}
       for action, prefix in (("gen_trt_engine", "gen_trt_engine.tensorrt."), ("quantize", "quantize."),
                              ("gen_engine", "gen_engine."))},
}  # fmt: skip


def data_sources(action: str, root: str) -> dict[str, Any]:
    """Overrides that set the data fields of an action to TAO's layout below ``root``, a folder or an address."""
    sources: dict[str, Any] = {}
    for path, archive in DATA_SOURCES.get(action, {}).items():
        address = f"{root.rstrip('/')}/{archive}"
        sources[path] = [address] if path.endswith("cal_image_dir") else address
    return sources
