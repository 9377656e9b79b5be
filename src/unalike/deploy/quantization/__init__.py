"""Quantization to INT8, and conversion to FP16 and BF16."""
