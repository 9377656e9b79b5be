"""The names of the files of a run."""

from __future__ import annotations

# Any of these says that a folder holds a run already, one of TAO's included.
RUN_MARKS = ("status.json", "experiment.yaml", "run.json")


# What --overwrite may delete, besides files that the run registered with ``own``: names that only we write.
OWN_FILES = (
    *RUN_MARKS, "FAILURE.txt", "traceback.txt", "notices.json", "notices.txt",
    "model_epoch_*_step_*.pth", "ml_model_latest.pth", "ml_model_best.pth", "model_card.json", "model_card.md",
    "events.out.tfevents.*", "tensorboard/events.out.tfevents.*", "train_split.csv", "split.csv",
    "metrics.json", "per_class.csv", "predictions.parquet", "predictions.csv", "confusion.csv",
    "study.db", "study.db-*", "trials.jsonl", "search.json", "best_spec.yaml", "selection.csv",
    "result.csv", "result.jsonl", "report.html", ".*.partial-*",
)  # fmt: skip


PARTS = ("fine_tuning", "fine_tuning_[0-9]")
