"""Files and caches, local and remote: atomic writing, fetching, block files."""
