"""Weights on disk: safetensors in and out, and foreign checkpoints read as data, never run."""
