"""Embedding of sets that do not fit into memory: shards that workers of one machine or of a cluster write, each once."""
