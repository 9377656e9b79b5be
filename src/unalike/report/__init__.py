"""HTML reports, drawings and the model card."""
