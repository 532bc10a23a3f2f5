"""What `fastws demo` runs: a chat with its page, and a relay.

| path                            | content                                                                    |
|---------------------------------|----------------------------------------------------------------------------|
| `/`                             | the chat's page                                                            |
| `/session`, `/login`, `/logout` | who is logged in (`fastws.demo.page`)                                      |
| `/ready`                        | whether the server takes connections: 200 or 503                           |
| `/ws/chat`, `/ws/chat/{room}`   | the chat: fastws.v1, and what `fastws.demo.chat` adds to it                |
| `/fastws.js`                    | the client that its page speaks it by                                      |
| `/ws/{channel}`                 | a relay: what one member sends goes, as it is, to all, the sender included |

All but `/ready` and `/fastws.js` is for the hosts and origins of `fastws.demo.hosts` alone.
"""

from __future__ import annotations

import secrets
from typing import Any

from fastws import ConfigurationError, History, Server, WebSocket
from fastws.config import Options
from fastws.demo.ended import LIFETIME_SECONDS
from fastws.demo.hosts import Guarded, Hosts
from fastws.sessions import SignedCookieSessions
from fastws.web import script
from fastws.web.app import Web

try:
    from fastws.demo.chat import Chat
    from fastws.demo.page import COOKIE, create_app
except ImportError as error:
    raise ConfigurationError(f"the demo needs {error.name}: pip install 'fastws-server[server]'") from error

__all__ = ["Chat", "Relay", "create_server"]

READY_PATH = "/ready"
RELOAD_SECONDS = 2  # whoever is back within this time was never away
HISTORY_MESSAGES = 100  # of each channel that are kept at least, for whoever was away,
HISTORY_SECONDS = 3600  # for so long after the last


class Relay(Guarded):
    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        for channel in ws.channels:
            ws.manager.broadcast(channel, message)


def create_server(*, secret: str | None = None, **options: Any) -> Server:
    """Returns the demo server, not yet started; `options` are those of `Server`.

    `secret` signs the sessions. By default it is random, so that a restart logs everybody out. With a fixed secret, a
    restart forgets logouts: a copied cookie works again, for up to two weeks after its login. With a `backplane` the
    nodes have logouts, blocks and who is where in common, and need the same secret.

    `origins` are allowed in addition to the demo's own, and their hosts are served as well.
    """
    settings = Options(**options)
    if settings.backplane is not None and not secret:
        raise ConfigurationError(
            "nodes with a backplane need one secret for their sessions: give each the same --secret"
        )
    secret = secret or secrets.token_urlsafe(32)
    hosts = Hosts(settings.host, settings.origins or ())
    server = Server(**{"ready_path": READY_PATH, "http_websockets": False, **options})
    chat = Chat(hosts, server.shared)
    app = create_app(chat, hosts, secret, https_only=settings.ssl is not None)
    web = Web(app)
    script.add_to(web)
    server.reconfigure(http=web)
    sessions = SignedCookieSessions(secret, cookie=COOKIE, max_age=LIFETIME_SECONDS)
    # The server's own check of `origins` would refuse the demo's page, and whoever is not a browser.
    app.state.manager = server.endpoint(
        ["/ws/chat/{room}", "/ws/chat"],
        chat,
        sessions=sessions,
        offline_after=RELOAD_SECONDS,
        origins=None,
        logs={"*": History(size=HISTORY_MESSAGES, ttl=HISTORY_SECONDS)},
        presence=["*"],
    )
    server.endpoint("/ws/{channel}", Relay(hosts), origins=None)
    return server
