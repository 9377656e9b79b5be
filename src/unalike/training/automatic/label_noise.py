"""Decide whether images whose neighbors contradict their label weigh less: where more labels are suspected than look-alikes explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unalike.errors import DataError
from unalike.progress import say
from unalike.training.heads.label_weights import MAX_IMAGES, MIN_SUSPECTED_SHARE, check_count, suspected_share

if TYPE_CHECKING:
    from unalike.spec import Experiment
    from unalike.training.automatic.evaluation_data import EvaluationData

FIELD = "train.finish.label_weights"


def weighs_labels(spec: Experiment, data: EvaluationData) -> bool:
    """Return ``train.finish.label_weights`` where the user set it, else whether enough labels are suspected; print it if so.

    Nothing is looked for among more than ``MAX_IMAGES`` images, and it is an error to ask for it.

    Args:
        spec: the spec.
        data: the images; those that may be fitted to are looked at.

    Raises:
        DataError: the user asks for label weights of more than ``MAX_IMAGES`` images.
    """
    if spec.is_set(FIELD):
        if spec.train.finish.label_weights:
            check_count(len(data.labels_N))
        return spec.train.finish.label_weights
    if len(data.labels_N) > MAX_IMAGES:  # the delivered head is fitted to all of them
        return False
    try:
        share = suspected_share(data.features.vectors_NF[data.fit_N], data.labels_N[data.fit_N])
    except DataError:  # no class has two images: there are no neighbors to ask
        return False
    if share < MIN_SUSPECTED_SHARE:
        return False
    say(f"{100 * share:.0f} % of the labels are contradicted by similar images: such images weigh less "
        f"({FIELD}=false turns that off; suspected_labels.csv lists them)")  # fmt: skip
    return True
