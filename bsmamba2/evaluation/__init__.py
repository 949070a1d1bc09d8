"""Measures how well engines separate tracks with known stems; needs NumPy and the runtime only."""
