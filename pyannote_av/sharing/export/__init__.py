"""Networks as ONNX graphs, and how far these are from the networks."""
