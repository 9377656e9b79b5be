"""Distill: teach a small network what a larger one, or several, know."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.actions.result import Result
from unalike.actions.spec_resolution import spec_with
from unalike.errors import missing_extra
from unalike.runs.environment import refuse_several_processes
from unalike.runs.folder import open_run
from unalike.runs.program_start import take_start
from unalike.spec.nodes import check_mandatory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unalike.spec import Experiment


def distill(
    source: str | Path, teachers: str | Path | Sequence[str | Path], out: str | Path | None = None, **options: Any
) -> Result:
    """Teach a small network the vectors of a larger one, or of several.

    Args:
        source: Images, with or without labels: a folder, an archive or a manifest.
        teachers: One network or several: .pth, .onnx, .xml or .engine files.
        out: Results folder; ``runs/<date-time>-distill`` by default.
        **options: The other fields of the section ``distill`` of a spec (``unalike.spec.distill``).

    Returns:
        The result; ``path`` is the student's checkpoint.
    """
    files = [teachers] if isinstance(teachers, str | Path) else list(teachers)
    return run_distillation(
        spec_with("distill", source=source, teachers=[str(file) for file in files], results_dir=out, **options)
    )


def run_distillation(experiment: Experiment, *, overwrite: bool = False) -> Result:
    """Distill as a spec says, into its results folder.

    Args:
        experiment: Spec whose section ``distill`` holds the options.
        overwrite: Replace the results of a former run in the folder.

    Raises:
        UnalikeError: The images, networks or folder cannot be used, or the training fails.
    """
    start = take_start()
    refuse_several_processes("distill")
    section = experiment.distill
    check_mandatory("distill", section)
    if importlib.util.find_spec("torch") is None:
        raise missing_extra("torch", "train", "distillation")
    from unalike.training.distillation.pipeline import distill_student
    from unalike.training.time_budget import TimeBudget

    with open_run("distill", experiment, overwrite=overwrite) as run:
        result = distill_student(section, run, budget=TimeBudget(section.minutes, start))
        run.conclude(
            f"delivered: {result.record['chosen']}, {result.checkpoint}", result.figures, outputs=[result.checkpoint]
        )
    return Result(run.dir, result.checkpoint, dict(result.figures))
