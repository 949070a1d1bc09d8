"""How well an engine separates songs whose stems are known; NumPy and the runtime only."""
