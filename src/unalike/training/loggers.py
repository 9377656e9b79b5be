"""Log the metrics of training to status.json, TensorBoard, and Weights & Biases when the user enabled it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unalike.errors import missing_extra
from unalike.progress import say
from unalike.sanitize import redact_all
from unalike.training.checkpoints import MONITORED, TIE_BREAKER

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from unalike.runs.run import Run
    from unalike.spec import Experiment


class Loggers:
    """Logs the events of the loop (a ``loop.Listener``).

    Args:
        experiment: the settled spec; ``wandb.enable`` starts Weights & Biases.
        run: the run, whose status lines and TensorBoard files are written.
        active: whether this process logs: the first one alone.
    """

    def __init__(self, experiment: Experiment, run: Run, active: bool) -> None:
        self.run, self.active = run, active
        self.tensorboard: SummaryWriter | None = None
        self.wandb: Any = None  # a wandb.Run; the package is an extra
        if not active:
            return
        from torch.utils.tensorboard import SummaryWriter

        self.tensorboard = SummaryWriter(str(run.dir))
        if experiment.is_set("wandb.enable") and experiment.wandb.enable:
            self.wandb = _start_wandb(experiment, run)

    def __call__(self, event: str, facts: dict[str, Any]) -> None:
        """Log one event.

        Args:
            event: ``step``, ``validation``, ``checkpoint`` or ``epochs``.
            facts: what the loop reports with it.
        """
        if not self.active:
            return
        kpi = facts.get("kpi") or {}
        if self.tensorboard is not None:
            for name, value in kpi.items():
                self.tensorboard.add_scalar(name, value, facts["step"])
        if self.wandb is not None and kpi:
            self.wandb.log(kpi, step=facts["step"])
        if event == "step":
            progress = {k: facts[k] for k in ("epoch", "step", "max_epoch", "max_step", "time_per_epoch", "eta")}
            self.run.status("RUNNING", "training", kpi=kpi, **progress)
        elif event == "validation":
            say(f"epoch {facts['epoch'] + 1}: {MONITORED} {kpi[MONITORED]:.4f}, "
                f"Mean Average Precision {kpi[TIE_BREAKER]:.4f}")  # fmt: skip
            self.run.status("RUNNING", "validation", kpi=kpi, epoch=facts["epoch"], step=facts["step"])
        elif event == "checkpoint":
            self.run.status("RUNNING", f"checkpoint {facts['path']}", epoch=facts["epoch"], step=facts["step"])

    def close(self) -> None:
        """Flush and close TensorBoard and Weights & Biases."""
        if self.tensorboard is not None:
            self.tensorboard.close()
        if self.wandb is not None:
            self.wandb.finish()


def _start_wandb(experiment: Experiment, run: Run) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise missing_extra("wandb", "wandb", "wandb.enable") from error
    options = experiment.wandb
    return wandb.init(
        project=options.project, entity=options.entity, group=options.group, tags=options.tags, name=options.name,
        reinit=options.reinit, sync_tensorboard=options.sync_tensorboard, save_code=options.save_code, id=options.run_id,
        resume="allow" if options.run_id else None, dir=str(run.dir), config=redact_all(experiment.to_dict()),
    )  # fmt: skip
