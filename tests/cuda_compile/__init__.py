"""Compiles the CUDA sources against several releases of torch and CUDA, and audits the machine code."""
