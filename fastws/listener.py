"""The listener: what a programmer writes."""

import logging
from collections.abc import Callable, Hashable
from typing import Any

from ._core import Request, WebSocket

__all__ = ["Listener"]

logger = logging.getLogger("fastws")


class Listener:
    """What happens on an endpoint. Override what you need; each method but `can_see` may be ``def`` or ``async def``.

    Order for one connection: ``on_handshake``, ``authorize``, ``on_open``, ``on_user_online``, ``on_channel_open``,
    ``on_subscribe``; then messages, in order and one at a time; then ``on_close`` and, for each channel,
    ``on_unsubscribe`` and ``on_channel_close``, then ``on_user_offline``. All run on the loop's thread. One that raises
    is logged, told to ``on_error``, and costs its own connection only (close 1011).
    """

    def on_handshake(self, request: Request) -> Any:
        """Admit a request. ``False`` refuses with 403, a ``Reject`` (returned or raised) with its own status, any
        other exception with 500. Says who it is by ``request.user = ...``."""

    def authorize(self, request: Request, channel: str | None) -> Any:
        """Whether the request may have the path's ``{channel}`` (None where it has none); False refuses with 403."""

    def on_open(self, ws: WebSocket) -> Any:
        """A connection is there and can be sent to. ``False`` closes it with 1008; it is never subscribed."""

    def on_message(self, ws: WebSocket, message: str | bytes) -> Any:
        """A whole message; text is ``str``, binary ``bytes``. What is returned, but None, is sent to the sender."""

    def on_close(self, ws: WebSocket, code: int, reason: str) -> Any:
        """A connection is over. ``code`` is the peer's; 1005 where it gave none, 1006 where no Close frame came
        (RFC 6455 7.1.5). ``ws.channels`` still tells where it was; nothing reaches it any more."""

    def on_error(self, ws: WebSocket, error: Exception) -> Any:
        """A handler raised, or the peer broke the protocol (``ProtocolError``)."""

    def on_subscribe(self, ws: WebSocket, channel: str, subscribers: int) -> Any:
        """A connection joined a channel that now has so many subscribers."""

    def on_unsubscribe(self, ws: WebSocket, channel: str, subscribers: int) -> Any:
        """A connection left a channel that now has so many subscribers."""

    def on_channel_open(self, channel: str) -> Any:
        """A channel came to be, before its first ``on_subscribe``."""

    def on_channel_close(self, channel: str) -> Any:
        """A channel is gone, after its last ``on_unsubscribe``."""

    def on_user_online(self, user: Hashable) -> Any:
        """A user's first connection on this endpoint; not told of one who is back within ``offline_after``."""

    def on_user_offline(self, user: Hashable) -> Any:
        """A user's last connection on this endpoint is gone, since ``offline_after`` seconds."""

    def on_shutdown(self) -> Any:
        """The server is to stop, or restart: it takes no more connections, and closes those that are there when this
        has ended, or after ``drain_timeout``. What is sent here arrives before the Close."""

    def can_see(self, viewer: Hashable, user: Hashable) -> Any:
        """Whether a viewer (None: a connection without a user) may know that a user is there; False hides.

        Asked for presence lists, notices of joins and leaves, and `ConnectionManager.notify`; never about oneself.
        Plain ``def`` only, as it is called in the middle of these. The answers are kept: when one has changed, call
        `ConnectionManager.visibility_changed`. One that raises hides.
        """
        return True


HANDLERS = [name for name in vars(Listener) if not name.startswith("_")]


def handler(listener: Listener, name: str) -> Callable[..., Any] | None:
    """The listener's own method of this name, bound; None where it has only the base class's."""
    method = getattr(listener, name, None)
    return None if method is None or getattr(method, "__func__", None) is vars(Listener)[name] else method


def warn_of_misspelt(listener: Listener) -> None:
    """Log a warning for each method whose name is almost a handler's."""
    for name in dir(type(listener)):
        is_alike = name not in HANDLERS and name.startswith(("on", "auth", "can"))
        if not is_alike or not callable(getattr(listener, name, None)):
            continue
        from difflib import get_close_matches  # slow to import, and hardly ever needed

        likely = get_close_matches(name.lower(), HANDLERS, n=1, cutoff=0.8)
        if likely:
            logger.warning(
                "%s.%s is never called: did you mean %s?",
                type(listener).__name__,
                name,
                likely[0],
                extra={"listener": type(listener).__name__, "method": name},
            )
