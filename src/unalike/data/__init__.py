"""Where images lie, how they are decoded and shown to a network."""
