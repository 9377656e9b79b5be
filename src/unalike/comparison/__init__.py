"""Image comparison: align two images of the same thing and find where they differ."""
