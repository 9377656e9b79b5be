"""Whether a picture shows an approved asset unaltered: laying the asset over it, comparing, and where the limits are."""
