"""ONNX export of a policy's network: the file, what it says about itself, its check (extra `export`)."""
