"""What our files hold: metadata, ONNX graphs, TensorRT plans, tensors, the operator."""
