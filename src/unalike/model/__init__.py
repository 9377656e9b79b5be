"""Networks: trunk (backbone) and embedder, and the weights that go in."""
