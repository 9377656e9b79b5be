"""Where the figures of training go: status.json, TensorBoard, and Weights & Biases when the user set it."""

from __future__ import annotations

from typing import Any

from unalike.errors import missing_extra, redact_all
from unalike.progress import say
from unalike.training.checkpoints import MONITORED


class Loggers:
    """Listens to the loop (``loop.Listener``) on the first process and writes; silent on the others."""

    def __init__(self, spec: Any, run: Any, active: bool) -> None:
        self.run, self.active = run, active
        self.board: Any = None
        self.wandb: Any = None
        if not active:
            return
        from torch.utils.tensorboard import SummaryWriter

        self.board = SummaryWriter(str(run.dir))
        if spec.is_set("wandb.enable") and spec.wandb.enable:
            self.wandb = _start_wandb(spec, run)

    def __call__(self, event: str, facts: dict[str, Any]) -> None:
        if not self.active:
            return
        kpi = facts.get("kpi") or {}
        for name, value in kpi.items():
            self.board.add_scalar(name, value, facts["step"])
        if self.wandb is not None and kpi:
            self.wandb.log(kpi, step=facts["step"])
        if event == "step":
            progress = {k: facts[k] for k in ("epoch", "step", "max_epoch", "max_step", "time_per_epoch", "eta")}
            self.run.status("RUNNING", "training", kpi=kpi, **progress)
        elif event == "validation":
            say(f"epoch {facts['epoch'] + 1}: {MONITORED} {kpi[MONITORED]:.4f}, "
                f"Mean Average Precision {kpi['val Mean Average Precision']:.4f}")  # fmt: skip
            self.run.status("RUNNING", "validation", kpi=kpi, epoch=facts["epoch"], step=facts["step"])
        elif event == "checkpoint":
            self.run.status("RUNNING", f"checkpoint {facts['path']}", epoch=facts["epoch"], step=facts["step"])

    def close(self) -> None:
        """Flush what is open."""
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


def _start_wandb(spec: Any, run: Any) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise missing_extra("wandb", "wandb", "wandb.enable") from error
    settings = spec.wandb
    return wandb.init(
        project=settings.project, entity=settings.entity, group=settings.group, tags=settings.tags, name=settings.name,
        reinit=settings.reinit, sync_tensorboard=settings.sync_tensorboard, save_code=settings.save_code,
        id=settings.run_id, resume="allow" if settings.run_id else None, dir=str(run.dir), config=redact_all(spec.to_dict()),
    )  # fmt: skip
