"""Convert: write a checkpoint of TAO's ml_recog as a checkpoint of ours."""

from __future__ import annotations

from pathlib import Path

from unalike.actions.result import Result
from unalike.actions.spec_resolution import Overrides, Spec
from unalike.errors import WeightsError
from unalike.spec.load import load_spec
from unalike.storage.overwrite import refuse_existing


def convert(
    checkpoint: str | Path, output: str | Path | None = None, spec: Spec = None, overrides: Overrides = (), *,
    overwrite: bool = False,
) -> Result:  # fmt: skip
    """Write a checkpoint of TAO as one of ours; ``path`` is the file.

    Args:
        checkpoint: a Lightning file of ml_recog (``.pth``, ``.ckpt``).
        output: the file to write; ``<stem>_unalike.pth`` in the current folder when None.
        spec: the spec that it was trained with; its ``model`` section describes the network. Without one, the spec in the
            file and the shapes of the tensors do.
        overrides: values by dotted path, which replace those of the spec.
        overwrite: replace a file of that name.

    Raises:
        WeightsError: the file is no checkpoint of TAO, or not of the network of the spec.
        SpecError: the spec is not valid.
    """
    from unalike.model.checkpoint import read_checkpoint, write_checkpoint

    experiment = load_spec("check", spec, overrides)
    target = Path(output) if output is not None else Path(f"{Path(checkpoint).stem}_unalike.pth")
    refuse_existing(target, overwrite, field="--out")
    if target.exists() and target.samefile(checkpoint):
        raise WeightsError(
            f"--out: {target} is the checkpoint itself", expected="another file", remedy="choose another name"
        )
    payload = read_checkpoint(checkpoint, experiment)
    if not payload.pop("origin", None):
        raise WeightsError(
            f"{checkpoint} is a checkpoint of unalike already",
            expected="one of TAO's ml_recog",
            remedy="use it as it is",
        )
    write_checkpoint(target, payload, follow_links=True)
    facts = {"backbone": payload["facts"]["trunk"], "dim": payload["spec"]["model"]["feat_dim"]}
    return Result(target.parent, target, facts)
