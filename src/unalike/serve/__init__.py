"""The HTTP service: requests in shared batches, a gallery that is changed while it is searched, a record of every decision."""
