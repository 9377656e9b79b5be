"""Anomaly detection: fit on normal images, then find defects and where they are."""
