"""Explain why a query matched a reference."""
