"""The actions that a spec can be for, and the command line that runs each."""

from __future__ import annotations

from collections.abc import Mapping

# The five that TAO has.
TAO_ACTIONS = ("train", "evaluate", "inference", "export", "gen_trt_engine")
# Their specs share the sections on data, model and training; a spec of one may hold the sections of the others.
MODEL_ACTIONS = (*TAO_ACTIONS, "quantize", "gen_engine")
# Their specs hold results_dir and one section of the action's own name.
STANDALONE_ACTIONS = ("compare", "inspect_fit", "inspect_run", "verify", "discover", "gallery_build", "bench_engine")
# Each has a section, a schema and a template, and can run as a job.
ACTIONS = (*MODEL_ACTIONS, *STANDALONE_ACTIONS)
# The words of the command line, where they are not the action's name.
_COMMANDS: Mapping[str, str] = {
    "inspect_fit": "inspect fit",
    "inspect_run": "inspect run",
    "gallery_build": "gallery build",
    "bench_engine": "bench-engine",
}


def command_of(action: str) -> str:
    """The command that runs an action, without the program's name: ``inspect fit`` for ``inspect_fit``."""
    return _COMMANDS.get(action, action)
