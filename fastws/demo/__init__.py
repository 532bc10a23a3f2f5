"""What `fastws serve` runs when it is given nothing: a chat with its page, and a relay.

| path                 | what                                                                       |
|----------------------|----------------------------------------------------------------------------|
| `/`                  | the chat's page                                                            |
| `/ws/chat/{channel}` | the chat (`fastws.demo.chat` has its protocol)                             |
| `/ws/{channel}`      | a relay: what one member sends goes, as it is, to all, the sender included |
"""

from __future__ import annotations

from typing import Any

from fastws import Listener, Server, WebSocket
from fastws.demo.chat import Chat
from fastws.demo.page import page

__all__ = ["Chat", "Relay", "create_server", "page"]


class Relay(Listener):
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        for channel in ws.channels:
            ws.manager.broadcast(channel, message)


def create_server(**options: Any) -> Server:
    """The demo server, not yet started; `options` are those of `Server`."""
    server = Server(http=page, **options)
    server.endpoint("/ws/chat/{channel}", Chat())
    server.endpoint("/ws/{channel}", Relay())
    return server
