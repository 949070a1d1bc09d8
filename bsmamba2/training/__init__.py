"""Training: loss, optimisation and evaluation."""
