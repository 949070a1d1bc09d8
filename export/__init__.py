"""Export of the network from PyTorch: `to_onnx.export_onnx`, then `to_plan.export_plan`."""
