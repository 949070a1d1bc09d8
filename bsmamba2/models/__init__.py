"""The network in PyTorch: for training, and folded for inference."""
