"""Kinds of model files, and the runtimes that can run each."""

from __future__ import annotations

# Runtimes of an ONNX network and of a network in memory, which is traced for any but torch; the preferred one first.
ONNX_RUNTIMES = ("openvino", "onnxruntime")
NETWORK_RUNTIMES = ("torch", *ONNX_RUNTIMES)
# Suffix of a model file -> the runtimes that can run it, the preferred one first.
FILE_RUNTIMES = {
    ".onnx": ONNX_RUNTIMES,
    ".xml": ("openvino",),
    ".engine": ("tensorrt",),
    ".plan": ("tensorrt",),
    ".pth": NETWORK_RUNTIMES,
    ".ckpt": NETWORK_RUNTIMES,
}
SUFFIXES = tuple(FILE_RUNTIMES)
CHECKPOINTS = (".pth", ".ckpt")
EXPORTED = tuple(suffix for suffix in SUFFIXES if suffix not in CHECKPOINTS)
# Takes the place of a model's file: the best pretrained trunk that is installed; ``pretrained:NAME`` is that of a name.
PRETRAINED = "pretrained"


def is_pretrained(source: object) -> bool:
    """Whether a source names a pretrained trunk (``pretrained`` or ``pretrained:NAME``), not a file."""
    return str(source).partition(":")[0] == PRETRAINED
