"""The commands quantize, gen_engine, gen_trt_engine, export-maps and convert, which write a network in another format."""

from typing import Annotated

import typer

from unalike.cli.model_commands import run_action
from unalike.cli.next_steps import suggest
from unalike.cli.output import show_result
from unalike.cli.section_options import Flag, Option, section_command
from unalike.cli.shared_options import (
    AsJson,
    ModelArguments,
    OutputFile,
    Overwrite,
    Quiet,
    ResultsDir,
    SpecFile,
    Verbose,
    set_verbosity,
    split_overrides,
)
from unalike.errors import SpecError
from unalike.spec.export_maps import ExportMaps


def quantize(
    arguments: ModelArguments = None, output: OutputFile = None, spec: SpecFile = None, results_dir: ResultsDir = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write a network in fewer bits as ONNX; layers that lose most keep a higher precision until the target is met.

    Examples: unalike quantize model.onnx photographs/   |   unalike quantize runs/latest photographs/ quantize.data_type=FP16
    """
    run_action(
        "quantize", arguments, spec, results_dir, overwrite=overwrite, as_json=as_json, verbose=verbose, quiet=quiet,
        fields={"quantize.output": output},
    )  # fmt: skip


def gen_engine(
    arguments: ModelArguments = None, output: OutputFile = None, spec: SpecFile = None, results_dir: ResultsDir = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write OpenVINO IR (fp32, fp16, bf16, int8) or an ONNX file optimized for this machine's CPU.

    Examples: unalike engine model.onnx photographs/   |   unalike engine model.onnx photographs/ gen_engine.data_type=INT8
    """
    run_action(
        "gen_engine", arguments, spec, results_dir, overwrite=overwrite, as_json=as_json, verbose=verbose, quiet=quiet,
        fields={"gen_engine.engine": output},
    )  # fmt: skip


def gen_trt_engine(
    arguments: ModelArguments = None, output: OutputFile = None, spec: SpecFile = None, results_dir: ResultsDir = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Build a TensorRT engine from an ONNX file; TensorRT 10 or 11, strongly typed.

    Examples: unalike gen-trt-engine model.onnx   |   unalike gen_trt_engine -e spec.yaml gen_trt_engine.onnx_file=model.onnx
    """
    run_action(
        "gen_trt_engine", arguments, spec, results_dir, overwrite=overwrite, as_json=as_json, verbose=verbose,
        quiet=quiet, fields={"gen_trt_engine.trt_engine": output},
    )  # fmt: skip


@section_command(
    "export_maps",
    arguments={"source": "MODEL"},
    options={"output": Option(("-o", "--out"), "FILE"), "stages": Option((), "S,S"), "size": Option((), "HxW")},
    flags=(Flag("--no-vector", "vector", False, "Write the feature maps alone, without the layers above them."),),
    section=ExportMaps,
)
def export_maps(settings: ExportMaps, as_json: AsJson = False) -> None:
    """Write a trunk's feature maps (and its vector) as ONNX, for inspection and comparison without torch.

    Example: unalike export-maps pretrained --size 320 --no-vector -o maps.onnx
    """
    from unalike.actions.export import run_export_maps

    show_result(run_export_maps(settings), as_json)
    if not as_json:
        suggest("export_maps", path=settings.output)


def convert(
    arguments: Annotated[
        list[str], typer.Argument(metavar="CHECKPOINT [FILE] [KEY=VALUE]...", help="A checkpoint of TAO, and the file to write.")
    ],
    spec: SpecFile = None,
    output: Annotated[
        str | None, typer.Option("-o", "--out", metavar="FILE", help="The file to write; <name>_unalike.pth if unset.")
    ] = None,
    overwrite: Overwrite = False, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Write a checkpoint of TAO's ml_recog (Lightning) as one of unalike, with the network of the spec's section model.

    Example: unalike convert ml_model_best.pth -e spec.yaml -o ours.pth
    """
    set_verbosity(verbose, quiet)
    files, overrides = split_overrides(arguments)
    if not 1 <= len(files) <= (2 if output is None else 1):
        raise SpecError(
            f"{len(files)} files for convert", expected="a checkpoint of TAO, and at most one file to write"
        )
    import unalike

    target = output if output is not None else files[1] if len(files) == 2 else None
    result = unalike.convert(files[0], target, spec, overrides, overwrite=overwrite)
    show_result(result, as_json)
    if not as_json:
        suggest("convert", path=result.path)
