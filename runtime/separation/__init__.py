"""From a mixture of any length to its stems."""
