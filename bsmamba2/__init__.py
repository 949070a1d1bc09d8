"""BSMamba2: a band-split Mamba2 network that separates the voice from music."""

__version__ = "0.1.0"
