"""Training data: mixtures drawn from multitrack songs."""
