"""Training: loss, optimisation, validation, and the folder of a run."""
