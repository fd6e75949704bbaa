"""Slow, plain and independent versions of what the package computes."""
