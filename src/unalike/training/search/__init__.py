"""Hyperparameter search over complete trainings, with Optuna."""
