"""Slow, plain and independent reference implementations of the package."""
