"""Measurements of the running service, each a program: ``python -m benchmarks.NAME``."""
