"""What a file must be before it gets its name, and what a lower precision costs."""
