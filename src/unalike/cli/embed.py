"""The command embed: the vectors of images are written to a file."""

from unalike.cli.output import show_result
from unalike.cli.section_options import Option, section_command
from unalike.cli.shared_options import AsJson, Overwrite, Resume
from unalike.spec import Experiment


@section_command(
    "embed",
    arguments={"source": "DIR"},
    options={
        "output": Option(("-o", "--out"), "DEST"),
        "model": Option(("-m", "--model"), "FILE"),
        "labeled": Option(("--labeled", "--labelled")),
    },
)
def embed(
    experiment: Experiment, resume: Resume = False, overwrite: Overwrite = False, as_json: AsJson = False
) -> None:
    """Write the vectors of images with their paths and, with --labeled, their classes.

    A folder in place of a file gets Parquet shards: for sets that do not fit into memory, also on a Ray cluster. --resume
    goes on with an interrupted run.

    Example: unalike embed photographs/ -o vectors.npz -m model.onnx

    Example: unalike embed s3://shop/photographs -o s3://shop/vectors/ -m model.onnx --cluster ray
    """
    from unalike.actions.embed import run_embedding

    show_result(run_embedding(experiment, resume=resume, overwrite=overwrite), as_json)
