"""The name of every file and folder that a run writes."""

from __future__ import annotations

import os
import re

from unalike.storage.digests import text_sha256

# Of the stem of a user's file in the name of one that is written: a number before it and an ending behind it fit into 255.
MAX_STEM_BYTES, MAX_NAME_BYTES = 180, 255

# ---- every run ----

STATUS_FILE = "status.json"
EXPERIMENT_FILE = "experiment.yaml"
RECORD_FILE = "run.json"
LOCK_FILE = "unalike.lock"
TRACEBACK_FILE = "traceback.txt"
NOTICES_FILE = "notices.txt"
REPORT_FILE = "report.html"

# Folder of the runs whose folder the user did not name, and the link in it to the last of them.
RUNS_FOLDER, LATEST_RUN = "runs", "latest"

# Any of these says that a folder holds a run, including one that TAO wrote.
RUN_MARKS = (STATUS_FILE, EXPERIMENT_FILE, RECORD_FILE)

# ---- training ----

BEST_CHECKPOINT = "ml_model_best.pth"
LATEST_CHECKPOINT = "ml_model_latest.pth"
PERIODIC_CHECKPOINTS = "model_epoch_*_step_*.pth"  # a glob pattern; ``periodic_checkpoint`` makes one name
_PERIODIC_NAME = re.compile(r"model_epoch_\d+_step_\d+\.pth")
MODEL_CARD_STEM = "model_card"
MODEL_CARD_FILE, MODEL_CARD_PAGE = f"{MODEL_CARD_STEM}.json", f"{MODEL_CARD_STEM}.md"
SPLIT_FILE = "split.csv"
TENSORBOARD_FOLDER = "tensorboard"
TENSORBOARD_PREFIX = "events.out.tfevents."


def periodic_checkpoint(epoch: int, step: int) -> str:
    """The name of a checkpoint that is written at intervals, in TAO's form."""
    return f"model_epoch_{epoch:03d}_step_{step:05d}.pth"


def is_periodic_checkpoint(name: str) -> bool:
    """Whether a file name is one that ``periodic_checkpoint`` makes."""
    return _PERIODIC_NAME.fullmatch(name) is not None


# ---- hyperparameter search ----

SEARCH_FILE = "search.json"
STUDY_FILE = "study.db"
TRIALS_FILE = "trials.jsonl"
SELECTION_FILE = "selection.csv"
BEST_SPEC_FILE = "best_spec.yaml"
TRIAL_FOLDERS = "trial_[0-9]*"  # a glob pattern; ``trial_folder`` makes one name
TRIAL_SPEC_FILE = "trial_spec.yaml"
TRIAL_LOG_FILE = "train.log"


def trial_folder(number: int) -> str:
    """The name of the folder of a search's trial, counted from 0."""
    return f"trial_{number:03d}"


# ---- automatic training and training without labels ----

AUTOMATIC_FILE = "automatic.json"
UNLABELED_FILE = "unlabelled.json"
SAMPLE_FILE = "sample.npz"  # this and the next four are kept for --resume
DISCOVERED_GROUPS_FILE = "groups.npz"
AUGMENTED_QUERIES_FILE = "asking.npz"
GROUP_TUNING_SPEC_FILE = "fine_tuning.yaml"
LEARNED_VECTORS_FILE = "learnt.npz"
FINE_TUNING_FOLDER = "fine_tuning"
DISTILLATION_FILE = "distillation.json"
LOOKUPS_FILE = "lookups.npz"
# Glob patterns of the folders within a run: stages that train, and candidates of automatic training.
SUBRUN_FOLDERS = (FINE_TUNING_FOLDER, f"{FINE_TUNING_FOLDER}_[0-9]", "candidate_[0-9]*")


def fine_tuning_folder(number: int) -> str:
    """The name of the folder of one round of fine-tuning, where a run has several."""
    return f"{FINE_TUNING_FOLDER}_{number}"


def candidate_folder(number: int) -> str:
    """The name of the folder of a candidate of automatic training, counted from 0."""
    return f"candidate_{number}"


# ---- evaluation and inference ----

METRICS_FILE = "metrics.json"
PER_CLASS_FILE = "per_class.csv"
CONFUSION_FILE = "confusion.csv"
PREDICTIONS_STEM = "predictions"
PREDICTIONS_PARQUET = f"{PREDICTIONS_STEM}.parquet"
PREDICTIONS_CSV = f"{PREDICTIONS_STEM}.csv"  # where pyarrow is not installed
SUSPECTED_LABELS_FILE = "suspected_labels.csv"
NEAR_DUPLICATES_FILE = "near_duplicates.csv"
TRT_METRICS_FILE = "results.json"  # of a TensorRT engine, as TAO names it
RESULT_STEM, TRT_RESULT_STEM = "result", "trt_result"  # the second of a TensorRT engine
RESULT_CSV, RESULT_JSONL = f"{RESULT_STEM}.csv", f"{RESULT_STEM}.jsonl"
TRT_RESULT_CSV, TRT_RESULT_JSONL = f"{TRT_RESULT_STEM}.csv", f"{TRT_RESULT_STEM}.jsonl"

# ---- jobs: what is written under a name that the user did not set ----

JOB_ONNX_FILE = "model.onnx"
JOB_ENGINE_FILE = "model.engine"
JOB_CALIBRATION_CACHE = "cal.bin"

# ---- comparison, inspection, verification, discovery ----

COMPARISON_FILE = "comparison.json"
INSPECTION_FILE = "result.json"
VERDICTS_FILE = "verdicts.jsonl"
DISCOVERY_FILE = "discovery.json"
INSPECTOR_FILE = "part.inspector"
GALLERY_FILE = "images.gallery"
BENCHMARK_FILE = "benchmark.json"
VECTORS_FILE = "vectors.npz"
OVERLAYS_FOLDER = "overlays"
GROUPS_FILE, UNSORTED_FILE = "groups.csv", "unsorted.csv"
# Of naming the groups that were discovered.
NAMING_FILE, ANSWERS_FILE, LABELS_FILE, LEFT_FILE = "naming.json", "answers.csv", "labels.csv", "left.csv"

# What --overwrite may delete, besides the files that the run registered with ``Run.own``: names that only we write.
OVERWRITABLE_FILES = (
    *RUN_MARKS, "FAILURE.txt", TRACEBACK_FILE, "notices.json", NOTICES_FILE,
    PERIODIC_CHECKPOINTS, LATEST_CHECKPOINT, BEST_CHECKPOINT, MODEL_CARD_FILE, MODEL_CARD_PAGE,
    f"{TENSORBOARD_PREFIX}*", f"{TENSORBOARD_FOLDER}/{TENSORBOARD_PREFIX}*", "train_split.csv", SPLIT_FILE,
    METRICS_FILE, PER_CLASS_FILE, PREDICTIONS_PARQUET, PREDICTIONS_CSV, CONFUSION_FILE,
    STUDY_FILE, f"{STUDY_FILE}-*", TRIALS_FILE, SEARCH_FILE, BEST_SPEC_FILE, SELECTION_FILE,
    RESULT_CSV, RESULT_JSONL, REPORT_FILE, LOOKUPS_FILE, ".*.partial-*",
)  # fmt: skip


def bounded_stem(stem: str) -> str:
    """A stem, for files that are named after a user's file, that leaves room for what is put before and behind it.

    File systems allow names of 255 bytes. What is longer than ``MAX_STEM_BYTES`` ends in a digest, so that it stays unique.
    """
    content = os.fsencode(stem)
    if len(content) <= MAX_STEM_BYTES:
        return stem
    return f"{content[: MAX_STEM_BYTES - 9].decode('utf-8', 'ignore')}~{text_sha256(stem, 8)}"
