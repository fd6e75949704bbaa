"""Runs the CUDA kernels on a CPU; see docs/testing.md."""
