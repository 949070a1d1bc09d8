"""The network's way out of PyTorch: `to_onnx.export_onnx`, then `to_plan.export_plan`."""
