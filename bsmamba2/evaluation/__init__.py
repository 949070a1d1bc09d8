"""Measures how well engines separate songs with known stems; needs NumPy and the runtime only."""
