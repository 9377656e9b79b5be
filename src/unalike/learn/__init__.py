"""Losses, schedules, the training loop, checkpoints."""
