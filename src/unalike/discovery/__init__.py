"""Discover groups of similar images without labels."""
