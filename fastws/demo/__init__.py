"""What `fastws serve` runs by default: a chat with its page, and a relay.

| path                            | content                                                                    |
|---------------------------------|----------------------------------------------------------------------------|
| `/`                             | the chat's page                                                            |
| `/session`, `/login`, `/logout` | who is logged in (`fastws.demo.page`)                                      |
| `/ready`                        | 200 if the server accepts connections, otherwise 503                       |
| `/ws/chat/{channel}`            | the chat (its protocol is in `fastws.demo.chat`)                           |
| `/ws/{channel}`                 | a relay: each message goes unchanged to all members, including the sender  |

Everything except `/ready` is limited to the hosts and origins of `fastws.demo.hosts`.
"""

from __future__ import annotations

import secrets
from typing import Any

from fastws import ConfigurationError, Server, WebSocket
from fastws.config import Options
from fastws.demo.chat import Chat
from fastws.demo.ended import LIFETIME_SECONDS
from fastws.demo.hosts import Guarded, Hosts
from fastws.sessions import SignedCookieSessions

try:
    from fastws.demo.page import COOKIE, create_app
except ImportError as error:
    raise ConfigurationError("the demo needs Starlette: pip install 'fastws-server[server]'") from error

__all__ = ["Chat", "Relay", "create_server"]

READY_PATH = "/ready"
RELOAD_SECONDS = 2  # whoever is back within this time was never away


class Relay(Guarded):
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        for channel in ws.channels:
            ws.manager.broadcast(channel, message)


def create_server(*, secret: str | None = None, **options: Any) -> Server:
    """Returns the demo server, not yet started; `options` are those of `Server`.

    `secret` signs the sessions. By default it is random, so that a restart logs everybody out. With a fixed secret, a
    restart forgets logouts: a copied cookie works again, for up to two weeks after its login.

    `origins` are allowed in addition to the demo's own, and their hosts are served as well.
    """
    secret = secret or secrets.token_urlsafe(32)
    settings = Options(**options)
    hosts = Hosts(settings.host, settings.origins or ())
    chat = Chat(hosts)
    app = create_app(chat, hosts, secret, https_only=settings.ssl is not None)
    server = Server(http=app, **{"ready_path": READY_PATH, **options})
    sessions = SignedCookieSessions(secret, cookie=COOKIE, max_age=LIFETIME_SECONDS)
    # The server's own check of `origins` would refuse the demo's page, and clients that are not browsers.
    app.state.manager = server.endpoint(
        "/ws/chat/{channel}", chat, sessions=sessions, offline_after=RELOAD_SECONDS, origins=None
    )
    server.endpoint("/ws/{channel}", Relay(hosts), origins=None)
    return server
