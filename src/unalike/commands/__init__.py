"""The commands, a file a kind: each turns its words into one call of ``api`` or of a front module."""
