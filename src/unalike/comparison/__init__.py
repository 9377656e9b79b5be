"""Compare two pictures of one thing and find where they differ."""
