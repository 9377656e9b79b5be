"""Train, measure, recognize, export, compile, measure and recognize again: a chain of jobs in which no path stands twice.

    python examples/workflow.py ROOT [--policy auto|off] [--workspace DIR] [key=value ...]

ROOT is a folder or an address such as s3://bucket/retail that holds the layout of TAO's retail example:
metric_learning_recognition/retail-product-checkout-dataset_classification_demo/ with known_classes/{train,reference,val,
test}.tar.gz and unknown_classes/{reference,test}.tar.gz. Overrides are the training's. All jobs are made at once; each
waits for its parent, is completed from it, and may be looked at meanwhile with `unalike job list`.
"""

from __future__ import annotations

import argparse
import sys

import yaml

from unalike.jobs import Job, Workspace, data_sources


def chain(workspace: Workspace, root: str, policy: str, overrides: dict[str, object]) -> dict[str, Job]:
    """Make the jobs of the whole way from images to an engine; name -> job."""

    def follow(action: str, parent: Job, **more: object) -> Job:
        told = {**data_sources(action, root), **more}
        return workspace.create(action, told, parent_job_id=parent.id, wait_for_parent=True)

    train = workspace.create("train", {**data_sources("train", root), **overrides}, automl_policy=policy)
    export = follow("export", train)
    engine = follow("gen_engine", export)
    return {
        "train": train,
        "evaluate": follow("evaluate", train),
        "inference": follow("inference", train),
        "export": export,
        "engine": engine,
        "evaluate the engine": follow("evaluate", engine),
        "inference of the engine": follow("inference", engine),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", help="a folder or an address that holds TAO's layout")
    parser.add_argument("--policy", default="auto", choices=("auto", "off"))
    parser.add_argument("--workspace", default=None, help="folder of the jobs; $UNALIKE_WORKSPACE, else ./workspace")
    parser.add_argument("overrides", nargs="*", help="of the training, such as num_epochs=3")
    options = parser.parse_intermixed_args()
    workspace = Workspace(options.workspace)
    pairs = (word.split("=", 1) for word in options.overrides)
    jobs = chain(workspace, options.root, options.policy, {key: yaml.safe_load(value) for key, value in pairs})
    failed = False
    for name, job in jobs.items():
        (done,) = workspace.wait([job.id])
        figures = {key: round(value, 4) for key, value in done.figures.items() if "Precision" in key or "MAP" in key}
        print(f"{name:<24} {done.id} {done.status} {done.ended - done.created:6.0f} s  {figures or done.error or ''}")
        failed |= done.status != "Complete"
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
