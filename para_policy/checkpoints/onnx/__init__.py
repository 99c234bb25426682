"""The network of a policy as an ONNX file, for programs without Python or torch (extra `export`)."""
