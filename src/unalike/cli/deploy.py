"""The commands that make a network ready for another machine: quantize, engines, export-maps, bench-engine."""

from typing import Annotated

import typer

from unalike.cli.models import act
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
    """Write a network in fewer bits as ONNX; layers that lose most stay in higher precision until the goal is met.

    Example: unalike quantize photographs/ quantize.onnx_file=model.onnx
    """
    act("quantize", arguments, spec, results_dir, overwrite=overwrite, as_json=as_json, verbose=verbose, quiet=quiet)


def gen_engine(
    arguments: Arguments = None, spec: SpecFile = None, results_dir: ResultsDir = None, overwrite: Overwrite = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write OpenVINO IR (fp32, fp16, bf16, int8) or an ONNX file optimised for this machine's CPU.

    Example: unalike gen_engine photographs/ gen_engine.onnx_file=model.onnx gen_engine.data_type=INT8
    """
    act("gen_engine", arguments, spec, results_dir, overwrite=overwrite, as_json=as_json, verbose=verbose, quiet=quiet)


def gen_trt_engine(
    arguments: Arguments = None, spec: SpecFile = None, results_dir: ResultsDir = None, overwrite: Overwrite = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Build a TensorRT engine from an ONNX file; TensorRT 10 or 11, strongly typed.

    Example: unalike gen_trt_engine -e spec.yaml gen_trt_engine.onnx_file=model.onnx
    """
    act(
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
        str | None, typer.Option(metavar="HxW", help="Of its images; if unset, the model's own.")
    ] = None,
    no_vector: Annotated[bool, typer.Option("--no-vector", help="Maps alone: what lies above them is left out.")] = False,
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


def bench_engine(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A .pth, .onnx, .xml or .engine.")],
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="Images to decode; if unset, made-up JPEGs of 640 x 480.")
    ] = None,
    batches: Annotated[str, typer.Option(metavar="N,N", help="Images a call.")] = "1,8,32",
    seconds: Annotated[float, typer.Option(min=0.01, help="How long each measurement lasts.")] = 2.0,
    runtimes: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Only these; if unset, all that can run the model.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU cores that an engine may use.")] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="FILE", help="Write the figures there as JSON.")] = None,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Measure a model on this machine: p50 and p99 of a call, images a second, decoding apart and included."""
    set_verbosity(verbose, quiet)
    import unalike
    from unalike.actions.benchmark import table

    result = unalike.bench_engine(
        model, data=data, batches=batches, seconds=seconds, runtimes=runtimes, threads=threads, output=out
    )
    if as_json:
        show_result(result, True)
    else:
        print(table(result.figures))
