"""Compiles the CUDA sources as other machines do, and looks at the machine code. No GPU is needed."""
