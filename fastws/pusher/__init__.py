"""Pusher's protocol (docs/pusher.md), for its clients and server libraries: ``[pusher]`` in the configuration file."""
