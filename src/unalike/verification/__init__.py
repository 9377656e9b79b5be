"""Verify that a picture shows an approved asset, unaltered."""
