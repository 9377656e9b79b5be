"""Retrieval, classification, clustering and localization metrics, with confidence intervals."""
