"""Files of the candidates of automatic training: each is kept, ready for delivery, so that the user can take another one."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unalike.errors import RunError
from unalike.runs.filenames import BEST_CHECKPOINT, BEST_SPEC_FILE, LOOKUPS_FILE, candidate_folder
from unalike.runs.subrun import Subrun
from unalike.storage.atomic import atomic_write, copy_file
from unalike.training.automatic.final_choice import Candidate
from unalike.training.automatic.held_out_scores import scores_of, store_scores
from unalike.training.automatic.holdout_result import HoldoutResult, Lookups

if TYPE_CHECKING:
    from unalike.runs.run import Run
    from unalike.spec import Experiment

FORMAT_VERSION = 1
_RESULT = ("kind_Q", "hit_Q", "precision_Q", "label_Q", "series_Q")


def save_candidates(
    run: Run, candidates: Sequence[Candidate], save: Callable[[Candidate, Run], Experiment]
) -> dict[str, Experiment]:
    """Save every candidate in a folder of its own: checkpoint, specs, and the queries that it was measured by.

    Args:
        run: the run; gets the folders.
        candidates: the candidates.
        save: saves checkpoint and specs of a candidate into the folder of a run, and returns the spec.

    Returns:
        The resolved spec by name.
    """
    specs = {}
    for number, candidate in enumerate(candidates):
        subrun = Subrun(run, run.dir / candidate_folder(number))
        specs[candidate.name] = save(candidate, subrun)
        result = candidate.result
        assert result.lookups is not None and result.series_Q is not None
        store_scores(subrun.dir / BEST_CHECKPOINT, scores_of(result))
        arrays = {name: getattr(result, name) for name in _RESULT}
        arrays |= {name: getattr(result.lookups, name) for name in Lookups.__dataclass_fields__}
        with atomic_write(subrun.dir / LOOKUPS_FILE) as partial:
            np.savez(partial, format_version=np.array(FORMAT_VERSION), **arrays)
    return specs


def load_result(folder: Path) -> HoldoutResult:
    """Load the results of a candidate on the held-out queries.

    Args:
        folder: the candidate's folder.

    Raises:
        RunError: the file is missing or cannot be read.
    """
    path = folder / LOOKUPS_FILE
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
            # Runs of earlier releases have no leads; their galleries are calibrated by cosines.
            arrays.setdefault("lead_Q", np.full(len(arrays["query_Q"]), np.inf))
            lookups = Lookups(*(arrays[name] for name in Lookups.__dataclass_fields__))
            kind_Q, hit_Q, precision_Q, label_Q, series_Q = (arrays[name] for name in _RESULT)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(f"{path} cannot be read ({error})", remedy="train again with --overwrite") from error
    return HoldoutResult(kind_Q, hit_Q, precision_Q, label_Q, lookups, series_Q)


def deliver(run: Run, number: int, spec: Experiment) -> tuple[Path, Experiment]:
    """Copy a candidate's checkpoint and specs to the run's folder, where they replace those of another.

    Args:
        run: the run.
        number: the candidate's number.
        spec: its resolved spec.

    Returns:
        The checkpoint and the spec.

    Raises:
        RunError: the candidate's checkpoint is missing.
    """
    folder = run.dir / candidate_folder(number)
    if not (folder / BEST_CHECKPOINT).is_file():
        raise RunError(f"{folder / BEST_CHECKPOINT} is missing", remedy="train again with --overwrite")
    if (folder / BEST_SPEC_FILE).is_file():
        copy_file(folder / BEST_SPEC_FILE, run.dir / BEST_SPEC_FILE)
    else:
        (run.dir / BEST_SPEC_FILE).unlink(missing_ok=True)
    copy_file(folder / BEST_CHECKPOINT, run.dir / BEST_CHECKPOINT)
    run.write_experiment(spec)
    return run.dir / BEST_CHECKPOINT, spec
