"""Accuracy of 16 bits: worst cosines with fp32 over a folder of photographs, in every installed runtime.

    python benchmarks/sixteen_bits.py --data FOLDER [--trunks tf_efficientnet_lite0,resnet_50] [--onnx FILE ...]
        [--images N] [--forms ov-bf16,torch-bf16,typed-bf16,typed-fp16] [--without-onnxruntime] [--out DIR]

`ov-bf16` and `torch-bf16`: the float network under precision bf16. `typed-*`: what `quantize` writes for data_type BF16 or
FP16 with its own goal (worst cosine 0.999 on 64 images), in OpenVINO in the precision of the file, and in ONNX Runtime (bf16 emulated:
it has no kernels). Trunks come as installed, resnet_50 with random weights where no hub is reached, each with an untrained
head of 256. The layers that stay in fp32 are chosen on 64 images, the cosine is of all. Images are decoded once and kept in
memory (147 KB each at 224 px); each row is written as soon as it is known.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unalike import progress
from unalike.data.imageset import load_images
from unalike.data.preprocessing import Preprocessing
from unalike.data.view import View
from unalike.deploy.onnx_export import build_facts, trace
from unalike.deploy.onnx_graph import read_graph_facts, read_network, write_facts
from unalike.deploy.quantization.accuracy_table import cosines
from unalike.deploy.quantization.activation_ranges import CalibrationImages
from unalike.deploy.quantization.half_precision import emulate_bf16
from unalike.deploy.quantization.mixed_precision import QuantizationRequest, quantize_network
from unalike.engines.onnx_engine import OnnxEngine
from unalike.engines.openvino_engine import OpenVinoEngine
from unalike.engines.torch_engine import TorchEngine
from unalike.model.embedder import EmbedderConfig, create_embedder

FORMS = ("ov-bf16", "torch-bf16", "typed-bf16", "typed-fp16")


def build_network(name: str, onnx: Path | None, size: int) -> tuple[bytes, Any, Any]:
    """Return the float network's ONNX content, its facts, and its torch module or None."""
    if onnx is not None:
        content = onnx.read_bytes()
        return content, read_graph_facts(read_network(content, name), name, None, None), None
    pretrained = "auto" if "efficientnet_lite" in name else "false"
    module = create_embedder(EmbedderConfig(name, 256, 3, (size, size)), pretrained=pretrained).eval()
    facts = build_facts(module, Preprocessing(View(size, size), module.trunk.facts.mean, module.trunk.facts.std))
    return trace(module, (size, size), facts).SerializeToString(), facts, module


def open_engines(
    form: str, content: bytes, facts: Any, module: Any, images: CalibrationImages, onnxruntime: bool = True
) -> Iterator[tuple[str, Any]]:
    """Yield (name, engine) of one form."""
    if form == "ov-bf16":
        yield "OpenVINO bf16", OpenVinoEngine(content, precision="bf16")
    elif form == "torch-bf16" and module is not None:
        size = (facts.view["height"], facts.view["width"])
        yield "torch bf16", TorchEngine(module, facts.mean, facts.std, size, precision="bf16")
    elif form.startswith("typed"):
        kind = form.removeprefix("typed-")
        quantized = quantize_network(content, facts, images, QuantizationRequest(data_type=kind.upper()))
        name = f"typed {kind}, {len(quantized.kept)} nodes kept"
        yield f"{name}, OpenVINO", OpenVinoEngine(quantized.content)
        if not onnxruntime:
            return
        if kind == "bf16":
            wide = emulate_bf16(read_network(quantized.content, name))
            write_facts(wide, replace(facts, precision="bf16"))
            yield f"{name}, ONNX Runtime emulating", OnnxEngine(wide.SerializeToString())
        else:
            yield f"{name}, ONNX Runtime", OnnxEngine(quantized.content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of photographs")
    parser.add_argument("--trunks", default="tf_efficientnet_lite0")
    parser.add_argument("--onnx", type=Path, nargs="*", default=[])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, help="so many, evenly spread; unset, all")
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--without-onnxruntime", action="store_true", help="typed forms in OpenVINO alone")
    parser.add_argument("--out", type=Path, default=Path("runs/sixteen_bits"))
    options = parser.parse_args()
    if options.data is None:
        print("skipped: no data (give --data DIR)")
        return
    progress.set_verbosity(0)
    options.out.mkdir(parents=True, exist_ok=True)
    all_paths = load_images(options.data, labeled=False).paths
    paths = (
        list(all_paths[:: max(1, len(all_paths) // options.images)])[: options.images]
        if options.images
        else list(all_paths)
    )
    named = [(name, None) for name in options.trunks.split(",") if name] + [(str(f), f) for f in options.onnx]
    seen: tuple[View, np.ndarray] | None = None
    for name, file in named:
        content, facts, module = build_network(name, file, options.size)
        view = View.from_dict(facts.view)
        if seen is None or seen[0] != view:
            seen = (view, np.stack([view(path) for path in paths]))
        images = seen[1]
        exact = OpenVinoEngine(content, precision="fp32")(images)
        sample = np.random.default_rng(0).permutation(len(paths))[:64]
        calibration = CalibrationImages(images[sample], images[sample])
        for form in options.forms.split(","):
            for label, engine in open_engines(
                form, content, facts, module, calibration, not options.without_onnxruntime
            ):
                cosines_N = cosines(exact, engine(images))
                row = {"network": name, "form": label, "images": len(paths), "worst": round(float(cosines_N.min()), 5),
                       "worst of the 64": round(float(cosines_N[sample].min()), 5), "mean": round(float(cosines_N.mean()), 6),
                       "below 0.999": int((cosines_N < 0.999).sum())}  # fmt: skip
                print(json.dumps(row), flush=True)
                with (options.out / "sixteen_bits.jsonl").open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
