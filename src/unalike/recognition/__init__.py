"""Recognise images against a gallery of references."""
