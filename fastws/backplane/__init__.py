"""Stores that several nodes share, so that they behave as one server."""
