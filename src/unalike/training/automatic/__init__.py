"""Automatic training: choose trunk, head and fine-tuning on held-out data, within a time budget."""
