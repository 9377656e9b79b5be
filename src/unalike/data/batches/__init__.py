"""Batches of training images: augmentation, sampling, loading, the cache of decoded images."""
