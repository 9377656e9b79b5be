"""Hyperparameter search over whole trainings, with Optuna."""
