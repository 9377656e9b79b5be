"""Log the metrics of training to status.json, TensorBoard, and Weights & Biases when the user enabled it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from unalike.errors import missing_extra
from unalike.progress import say, warn
from unalike.runs.kpi_names import short_name
from unalike.sanitize import redact, redact_all
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
        if kpi:
            self._use_wandb(lambda service: service.log(kpi, step=facts["step"]))
        if event == "step":
            progress = {k: facts[k] for k in ("epoch", "step", "max_epoch", "max_step", "time_per_epoch", "eta")}
            self.run.status("RUNNING", "training", kpi=kpi, **progress)
        elif event == "validation":
            say(f"epoch {facts['epoch'] + 1}: {short_name(MONITORED)} {kpi[MONITORED]:.4f}, "
                f"{short_name(TIE_BREAKER.removeprefix('val '))} {kpi[TIE_BREAKER]:.4f}")  # fmt: skip
            self.run.status("RUNNING", "validation", kpi=kpi, epoch=facts["epoch"], step=facts["step"])
        elif event == "checkpoint":
            self.run.status("RUNNING", f"checkpoint {facts['path']}", epoch=facts["epoch"], step=facts["step"])

    def close(self) -> None:
        """Flush and close TensorBoard and Weights & Biases."""
        if self.tensorboard is not None:
            self.tensorboard.close()
        self._use_wandb(lambda service: service.finish())

    def _use_wandb(self, call: Callable[[Any], None]) -> None:
        """Call Weights & Biases where it is used; after a failure it is not used any more, with one warning."""
        if self.wandb is None:
            return
        try:
            call(self.wandb)
        except Exception as error:  # noqa: BLE001  as in _start_wandb: its process ended, a full disk, no network, ...
            self.wandb = None
            _warn_of_failure(error)


def _start_wandb(experiment: Experiment, run: Run) -> Any:
    """Start a run of Weights & Biases; None, with one warning, where it cannot: every template of TAO enables it."""
    try:
        import wandb

        may_log_in = _may_log_in(wandb)
        service = _init_wandb(wandb, experiment, run) if may_log_in else None
    except ImportError:
        warn(f"wandb.enable: {missing_extra('wandb', 'wandb', 'it')}; training goes on without Weights & Biases")
        return None
    except Exception as error:  # noqa: BLE001  a service for reports must not end a training: refused keys, no network, ...
        _warn_of_failure(error)
        return None
    if not may_log_in:
        warn("wandb.enable: nobody is logged in to Weights & Biases; training goes on without it (log in: wandb login, or "
             "set WANDB_API_KEY; without a network: WANDB_MODE=offline)")  # fmt: skip
    return service


def _warn_of_failure(error: Exception) -> None:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    warn(f"wandb.enable: Weights & Biases cannot be used ({redact(first)}); training goes on without it")


def _may_log_in(wandb: Any) -> bool:
    """Whether W&B has a key, or needs none: without either, it would ask on the terminal, or raise where there is none."""
    if os.environ.get("WANDB_MODE", "").lower() in ("offline", "disabled", "dryrun"):
        return True
    api: Any = getattr(wandb, "api", None)
    return not hasattr(api, "api_key") or bool(api.api_key)


def _init_wandb(wandb: Any, experiment: Experiment, run: Run) -> Any:
    options = experiment.wandb
    return wandb.init(
        project=options.project, entity=options.entity, group=options.group, tags=options.tags, name=options.name,
        reinit=options.reinit, sync_tensorboard=options.sync_tensorboard, save_code=options.save_code, id=options.run_id,
        resume="allow" if options.run_id else None, dir=str(run.dir), config=redact_all(experiment.to_dict()),
    )  # fmt: skip
