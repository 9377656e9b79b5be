"""Recognize images against a gallery of references."""
