"""Separates a mixture of any length into its stems."""
