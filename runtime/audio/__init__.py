"""Reads, resamples and writes audio files, and draws spectrograms."""
