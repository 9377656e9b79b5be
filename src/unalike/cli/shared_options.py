"""Options and arguments that several commands share, and parsing of their values."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from unalike import progress
from unalike.errors import SpecError
from unalike.storage.downloads import ALWAYS, NEVER, set_policy

# A positional argument that holds "=" after a dotted key is an override, any other is the data, as is a path that exists.
OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_0-9]\w*)*=", re.ASCII)

Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[DATA] [KEY=VALUE]...", help="A data folder, and overrides such as train.num_epochs=20."),
]
ModelArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL] [DATA] [KEY=VALUE]...",
        help="A model's file, or the folder of the run that wrote it; a data folder; overrides such as evaluate.topk=5.",
    ),
]
Reference = Annotated[
    str | None, typer.Option("--reference", metavar="DATA", help="Reference images: dataset.val_dataset.reference.")
]
Query = Annotated[str | None, typer.Option("--query", metavar="DATA", help="Query images: dataset.val_dataset.query.")]
OutputFile = Annotated[str | None, typer.Option("-o", "--out", metavar="FILE", help="File to write.")]
SpecFile = Annotated[str | None, typer.Option("-e", "--spec", metavar="FILE", help="Spec file (YAML).")]
ResultsDir = Annotated[
    str | None,
    typer.Option(
        "-r",
        "--results-dir",
        metavar="DIR",
        help="Root of the results: DIR/<action>; or the folder of a run of this action.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in the results folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in the results folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Print more; show tracebacks.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]

Download = Annotated[bool, typer.Option("--download", help="Download pretrained weights of any size without asking.")]
Offline = Annotated[
    bool, typer.Option("--offline", help="Use no network: of pretrained weights, those on this machine alone.")
]


class GroupWithDefault(TyperGroup):
    """A group of commands, of which ``default_command`` runs where the arguments begin with none of their names."""

    default_command = ""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, with the default command before them where they name none."""
        return super().parse_args(ctx, args if args and args[0] in self.commands else [self.default_command, *args])


# Exit code of --exit-code and --strict where the answer is no: different, defective, unknown.
EXIT_NO = 3

# ---- parsing ----


def parse_arguments(arguments: Sequence[str] | None) -> tuple[str | None, list[str]]:
    """Split positional arguments into the data and the overrides ``key=value``.

    Raises:
        SpecError: There are two data folders.
    """
    others, overrides = split_overrides(arguments)
    if len(others) > 1:
        raise SpecError(f"two data folders, {others[0]!r} and {others[1]!r}", expected="one",
                        remedy="write overrides as key=value, without blanks around '='")  # fmt: skip
    return (others[0] if others else None), overrides


def refuse_empty(values: Mapping[str, object]) -> None:
    """Raise SpecError for a value of the command line that is empty; in a spec an empty text means unset, here a mistake.

    Args:
        values: Name of an option, argument or field -> its value, or a list of values.
    """
    for name, value in values.items():
        if value == "" or (isinstance(value, list) and "" in value):
            raise SpecError(f"{name} is empty", expected="a value",
                            remedy="leave it out; a variable of the shell that is not set is empty")  # fmt: skip


def split_overrides(arguments: Sequence[str] | None, prefix: str = "") -> tuple[list[str], list[str]]:
    """Split positional arguments into values and overrides.

    ``key=value`` is a value where a file of that name exists, or where it does not begin with ``prefix``.
    """
    values: list[str] = []
    overrides: list[str] = []
    for argument in arguments or ():
        is_key = argument.startswith(prefix) and OVERRIDE.match(argument) is not None
        is_override = is_key and not os.path.exists(argument)
        (overrides if is_override else values).append(argument)
    return values, overrides


def flag_overrides(
    action: str, overrides: Sequence[str], results_dir: str | None, policy: str | None, *,
    minutes: float | None = None, trials: int | None = None, fields: Mapping[str, str | None] | None = None,
) -> list[str]:  # fmt: skip
    """Overrides followed by those of the flags, which take precedence; a budget (minutes or trials) turns automl on.

    Args:
        action: The action.
        overrides: ``key=value`` of the command line.
        results_dir, policy, minutes, trials: Values of the options of these names.
        fields: Field -> value of further options; None is an option that was not given.
    """
    from unalike.spec.reading import yaml_line

    flags = [f"{path}={yaml_line(value)}" for path, value in (fields or {}).items() if value is not None]
    if results_dir is not None and _is_run_of(action, results_dir):
        flags.append(f"{action}.results_dir={yaml_line(results_dir)}")
    elif results_dir is not None:
        flags.append(f"results_dir={yaml_line(results_dir)}")
        if not any(override.startswith(f"{action}.results_dir=") for override in overrides):
            flags.append(f"{action}.results_dir=null")  # else a spec's own folder would win over the flag in silence
    budget = {"automl.minutes": minutes, "automl.trials": trials}
    flags += [f"{path}={value}" for path, value in budget.items() if value is not None]
    if policy is None and any(value is not None for value in budget.values()):
        policy = "auto"
    if policy is not None:
        flags.append(f"automl_policy={policy}")
    return [*overrides, *flags]


def _is_run_of(action: str, folder: str) -> bool:
    """Whether a folder holds a run of the action itself, and is not the root of one (``folder/<action>``)."""
    from unalike.runs.record import recorded_action

    return recorded_action(Path(folder)) == action and not (Path(folder) / action).exists()


def set_downloads(download: bool, offline: bool) -> None:
    """State what --download and --offline of a command mean for this process and those that it starts.

    Raises:
        SpecError: Both are set.
    """
    if download and offline:
        raise SpecError("--download and --offline together", remedy="choose one")
    set_policy(ALWAYS if download else NEVER if offline else "")


def set_verbosity(verbose: bool, quiet: bool) -> None:
    """Set what is printed on standard error: 2 with -v, 0 (errors alone) with -q, else 1."""
    progress.set_verbosity(0 if quiet else 2 if verbose else 1)
