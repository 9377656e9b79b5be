"""The commands quantize, gen_engine, gen_trt_engine and export-maps, which convert a network for deployment."""

from typing import Annotated

import typer

from unalike.cli.models import run_action
from unalike.cli.options import (
    Arguments,
    AsJson,
    Overwrite,
    Quiet,
    ResultsDir,
    SpecFile,
    Verbose,
    parse_size,
    parse_stages,
    set_verbosity,
    show_result,
)


def quantize(
    arguments: Arguments = None, spec: SpecFile = None, results_dir: ResultsDir = None, overwrite: Overwrite = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write a network in fewer bits as ONNX; layers that lose most keep a higher precision until the target is met.

    Example: unalike quantize photographs/ quantize.onnx_file=model.onnx
    """
    run_action(
        "quantize", arguments, spec, results_dir, overwrite=overwrite, as_json=as_json, verbose=verbose, quiet=quiet
    )


def gen_engine(
    arguments: Arguments = None, spec: SpecFile = None, results_dir: ResultsDir = None, overwrite: Overwrite = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write OpenVINO IR (fp32, fp16, bf16, int8) or an ONNX file optimized for this machine's CPU.

    Example: unalike gen_engine photographs/ gen_engine.onnx_file=model.onnx gen_engine.data_type=INT8
    """
    run_action(
        "gen_engine", arguments, spec, results_dir, overwrite=overwrite, as_json=as_json, verbose=verbose, quiet=quiet
    )


def gen_trt_engine(
    arguments: Arguments = None, spec: SpecFile = None, results_dir: ResultsDir = None, overwrite: Overwrite = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Build a TensorRT engine from an ONNX file; TensorRT 10 or 11, strongly typed.

    Example: unalike gen_trt_engine -e spec.yaml gen_trt_engine.onnx_file=model.onnx
    """
    run_action(
        "gen_trt_engine",
        arguments,
        spec,
        results_dir,
        overwrite=overwrite,
        as_json=as_json,
        verbose=verbose,
        quiet=quiet,
    )


def export_maps(
    source: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint (.pth), pretrained, or pretrained:NAME.")],
    output: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="maps.onnx")],
    stages: Annotated[
        str, typer.Option(metavar="S,S", help="Strides or names of the maps; auto: strides 8 and 16.")
    ] = "auto",
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Size of the images; if unset, the model's own.")
    ] = None,
    no_vector: Annotated[bool, typer.Option("--no-vector", help="Write the feature maps alone, without the layers above them.")] = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write a trunk's feature maps (and its vector) as ONNX, for inspection and comparison without torch.

    Example: unalike export-maps pretrained --size 320 --no-vector -o maps.onnx
    """
    set_verbosity(verbose, quiet)
    import unalike

    sides = parse_size(size)
    show_result(
        unalike.export_maps(source, output, stages=parse_stages(stages), size=sides, vector=not no_vector), as_json
    )
