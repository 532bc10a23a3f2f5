"""Redis and Valkey: one server, several, with sentinels or as a cluster."""

from .store import Redis

__all__ = ["Redis"]
