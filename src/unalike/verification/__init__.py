"""Asset verification: whether an image shows an approved asset, such as a logo, unaltered."""
