"""Heads on frozen features: in closed form, or trained by a loss."""
