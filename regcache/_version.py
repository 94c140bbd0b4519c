"""The version, in the one place that says it."""

__version__ = "26.11.0"
