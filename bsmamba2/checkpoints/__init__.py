"""Weights on disk: our safetensors files, and foreign checkpoints, read as data and never run."""
