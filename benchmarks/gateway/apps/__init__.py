"""Compared gateways that are a few lines of Python."""
