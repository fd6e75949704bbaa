"""Runs the CUDA kernels on a CPU: docs/testing.md."""
