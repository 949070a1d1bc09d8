"""Native implementations of the scan operator, for CPUs and NVIDIA GPUs, and how they are built."""
