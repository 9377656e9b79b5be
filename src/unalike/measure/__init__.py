"""Retrieval metrics, intervals and reports; functions of arrays."""
