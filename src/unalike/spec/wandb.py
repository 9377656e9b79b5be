"""Section ``wandb``: where a run reports to Weights & Biases, when the user asked for it."""

from __future__ import annotations

from unalike.spec.declare import Section, Text, field


class WandB(Section):
    enable: bool = field(
        True,
        "Report the run to Weights & Biases. Acts only when you write it yourself: left out, nothing leaves the machine.",
        settled=True,
    )
    project: str = field("TAO Toolkit", "Project that the run is filed under.")
    entity: Text = field(None, "User or team that owns the project; unset means your default one.")
    group: Text = field(None, "Group that gathers several runs, such as the seeds of one setting.")
    tags: list[str] = field(["tao-toolkit"], "Words to find the run by.", automl_enabled=False)
    reinit: bool = field(False, "Start a fresh W&B run when one is already open in this process.")
    sync_tensorboard: bool = field(False, "Copy everything that TensorBoard gets to W&B as well.")
    save_code: bool = field(False, "Store the main script with the run.")
    name: str = field("TAO Toolkit Training", "Name of the run as W&B shows it.")
    run_id: Text = field(None, "Id of an earlier run that this one continues.")
