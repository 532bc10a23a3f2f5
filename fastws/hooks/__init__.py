"""Hooks: an application behind HTTP, in any language, decides and is told (the extra ``hooks``)."""

from .listener import HookListener, Hooks
from .settings import HookSettings
from .signing import verify

__all__ = ["HookListener", "HookSettings", "Hooks", "verify"]
