"""Training data: songs in MUSDB18-HQ's layout, checked, and mixtures drawn from them."""
