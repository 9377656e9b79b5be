"""Every command with the module that defines it and its line in --help; a module is imported when its command runs."""

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup


class Command(NamedTuple):
    """Where a command is defined: a module of this package, and a function or a Typer of several commands in it.

    ``attribute`` is empty where it is the command's own name.
    """

    module: str
    summary: str
    attribute: str = ""


# The order is the order of --help.
COMMANDS = {
    "train": Command("model_commands", "Train an embedding on a folder of images."),
    "evaluate": Command("model_commands", "Measure a trained embedding on reference and query images."),
    "inference": Command("model_commands", "Find the nearest reference classes of images."),
    "export": Command("model_commands", "Write a trained embedding as ONNX, checked against the network."),
    "embed": Command("embed", "Write the vectors of images to a file."),
    "gallery": Command("gallery", "Manage a gallery of reference images: build, add, remove, rename, merge, list."),
    "calibrate": Command("identify", 'Set the threshold of "unknown" of a gallery for a target false match rate.'),
    "identify": Command("identify", "Label images by a gallery: a class, ambiguous or unknown."),
    "compare": Command("compare", "Align two images and show where they differ; folders and tables of pairs too."),
    "inspect": Command("inspect", "Find defects after fitting to good images alone: fit, run."),
    "verify": Command("verify", "Check that images show an approved asset, unaltered."),
    "discover": Command("discover", "Group unlabeled images into folders of similar ones."),
    "quantize": Command("deploy", "Write a network in INT8, FP16 or BF16, compared with fp32."),
    "gen_engine": Command("deploy", "Compile a network ahead for OpenVINO or ONNX Runtime."),
    "gen_trt_engine": Command("deploy", "Build a TensorRT engine (NVIDIA GPU)."),
    "export-maps": Command("deploy", "Write a network that outputs its feature maps, as ONNX.", "export_maps"),
    "convert": Command("deploy", "Write a checkpoint of TAO's ml_recog as one of unalike."),
    "bench-engine": Command(
        "benchmark", "Measure latency and throughput of a model in every runtime of this machine.", "bench_engine"
    ),
    "check": Command("specs", "Validate a spec or a folder, weights, extras and devices without training."),
    "default_specs": Command("specs", "Write a commented spec with every default."),
    "schema": Command("specs", "Print an action's JSON Schema, or write all schemas and templates."),
    "job": Command(
        "jobs", "Run actions as jobs: create, list, show, logs, wait, cancel, pause, resume, delete.", "job_app"
    ),
    "automl": Command("automl", "Show the trials of a hyperparameter search.", "automl_app"),
    "skill": Command("skill", "Install or print the skill, instructions for agents: install, show.", "skill_app"),
    "demo": Command("model_commands", "Train on rendered brand marks, and recognize other brands."),
}


def load_command(name: str) -> Any:
    """The click command of one of COMMANDS: its module is imported and its options are built now."""
    entry = COMMANDS[name]
    target = getattr(import_module(f"unalike.cli.{entry.module}"), entry.attribute or name)
    if isinstance(target, typer.Typer):
        command: Any = typer.main.get_group(target)
    else:
        single = typer.Typer(rich_markup_mode=None, add_completion=False)
        single.command(name)(target)
        command = typer.main.get_command(single)
    command.name, command.short_help = name, entry.summary
    return command


class LazyGroup(TyperGroup):
    """The program as a group of COMMANDS, each loaded when it runs; --help shows their summaries without loading any."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, or None."""
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table of commands into --help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])
