"""The command distill: a small network learns the vectors of a larger one, or of several."""

from unalike.cli.next_steps import suggest
from unalike.cli.output import show_result
from unalike.cli.section_options import Option, section_command
from unalike.cli.shared_options import AsJson, Overwrite
from unalike.spec import Experiment


@section_command(
    "distill",
    arguments={"source": "DIR"},
    options={
        "teachers": Option(("-t", "--teacher"), "FILE", repeatable=True),
        "student": Option((), "FILE"),
        "further": Option((), "DIR"),
        "results_dir": Option(("-o", "--out"), "DIR"),
        "labeled": Option(("--labeled", "--labelled")),
    },
)
def distill(experiment: Experiment, overwrite: Overwrite = False, as_json: AsJson = False) -> None:
    """Teach a small network what a large one, or several, know: on images with or without labels.

    The student learns to give the teachers' vector of each image; how well it does is measured on images that are held out.
    Vectors of the teachers are computed once and kept in the cache.

    Example: unalike distill photographs/ --teacher runs/train/ml_model_best.pth -o runs/small

    Example: unalike distill photographs/ --labeled -t a.onnx -t b.onnx --further unsorted/ --minutes 30
    """
    from unalike.actions.distill import run_distillation

    result = run_distillation(experiment, overwrite=overwrite)
    show_result(result, as_json)
    if not as_json:
        suggest("distill", folder=result.results_dir, path=result.path, data=experiment.distill.source)
