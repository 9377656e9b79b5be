"""What a user's program holds: Recogniser."""
