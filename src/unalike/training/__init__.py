"""Train an embedding: losses, schedules, the loop, checkpoints, validation."""
