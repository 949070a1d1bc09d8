"""Native implementations of the scan operator."""
