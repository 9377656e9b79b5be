"""Automatic training: choose trunk, head and fine-tuning by held-out data, within a time budget."""
