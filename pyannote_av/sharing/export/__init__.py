"""Export of networks to ONNX, with a comparison of the results."""
