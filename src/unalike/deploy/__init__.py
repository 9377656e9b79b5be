"""Export to ONNX and build engine files."""
