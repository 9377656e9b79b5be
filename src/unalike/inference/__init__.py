"""Open a model, choose its engine, embed images."""
