"""Pusher's protocol (docs/pusher.md), for its clients and server libraries: ``[pusher]`` in the configuration file."""

from .listener import PusherListener
from .settings import PusherSettings
from .start import add_to

__all__ = ["PusherListener", "PusherSettings", "add_to"]
