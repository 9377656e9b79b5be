"""Distillation: a small network learns to give the vectors of a larger one, or of several."""
