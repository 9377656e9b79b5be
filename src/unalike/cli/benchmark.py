"""The command bench-engine: latency and throughput of a model in every runtime of this machine."""

from unalike.cli.output import print_lines, show_result
from unalike.cli.section_options import Option, section_command
from unalike.cli.shared_options import AsJson, Overwrite
from unalike.spec import Experiment


@section_command(
    "bench_engine",
    arguments={"model": "MODEL"},
    options={
        "data": Option((), "DIR"),
        "output": Option(("-o", "--out"), "FILE"),
        "batches": Option((), "N,N"),
        "runtimes": Option((), "NAME,NAME"),
    },
)
def bench_engine(experiment: Experiment, overwrite: Overwrite = False, as_json: AsJson = False) -> None:
    """Measure a model on this machine: p50 and p99 latency of a call, images per second with and without decoding.

    Example: unalike bench-engine model.onnx --seconds 0.5
    """
    from unalike.actions.benchmark import format_table, run_benchmark

    result = run_benchmark(experiment, overwrite=overwrite)
    if as_json:
        show_result(result, True)
    else:
        print_lines(format_table(result.figures))
