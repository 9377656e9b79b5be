"""Heads fitted to frozen features: discriminant analysis in closed form, or trained with a loss."""
