"""A batch job beside the best scripts that we can write with PyTorch and ONNX Runtime."""
