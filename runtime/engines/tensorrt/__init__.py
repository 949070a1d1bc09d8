"""Runs TensorRT plans, with all steps from chunk to target on the GPU."""
