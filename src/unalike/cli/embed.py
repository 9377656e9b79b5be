"""The command embed: the vectors of images are written to a file."""

from unalike.cli.output import show_result
from unalike.cli.section_options import Option, section_command
from unalike.cli.shared_options import AsJson, Overwrite
from unalike.spec import Experiment


@section_command(
    "embed",
    arguments={"source": "DIR"},
    options={
        "output": Option(("-o", "--out"), "FILE"),
        "model": Option(("-m", "--model"), "FILE"),
        "labeled": Option(("--labeled", "--labelled")),
    },
)
def embed(experiment: Experiment, overwrite: Overwrite = False, as_json: AsJson = False) -> None:
    """Write the vectors of images with their paths and, with --labeled, their classes.

    Example: unalike embed photographs/ -o vectors.npz -m model.onnx
    """
    from unalike.actions.embed import run_embedding

    show_result(run_embedding(experiment, overwrite=overwrite), as_json)
