"""The actions that a spec can be for, and the command line that runs each."""

from __future__ import annotations

from collections.abc import Mapping

# The five that TAO has.
TAO_ACTIONS = ("train", "evaluate", "inference", "export", "gen_trt_engine")
# Their specs share the sections on data, model and training; a spec of one may hold the sections of the others.
MODEL_ACTIONS = (*TAO_ACTIONS, "quantize", "gen_engine")
# Their specs hold one section of the action's own name and nothing else. They read a gallery or change it in place, or write
# what the section names, and leave no results folder; they are no jobs. ``serve`` runs until it is stopped.
FOLDERLESS_ACTIONS = (
    "calibrate", "identify", "gallery_add", "gallery_remove", "gallery_rename", "gallery_merge", "gallery_copy", "gallery_list",
    "export_maps", "inspect_learn", "demo", "serve", "improve",
)  # fmt: skip
# Their specs hold one section of the action's own name and, but for FOLDERLESS_ACTIONS, results_dir.
STANDALONE_ACTIONS = (
    "compare", "inspect_fit", "inspect_run", "verify", "discover", "distill", "gallery_build", "bench_engine", "embed",
    *FOLDERLESS_ACTIONS,
)  # fmt: skip
# Each has a section, a schema and a template.
ACTIONS = (*MODEL_ACTIONS, *STANDALONE_ACTIONS)
# Actions that can run as a job.
JOB_ACTIONS = tuple(action for action in ACTIONS if action not in FOLDERLESS_ACTIONS)
# Action -> command, where the command's name differs.
_COMMANDS: Mapping[str, str] = {
    "inspect_fit": "inspect fit",
    "inspect_learn": "inspect learn",
    "inspect_run": "inspect run",
    "gallery_build": "gallery build",
    "gallery_add": "gallery add",
    "gallery_remove": "gallery remove",
    "gallery_rename": "gallery rename",
    "gallery_merge": "gallery merge",
    "gallery_copy": "gallery copy",
    "gallery_list": "gallery list",
    "export_maps": "export-maps",
    "bench_engine": "bench-engine",
}


def top_level_of(action: str) -> tuple[str, ...]:
    """The names at the top of a standalone action's spec."""
    return (action,) if action in FOLDERLESS_ACTIONS else ("results_dir", action)


def command_of(action: str) -> str:
    """The command that runs an action, without the program's name: ``inspect fit`` for ``inspect_fit``."""
    return _COMMANDS.get(action, action)


def action_of(words: str) -> str:
    """The action that a command's words or an action's name mean (``inspect fit``, ``gen-engine``), else the words themselves."""
    by_command = {command_of(action): action for action in ACTIONS} | {"engine": "gen_engine"}
    return by_command.get(words, words.replace("-", "_").replace(" ", "_"))
