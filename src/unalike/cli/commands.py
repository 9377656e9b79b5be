"""Every command with the module that defines it and its line in --help; a module is imported when its command runs."""

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup


class Command(NamedTuple):
    """Where a command is defined: a module of this package, and a function or a Typer of several commands in it.

    ``attribute`` is empty where it is the command's own name. ``aliases`` run the command too: TAO's names and earlier ones.
    """

    module: str
    summary: str
    attribute: str = ""
    aliases: tuple[str, ...] = ()


# Heading in --help -> its commands. The order is the order of --help.
GROUPS: dict[str, dict[str, Command]] = {
    "Train": {
        "train": Command("model_commands", "Train an embedding on a folder of images."),
        "discover": Command("discover", "Group unlabeled images into folders of similar ones."),
        "distill": Command("distill", "Teach a small network what a larger one, or several, know."),
        "automl": Command("automl", "Show the trials of a hyperparameter search.", "automl_app"),
    },
    "Use": {
        "gallery": Command("gallery", "Manage a gallery of reference images: build, add, remove, rename, merge, list."),
        "calibrate": Command("identify", 'Set the threshold of "unknown" of a gallery for a target false match rate.'),
        "identify": Command("identify", "Label images by a gallery: a class, ambiguous or unknown."),
        "inference": Command("model_commands", "Find the nearest reference classes of images."),
        "embed": Command("embed", "Write the vectors of images to a file."),
        "compare": Command("compare", "Align two images and show where they differ; folders and tables of pairs too."),
        "inspect": Command("inspect", "Find defects after fitting to good images alone: fit, run."),
        "verify": Command("verify", "Check that images show an approved asset, unaltered."),
    },
    "Ship": {
        "export": Command("model_commands", "Write a trained embedding as ONNX, checked against the network."),
        "quantize": Command("deploy", "Write a network in INT8, FP16 or BF16, compared with fp32."),
        "engine": Command("deploy", "Compile a network ahead for OpenVINO or ONNX Runtime.", "gen_engine", ("gen_engine", "gen-engine")),
        "gen-trt-engine": Command("deploy", "Build a TensorRT engine (NVIDIA GPU).", "gen_trt_engine", ("gen_trt_engine",)),
        "export-maps": Command("deploy", "Write a network that outputs its feature maps, as ONNX.", "export_maps"),
        "convert": Command("deploy", "Write a checkpoint of TAO's ml_recog as one of unalike."),
    },
    "Look": {
        "evaluate": Command("model_commands", "Measure a trained embedding on reference and query images."),
        "bench-engine": Command(
            "benchmark", "Measure latency and throughput of a model in every runtime of this machine.", "bench_engine"
        ),
        "trunks": Command("trunks", "List pretrained networks with facts; download weights, or carry them: fetch, pack, unpack.", "trunks_app"),
        "check": Command("specs", "Validate a spec or a folder, weights, extras and devices without training."),
        "keys": Command("specs", "List the keys of specs, those that match a word, with defaults and bounds."),
        "default-specs": Command("specs", "Write a commented spec with every default.", "default_specs", ("default_specs",)),
        "schema": Command("specs", "Print an action's JSON Schema, or write all schemas and templates."),
    },
    "Operate": {
        "serve": Command("serve", "Answer over HTTP: identify, embed, inspect, verify, compare; enroll and correct."),
        "improve": Command("improve", "Train on the corrections of a service, and promote what is not worse; or return to the former model."),
        "job": Command(
            "jobs", "Run actions as jobs: create, list, show, logs, wait, cancel, pause, resume, delete.", "job_app"
        ),
        "skill": Command("skill", "Install or print the skill, instructions for agents: install, show.", "skill_app"),
        "demo": Command("model_commands", "Train on rendered brand marks, and recognize other brands."),
    },
}  # fmt: skip
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
ALIASES = {alias: name for name, command in COMMANDS.items() for alias in command.aliases}


def is_command(name: str) -> bool:
    """Whether the program has a command of this name or alias."""
    return name in COMMANDS or name in ALIASES


def load_command(name: str) -> Any:
    """The click command of one of COMMANDS or ALIASES: its module is imported and its options are built now."""
    name = ALIASES.get(name, name)
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
        return load_command(cmd_name) if is_command(cmd_name) else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the tables of commands into --help, one for each heading of GROUPS, all with one width of names."""
        width = max(map(len, COMMANDS))
        for heading, commands in GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), entry.summary) for name, entry in commands.items()])
