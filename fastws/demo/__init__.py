"""What `fastws serve` runs when it is given nothing: a chat with its page, and a relay.

| path                            | what                                                                       |
|---------------------------------|----------------------------------------------------------------------------|
| `/`                             | the chat's page                                                            |
| `/session`, `/login`, `/logout` | who is logged in (`fastws.demo.page`)                                      |
| `/ready`                        | whether the server takes connections: 200 or 503                           |
| `/ws/chat/{channel}`            | the chat (`fastws.demo.chat` has its protocol)                             |
| `/ws/{channel}`                 | a relay: what one member sends goes, as it is, to all, the sender included |
"""

from __future__ import annotations

import secrets
from typing import Any

from fastws import ConfigurationError, Listener, Server, WebSocket
from fastws.demo.chat import Chat
from fastws.sessions import SignedCookieSessions

try:
    from fastws.demo.page import COOKIE, create_app
except ImportError as error:
    raise ConfigurationError("the demo needs Starlette: pip install 'fastws-server[server]'") from error

__all__ = ["Chat", "Relay", "create_server"]

READY = "/ready"
RELOAD = 2  # seconds; whoever is back by then was never away


class Relay(Listener):
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        for channel in ws.channels:
            ws.manager.broadcast(channel, message)


def create_server(*, secret: str | None = None, **options: Any) -> Server:
    """The demo server, not yet started; `options` are those of `Server`.

    `secret` signs the sessions. Without one it is random, so that a restart logs everybody out.
    """
    secret = secret or secrets.token_urlsafe(32)
    chat = Chat()
    app = create_app(chat, secret, https_only=options.get("ssl") is not None)
    server = Server(http=app, **{"ready_path": READY, **options})
    sessions = SignedCookieSessions(secret, cookie=COOKIE)
    app.state.manager = server.endpoint("/ws/chat/{channel}", chat, sessions=sessions, offline_after=RELOAD)
    server.endpoint("/ws/{channel}", Relay())
    return server
