"""The store in NATS."""

from .store import NATS

__all__ = ["NATS"]
