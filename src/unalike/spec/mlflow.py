"""Section ``mlflow``: where a run is also filed in MLflow, when the user named a tracking server or store."""

from __future__ import annotations

from unalike.spec.declare import Section, Text, field


class Mlflow(Section):
    tracking_uri: Text = field(
        None,
        "MLflow's tracking server or store, such as http://host:5000 or sqlite:///mlflow.db; unset: MLFLOW_TRACKING_URI, and "
        "without that nothing is reported.",
    )
    experiment: Text = field(
        None, "Experiment that the run is filed under; unset: MLFLOW_EXPERIMENT_NAME, else unalike."
    )
    run_name: Text = field(None, "Name of the run as MLflow shows it; unset: the action and the results folder.")
