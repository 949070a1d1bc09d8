"""What a lower precision costs, measured before a file gets its name."""
