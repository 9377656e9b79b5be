"""Hyperparameter search (AutoML) over complete trainings, with Optuna."""
