"""The base class of listeners, which applications write."""

import logging
from collections.abc import Callable, Hashable
from typing import Any

from ._core import Request, WebSocket

__all__ = ["Listener"]

logger = logging.getLogger("fastws")


class Listener:
    """Handles what happens on an endpoint. Override what you need; every method except `can_see` may be ``async``.

    The order for one connection: ``on_handshake``, ``authorize``, ``on_open``, ``on_user_online``, ``on_channel_open``,
    ``on_subscribe``; then messages, in order and one at a time; then ``on_close`` and, for each channel,
    ``on_unsubscribe`` and ``on_channel_close``, then ``on_user_offline``. All run on the loop's thread. If one raises,
    the error is logged and passed to ``on_error``, and only its own connection is closed (1011).
    """

    def on_handshake(self, request: Request) -> Any:
        """Decide on a request, and identify its user with ``request.user = ...``. Returning ``False`` refuses it with
        403, a ``Reject`` (returned or raised) with its own status, any other exception with 500."""

    def authorize(self, request: Request, channel: str | None) -> Any:
        """Returns whether the request may use the ``{channel}`` of the path (None if it has none); False refuses it
        with 403."""

    def on_open(self, ws: WebSocket) -> Any:
        """A connection is open and can be sent to. Returning ``False`` closes it with 1008, before it is subscribed."""

    def on_message(self, ws: WebSocket, message: str | bytes) -> Any:
        """A whole message arrived; text is ``str``, binary is ``bytes``. A return value other than None is sent back to
        the sender."""

    def on_close(self, ws: WebSocket, code: int, reason: str) -> Any:
        """A connection is closed. ``code`` is the peer's: 1005 if it sent none, 1006 if no Close frame came (RFC 6455
        7.1.5). ``ws.channels`` still lists its channels, but nothing can be sent to it."""

    def on_error(self, ws: WebSocket, error: Exception) -> Any:
        """A handler raised, or the peer violated the protocol (``ProtocolError``)."""

    def on_subscribe(self, ws: WebSocket, channel: str, subscribers: int) -> Any:
        """A connection joined a channel, which now has ``subscribers``."""

    def on_unsubscribe(self, ws: WebSocket, channel: str, subscribers: int) -> Any:
        """A connection left a channel, which now has ``subscribers``."""

    def on_channel_open(self, channel: str) -> Any:
        """A channel was created; called before its first ``on_subscribe``."""

    def on_channel_close(self, channel: str) -> Any:
        """A channel is empty and gone; called after its last ``on_unsubscribe``."""

    def on_user_online(self, user: Hashable) -> Any:
        """A user's first connection on this endpoint is open; not called for one who is back within
        ``offline_after``. With a backplane, the first on any node; it is called on that node alone."""

    def on_user_offline(self, user: Hashable) -> Any:
        """A user's last connection on this endpoint, on any node, has been gone for ``offline_after`` seconds. Called
        on that node; where it was killed, on one of the others."""

    def on_shutdown(self) -> Any:
        """The server is about to stop or restart. It accepts no more connections, and closes the existing ones when
        this returns, or after ``drain_timeout``. Messages sent here arrive before the Close."""

    def can_see(self, viewer: Hashable, user: Hashable) -> Any:
        """Returns whether a viewer (None: a connection without a user) may know that a user is there.

        Called for presence lists, notices of joins and leaves, and `ConnectionManager.notify`, but never about the
        viewer themselves. It must be a plain ``def``, and an exception counts as False. Answers are cached: when one
        has changed, call `ConnectionManager.visibility_changed`.
        """
        return True

    def on_backplane(self, connected: bool) -> Any:
        """The store that the nodes share answers (again), or is gone. Until it is back, what is said on other nodes
        does not arrive here, nor that somebody was logged out there. Only called where there is a backplane."""


HANDLERS = [name for name in vars(Listener) if not name.startswith("_")]


def handler(listener: Listener, name: str) -> Callable[..., Any] | None:
    """Returns the listener's own bound method of this name; None if it only inherits the base class's."""
    method = getattr(listener, name, None)
    return None if method is None or getattr(method, "__func__", None) is vars(Listener)[name] else method


def warn_of_misspelt(listener: Listener) -> None:
    """Log a warning for each method whose name is close to a handler's."""
    for name in dir(type(listener)):
        is_alike = name not in HANDLERS and name.startswith(("on", "auth", "can"))
        if not is_alike or not callable(getattr(listener, name, None)):
            continue
        from difflib import get_close_matches  # slow to import, and rarely needed

        likely = get_close_matches(name.lower(), HANDLERS, n=1, cutoff=0.8)
        if likely:
            logger.warning(
                "%s.%s is never called: did you mean %s?",
                type(listener).__name__,
                name,
                likely[0],
                extra={"listener": type(listener).__name__, "method": name},
            )
