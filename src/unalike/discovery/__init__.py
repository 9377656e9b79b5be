"""Discover groups of like images without labels."""
