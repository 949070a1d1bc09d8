"""Training data: checked tracks in MUSDB18-HQ's layout, and random mixtures drawn from them."""
