"""Runs the CUDA kernels on a CPU; see docs/explanation/testing-kernels.md."""
