"""Image sets, decoding and preprocessing of images."""
