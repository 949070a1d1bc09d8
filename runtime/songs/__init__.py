"""Separates audio files into files of their stems."""
