"""The gates that an exported file must pass, and what a lower precision costs."""
