"""Runs the CUDA kernels on a CPU: docs/explanation/testing-kernels.md."""
