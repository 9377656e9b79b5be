"""The commands job create, list, show, logs, wait, cancel, pause, resume and delete."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unalike.cli.next_steps import suggest
from unalike.cli.output import print_json, print_line, print_lines, print_piece
from unalike.cli.shared_options import Arguments, AsJson, Quiet, SpecFile, Verbose, parse_arguments, set_verbosity
from unalike.errors import RunError, SpecError
from unalike.progress import say
from unalike.spec.actions import action_of

if TYPE_CHECKING:
    from unalike.jobs import Job, Workspace

job_app = typer.Typer(rich_markup_mode=None, help="Actions as jobs, which run in the background, one after another.")

WorkspaceFolder = Annotated[
    str | None,
    typer.Option("-w", "--workspace", metavar="DIR", help="Folder of the jobs; $UNALIKE_WORKSPACE, else ./workspace."),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="A job's id, or the beginning of it.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Jobs' ids, or their beginnings.")]
WaitForParent = Annotated[bool, typer.Option("--wait-for-parent", help="Wait until the parent is complete.")]


def _open(workspace: str | None) -> "Workspace":
    from unalike.jobs.workspace import Workspace

    return Workspace(workspace)


def _show(job: "Job", as_json: bool) -> None:
    if as_json:
        print_json(job.to_dict())
    else:
        print_line(_line(job))


def _line(job: "Job") -> str:
    parent = f" of {job.parent_job_id}" if job.parent_job_id else ""
    note = f": {job.error or job.note}" if job.error or job.note else ""
    requested_text = f" ({job.requested} requested)" if job.requested else ""
    return f"{job.id}  {job.status:<8}  {job.action}{parent}{requested_text}{note}"


@job_app.command(short_help="Start an action as a job, completed from its parent.")
def create(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="train, evaluate, export, compare, inspect_fit, inspect_run, ...")],
    arguments: Arguments = None,
    spec: SpecFile = None,
    parent: Annotated[str | None, typer.Option(metavar="ID", help="The job whose model, network or engine is used.")] = None,
    wait_for_parent: WaitForParent = False,
    root: Annotated[
        str | None, typer.Option(metavar="DIR|URI", help="Root of TAO's layout of archives: fills the data fields.")
    ] = None,
    automl_policy: Annotated[
        str | None, typer.Option(metavar="auto|off", help="For a training: search for the best hyperparameters (the default), or not.")
    ] = None,
    where: Annotated[str, typer.Option(metavar="SCHEDULER", help="local, slurm, ray or kubernetes.")] = "local",
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Option of the scheduler, such as partition=gpu or image=NAME.")
    ] = None,
    at_once: Annotated[int | None, typer.Option(min=1, help="Local jobs that may run at once; stored in the workspace.")] = None,
    workspace: WorkspaceFolder = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Start an action as a job and return at once; with -q its id alone is printed.

    Examples: unalike job create train photographs/   |   unalike job create export --parent 3f2a --wait-for-parent
    """
    set_verbosity(verbose, quiet)
    data, overrides = parse_arguments(arguments)
    store = _open(workspace)
    if at_once is not None:
        store.allow_at_once(at_once)
    if root is not None:
        overrides = [*_sources(action_of(action), root), *overrides]
    job = store.create(action_of(action), overrides, spec=spec, data=data, parent_job_id=parent, automl_policy=automl_policy,
                      wait_for_parent=wait_for_parent, where=where, options=_options(option))  # fmt: skip
    if quiet and not as_json:
        print_line(job.id)
    else:
        _show(job, as_json)
        if not as_json:
            suggest("job", path=job.id)


def _sources(action: str, root: str) -> list[str]:
    """Overrides that name the data of an action in TAO's layout below a root."""
    from unalike.jobs.tao_layout import data_sources
    from unalike.spec.reading import yaml_line

    sources = data_sources(action, root)
    if not sources:
        say(f"--root {root} is not used by {action}: it takes no data of that layout")
    return [f"{path}={yaml_line(value)}" for path, value in sources.items()]


def _options(arguments: list[str] | None) -> dict[str, Any]:
    """Parse NAME=VALUE with YAML values; a repeated name gives a list."""
    from unalike.spec.reading import parse_yaml

    options: dict[str, Any] = {}
    for argument in arguments or ():
        name, equals, text = argument.partition("=")
        if not equals:
            raise SpecError(f"--option {argument}", expected="NAME=VALUE, such as gpus=1")
        value = parse_yaml(text)
        if name in options:
            value = [*(options[name] if isinstance(options[name], list) else [options[name]]), value]
        options[name] = value
    return options


@job_app.command("list", short_help="List all jobs and their status.")
def list_jobs(
    status: Annotated[str | None, typer.Option(metavar="STATUS", help="Only jobs of this status, such as Running.")] = None,
    trials: Annotated[bool, typer.Option("--trials", help="The trials of searches too.")] = False,
    workspace: WorkspaceFolder = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """List the jobs of a workspace, the oldest first."""
    set_verbosity(verbose, quiet)
    from unalike.jobs.database import STATUSES

    if status is not None and status.capitalize() not in STATUSES:
        raise SpecError(f"--status {status}", expected=f"one of {', '.join(STATUSES)}")
    jobs = [job for job in _open(workspace).jobs() if trials or as_json or job.trial is None]
    jobs = [job for job in jobs if status is None or job.status == status.capitalize()]
    if as_json:
        print_json({"jobs": [job.to_dict() for job in jobs]})
        return
    for job in jobs:
        print_line(_line(job))


@job_app.command(short_help="Show all details of a job.")
def show(
    job_id: Id,
    workspace: WorkspaceFolder = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Show a job: its spec, the fields completed from its parent, its folder, its metrics, and the model that it wrote."""
    set_verbosity(verbose, quiet)
    from unalike.jobs.outputs import folder_of

    store = _open(workspace)
    job = store.get(job_id)
    summary = job.to_dict() | {"log": str(store.log_file(job))}
    if job.status == "Complete":
        try:
            model = store.model(job.id)
            summary |= {"model": str(model), "model_folder": folder_of(model)}
        except RunError:
            pass  # an evaluation writes none
    if as_json:
        print_json(summary)
        return
    for name, value in summary.items():
        if value not in (None, "", {}, [], ()):
            print_line(
                f"{name}: {json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else value}"
            )


@job_app.command(short_help="Print the log of a job.")
def logs(
    job_id: Id,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Continue until the job has ended.")] = False,
    lines: Annotated[int | None, typer.Option("-n", "--lines", min=1, help="Only the last N lines.")] = None,
    workspace: WorkspaceFolder = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Print a job's log; with -f as it grows."""
    set_verbosity(verbose, quiet)
    store = _open(workspace)
    if as_json:
        text = "".join(store.log(job_id, follow=follow)).splitlines()
        print_json({"id": store.get(job_id).id, "lines": text[-lines:] if lines else text})
        return
    for number, piece in enumerate(store.log(job_id, follow=follow)):
        if number == 0 and lines:
            piece = "".join(piece.splitlines(keepends=True)[-lines:])
        print_piece(piece)


@job_app.command(short_help="Wait until jobs have ended.")
def wait(
    job_ids: Ids,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Longest time to wait.")] = None,
    workspace: WorkspaceFolder = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Wait for jobs; the exit code is 0 only if all are complete."""
    set_verbosity(verbose, quiet)
    jobs = _open(workspace).wait(job_ids, timeout=timeout)
    if as_json:
        print_json({"jobs": [job.to_dict() for job in jobs]})
    else:
        for job in jobs:
            print_line(_line(job))
    active_jobs = [job for job in jobs if job.status != "Complete"]
    if active_jobs:
        raise RunError(
            "; ".join(f"{job.id} is {job.status}{': ' + job.error if job.error else ''}" for job in active_jobs)
        )


def _for_each(
    job_ids: list[str], workspace: str | None, change: Callable[["Workspace", str], "Job"], as_json: bool
) -> None:
    """Change each job and print what became of it."""
    store = _open(workspace)
    for job_id in job_ids:
        _show(change(store, job_id), as_json)


@job_app.command(short_help="Save and end jobs.")
def cancel(
    job_ids: Ids,
    now: Annotated[bool, typer.Option("--now", help="Without saving first.")] = False,
    workspace: WorkspaceFolder = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """End jobs; a training saves a checkpoint first and can be resumed."""
    set_verbosity(verbose, quiet)
    _for_each(job_ids, workspace, lambda store, job_id: store.cancel(job_id, now_=now), as_json)


@job_app.command(short_help="Save and end jobs, to continue later.")
def pause(
    job_ids: Ids, workspace: WorkspaceFolder = None, as_json: AsJson = False, verbose: Verbose = False, quiet: Quiet = False
) -> None:  # fmt: skip
    """Pause jobs: a training saves a checkpoint, frees its devices, and continues with `unalike job resume`."""
    set_verbosity(verbose, quiet)
    _for_each(job_ids, workspace, lambda store, job_id: store.pause(job_id), as_json)


@job_app.command(short_help="Continue jobs.")
def resume(
    job_ids: Ids, wait_for_parent: WaitForParent = False, workspace: WorkspaceFolder = None, as_json: AsJson = False,
    verbose: Verbose = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Resume jobs that were paused, canceled or failed; a training continues from its newest checkpoint."""
    set_verbosity(verbose, quiet)
    _for_each(job_ids, workspace, lambda store, job_id: store.resume(job_id, wait_for_parent=wait_for_parent), as_json)


@job_app.command(short_help="Delete jobs and their folders.")
def delete(
    job_ids: Ids,
    workspace: WorkspaceFolder = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Delete jobs that do not run, with their folders in the workspace and their trials."""
    set_verbosity(verbose, quiet)
    store = _open(workspace)
    names = [name for job_id in job_ids for name in store.delete(job_id)]
    if as_json:
        print_json({"deleted": names})
    else:
        print_lines("\n".join(names))
