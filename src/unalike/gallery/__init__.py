"""Enrolled reference vectors: add, search, decide, save."""
