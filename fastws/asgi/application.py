"""The listener behind which an ASGI application is: one task of the application for each WebSocket."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from .._core import Request, WebSocket
from ..life.connection import Life
from ..life.steps import HANDLER_ERRORS, Steps, call
from ..listener import Listener
from ..manager import ConnectionManager
from ..routing import Template
from .conversation import Conversation, Taken
from .rooms import EXTENSION

__all__ = ["Anywhere", "Application", "ApplicationLife"]

NAME = "asgi"  # where other endpoints have a path: in metrics, logs and `Server.endpoints`
VERSIONS = {"version": "3.0", "spec_version": "2.4"}


class Anywhere(Template):
    """Every path that no other template has."""

    def __init__(self) -> None:
        super().__init__("/")
        self.path = NAME

    def match(self, raw_path: str) -> bool:
        """Any path matches."""
        return True

    def parameters(self, raw_path: str) -> dict[str, str]:
        """The application looks at the path itself."""
        return {}


class ApplicationLife(Life):
    """A life whose messages the application takes when it likes: nothing needs to run for one that waits."""

    def await_message(self, ws: WebSocket, awaitable: Any) -> None:
        """A message waits. Where sessions or tokens have a part in that, they wait for it as for any handler."""
        if isinstance(awaitable, Taken):
            awaitable.is_direct = True
        else:
            super().await_message(ws, awaitable)


class Application(Listener):
    """Hands WebSockets to an ASGI application.

    ``run`` runs the steps of a task, which the server waits for when it stops. The server sets ``app``, ``manager`` and
    ``state``, the one of the application's lifespan.
    """

    def __init__(self, run: Callable[[Steps], object]) -> None:
        self.app: Callable[..., Any]
        self.manager: ConnectionManager
        self.state: Mapping[str, Any] = {}
        self._run = run
        self._conversations: dict[Request, Conversation] = {}

    @property
    def extensions(self) -> dict[str, Any]:
        """Those of a plain request's scope, for `channels`."""
        return {EXTENSION: {"manager": self.manager}}

    # -- calls from the server

    async def on_handshake(self, request: Request) -> None:
        """Have the application decide. A cancellation means that nobody waits for that any more."""
        conversation = Conversation(self.manager, request)
        self._conversations[request] = conversation
        try:
            self._run(self._call(conversation))
            await conversation.decision
        except BaseException:
            self._lose(request)
            raise
        # From here to on_open nothing is awaited.
        asyncio.get_running_loop().call_soon(self._lose_unless_open, request)

    def on_open(self, ws: WebSocket) -> None:
        """The 101 is on its way."""
        self._conversations[ws.request].opened(ws)

    def on_message(self, ws: WebSocket, message: str | bytes) -> Taken | None:
        """A message arrived; further ones wait until the application has taken it."""
        return self._conversations[ws.request].offer(message)

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
        """The connection is over."""
        self._lose(ws.request, code, reason)

    def drained(self, ws: WebSocket) -> None:
        """What a connection had pending is written."""
        conversation = self._conversations.get(ws.request)
        if conversation is not None:
            conversation.drained()

    # -- the application's tasks

    def _call(self, conversation: Conversation) -> Steps:
        try:
            yield call(self.app, self._scope(conversation), conversation.receive, conversation.send)
        except HANDLER_ERRORS as error:
            conversation.returned(error)
        else:
            conversation.returned(None)

    def _lose(self, request: Request, *end: Any) -> None:
        conversation = self._conversations.pop(request, None)
        if conversation is not None:
            conversation.lost(*end)

    def _lose_unless_open(self, request: Request) -> None:
        conversation = self._conversations.get(request)
        if conversation is not None and conversation.ws is None:
            self._lose(request)

    def _scope(self, conversation: Conversation) -> dict[str, Any]:
        request, server = conversation.request, self.manager.server
        host, port = request.remote_address
        return {
            "type": "websocket",
            "asgi": VERSIONS.copy(),
            "http_version": "1.1",
            "scheme": "wss" if request.is_secure else "ws",
            "server": (server.host or "0.0.0.0", server.port or None),
            "client": (host, port) if host else None,
            "root_path": "",
            "path": request.path,
            "raw_path": request._raw_path.encode("latin-1"),
            "query_string": request.query_string.encode("latin-1"),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers._fields],
            "subprotocols": request.subprotocols,
            "state": dict(self.state),
            "extensions": {
                "websocket.http.response": {},
                "websocket.subscribe": {},
                "websocket.unsubscribe": {},
                "websocket.publish": {},
                EXTENSION: {"manager": self.manager, "conversation": conversation},
            },
        }
