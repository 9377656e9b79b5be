"""From a model's file to what embeds with it: an exported network without torch, a checkpoint with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unalike import progress
from unalike.data.view import View
from unalike.engines.protocol import Engine
from unalike.errors import DeviceError, MissingExtra, ModelError


@dataclass(frozen=True)
class OpenModel:
    """An engine, the view its images must have, the classes that it was trained on, and its file.

    ``trunk``, ``mean`` and ``std`` (scale 0..1) say what the network is and how its images are normalised.
    """

    engine: Engine
    view: View
    classes: tuple[str, ...]
    source: Path
    trunk: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def present(path: str | Path) -> Path:
    """The path of a model's file. Raises ModelError when there is none."""
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"there is no model file {path}", expected="a checkpoint (.pth) or an exported model (.onnx)")
    return path


def open_model(
    path: str | Path,
    *,
    runtime: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    view: View | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    gpu: int = 0,
    images: int | None = None,
    quiet: bool = True,
) -> OpenModel:
    """An exported ``.onnx`` or a training checkpoint ``.pth`` (needs the extra ``train``).

    ``gpu``: the one that a checkpoint runs on where there are any and the runtime is auto or torch. ``images``: how many
    will be embedded, where that is known; for a few, tracing a checkpoint does not pay. The engine chosen is
    printed unless ``quiet``. ``view``, ``mean`` and ``std`` are for networks that were exported elsewhere and do not carry them. Raises ModelError
    for what is no model, WeightsError, DeviceError for a runtime or precision that is not to be had, MissingExtra.
    """
    path = present(path)
    if path.suffix == ".onnx":
        engine = _exported(path, runtime, precision, threads, mean, std)
        facts = engine.facts
        shown = view or (View.from_dict(facts.view) if facts.view else View(*engine.input_size))
        opened = OpenModel(engine, shown, tuple(facts.classes), path, facts.trunk, facts.mean, facts.std)
        if not quiet:
            told = engine.describe()
            progress.say(f"engine: {told['runtime']} {told['precision']} on {told['device']}", once=True)
    elif path.suffix in (".pth", ".ckpt"):
        opened = _checkpoint(path, runtime, precision, threads, view, gpu, images, quiet)
    else:
        raise ModelError(f"{path.name}: unknown kind of model", expected=".onnx or .pth")
    if (opened.view.height, opened.view.width) != tuple(opened.engine.input_size):
        size = opened.engine.input_size
        raise ModelError(f"a view of {opened.view.height} x {opened.view.width}", expected=f"{size} as the network")
    return opened


def _exported(
    path: Path,
    runtime: str,
    precision: str,
    threads: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Any:
    """OpenVINO where it is installed, else ONNX Runtime; one asked for by name is obeyed or an error."""
    from unalike.engines.onnx_engine import OnnxEngine
    from unalike.engines.openvino_engine import OpenVinoEngine

    if runtime not in ("auto", "openvino", "onnxruntime"):
        raise DeviceError(
            f"runtime {runtime!r} for {path.name}",
            expected="auto, openvino or onnxruntime",
            remedy="give the checkpoint (.pth) to run in torch",
        )
    if runtime != "onnxruntime":
        try:
            return OpenVinoEngine(path, precision=precision, threads=threads, mean=mean, std=std)
        except (MissingExtra, ModelError) as error:
            if runtime == "openvino":
                raise
            progress.say(f"openvino is passed over: {error}", once=True)
    if precision not in ("auto", "fp32"):
        raise DeviceError(f"precision {precision} with onnxruntime", expected="fp32", remedy="or use runtime openvino")
    return OnnxEngine(path, threads=threads, mean=mean, std=std)


def _checkpoint(
    path: Path, runtime: str, precision: str, threads: int | None, view: View | None, gpu: int,
    images: int | None, quiet: bool,
) -> OpenModel:  # fmt: skip
    # The one reach from the use branch into the training branch: a checkpoint needs torch in any case.
    from unalike.deploy.choose import engine_for, to_gpu
    from unalike.model.checkpoint import load_embedder

    embedder, meta = load_embedder(path)
    facts = meta["facts"]
    to_gpu(embedder, runtime, gpu)
    shown = view or View.from_dict(facts["view"])
    engine = engine_for(
        embedder,
        mean=facts["mean"],
        std=facts["std"],
        view=shown,
        runtime=runtime,
        precision=precision,
        threads=threads,
        images=images,
        quiet=quiet,
    )
    known = facts.get("trunk", ""), tuple(facts["mean"]), tuple(facts["std"])
    return OpenModel(engine, shown, tuple(meta["classes"]), path, *known)
