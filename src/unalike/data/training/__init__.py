"""Training batches: augmentation, sampling, loading, the cache of decoded images."""
