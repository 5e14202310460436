"""The HTTP routes, one subject a module."""
