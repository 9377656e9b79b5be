"""Synthetic changes of an asset: harmless ones, and tampering. numpy and Pillow alone; drawn by a seed."""
