"""The server: listens, decides on handshakes, and hands what is no WebSocket to an HTTP application."""

import asyncio
import contextlib
import errno
import http
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import SimpleNamespace
from typing import Any, Self

import orjson
import uvloop

from ._core import (
    UPGRADE_REQUIRED,
    Reactor,
    Request,
    TransportWire,
    WebSocket,
    accept_response,
    check_upgrade,
    field_lines,
    has_epoll,
    is_upgrade,
)
from .config import EndpointOptions, Options
from .errors import ConfigurationError, Reject
from .listener import Listener
from .manager import ConnectionManager
from .routing import Router, Template
from .steps import HANDLER_ERRORS, Runner, Steps

__all__ = ["Server"]

logger = logging.getLogger("fastws.server")

BACKLOG = 4096  # connections that the kernel may hold for us


class Server:
    """A WebSocket server: endpoints on one port, and plain HTTP beside them.

    Takes the options of ``fastws.config.Options`` by name; each is a ConfigurationError (a ValueError) at once when
    it cannot work. Those of ``EndpointOptions`` may be overridden per endpoint.
    """

    def __init__(self, host: str = Options.host, port: int = Options.port, **options: Any) -> None:
        self.options = Options(host=host, port=port, **options)
        self.endpoints: dict[str, ConnectionManager] = {}
        self.state = SimpleNamespace()
        self._router: Router[ConnectionManager] = Router()
        self._runner = Runner()
        self._reactor: Reactor | None = None
        self._port = port
        self._sockets: list[socket.socket] = []
        self._transport_servers: list[asyncio.Server] = []
        self._stopping = False
        self._idle: asyncio.Event | None = None
        self._hurry: asyncio.Event | None = None
        self._http: Any = None

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self.options.host

    @property
    def port(self) -> int:
        """The port it listens on; once started, the real one."""
        return self._port

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop it runs on; raises RuntimeError when it does not run."""
        if self._reactor is None:
            raise RuntimeError("the server does not run")
        return self._reactor.loop

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._reactor is not None

    def endpoint(self, path: str, listener: Listener | None = None, **options: Any) -> ConnectionManager:
        """Serve WebSockets at a path template such as ``/ws/chat/{channel}``.

        ``options`` override the server's, for this endpoint. Raises ConfigurationError (a ValueError) for a path that
        cannot work or is taken.
        """
        template = Template(path)
        inherited = {field.name: getattr(self.options, field.name) for field in fields(EndpointOptions)}
        unknown = sorted(options.keys() - inherited.keys())
        if unknown:
            raise TypeError(f"{unknown[0]!r} is no option of an endpoint: there are {', '.join(sorted(inherited))}")
        settings = EndpointOptions(**{**inherited, **options})
        manager = ConnectionManager(self, template, Listener() if listener is None else listener, settings)
        self._router.add(template, manager)
        self.endpoints[path] = manager
        if self._reactor is not None:
            self._attach(manager)
        return manager

    # -- lifecycle

    def run(self, *, on_start: Callable[["Server"], object] | None = None) -> None:
        """Serve on uvloop until SIGINT or SIGTERM; a second signal drops who is still connected.

        ``on_start`` is called with the server once it listens.
        """
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run(on_start))

    async def _run(self, on_start: Callable[["Server"], object] | None) -> None:
        loop = asyncio.get_running_loop()
        stop, self._hurry = asyncio.Event(), asyncio.Event()

        def on_signal() -> None:
            (self._hurry if stop.is_set() else stop).set()  # type: ignore[union-attr]

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal)
        await self.start()
        try:
            if on_start is not None:
                on_start(self)
            await stop.wait()
        finally:
            await self.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start on the running loop: the HTTP application first, then listen. Raises OSError for a taken port."""
        if self._reactor is not None:
            raise RuntimeError("the server runs already")
        loop = asyncio.get_running_loop()
        self._stopping = False
        self._idle = asyncio.Event()
        self._sockets = await _bind(self.options.host, self.options.port)
        self._port = self._sockets[0].getsockname()[1]
        try:
            self._reactor = Reactor(loop, self, self.options, secrets.token_hex(5) + "-")
            for manager in self.endpoints.values():
                self._attach(manager)
            if self.options.http is not None:
                await self._start_http(self.options.http)
            for sock in self._sockets:
                await self._listen(sock)
        except BaseException:
            self._end()
            raise

    async def _start_http(self, app: Callable[..., Any]) -> None:
        from .http import HTTPApp  # needs the `server` extra

        self._http = HTTPApp(app, websocket=self._wire)
        await self._http.startup()

    async def _listen(self, sock: socket.socket) -> None:
        assert self._reactor is not None
        if self.options.ssl is None and has_epoll:
            self._reactor.listen(sock)
            return
        server = await self._reactor.loop.create_server(
            self._wire,
            sock=sock.dup(),
            ssl=self.options.ssl,
            backlog=BACKLOG,
            ssl_handshake_timeout=None if self.options.ssl is None else self.options.handshake_timeout,
        )
        self._transport_servers.append(server)

    def _wire(self) -> "Wire":
        assert self._reactor is not None
        return Wire(self._reactor, self.options.ssl is not None)

    def _attach(self, manager: ConnectionManager) -> None:
        assert self._reactor is not None
        manager._attach(self._reactor, manager._message_handler(), manager.options)

    async def stop(self) -> None:
        """Accept no more, close every connection with 1001 behind what is pending for it, and let handlers finish.

        Peers that do not answer are dropped after ``close_timeout``. The HTTP application is shut down last.
        """
        reactor = self._reactor
        if reactor is None or self._stopping:
            return
        self._stopping = True
        reactor.stop_listening()
        for server in self._transport_servers:
            server.close()
        for ws in reactor.websockets():
            ws.close(1001, "server is going away")
        try:
            await self._until_idle(self.options.close_timeout)
            reactor.shut()
            for manager in self.endpoints.values():
                manager._away.end_all()
            await self._runner.finish(self.options.close_timeout)
            if self._http is not None:
                await self._http.shutdown(self.options.close_timeout)
        finally:
            self._end()

    async def _until_idle(self, timeout: float) -> None:
        """Wait until the last connection is gone, ``timeout`` seconds or a second signal."""
        assert self._idle is not None and self._reactor is not None
        self._idle.clear()
        if self._reactor.is_idle:
            return
        waits = [asyncio.ensure_future(event.wait()) for event in (self._idle, self._hurry) if event is not None]
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    def _end(self) -> None:
        if self._reactor is not None:
            self._reactor.shut()
            self._reactor = None
        for sock in self._sockets:
            sock.close()
        self._sockets = []
        for server in self._transport_servers:
            server.close()
        self._transport_servers = []
        self._http = None

    # -- what the reactor tells

    def _on_request(self, ws: WebSocket) -> None:
        """A whole head came."""
        if is_upgrade(ws.request):
            self._runner.run(self._handshake(ws))
        elif self._http is not None and not self._stopping:
            self._hand_over(ws)
        elif ws.request.method == "GET" and self._router.find(ws.request._raw_path) is not None:
            self._refuse(ws, 426, "this path speaks WebSocket", UPGRADE_REQUIRED)
        else:
            self._refuse(ws, 404, "there is nothing here")

    def _on_bad_request(self, ws: WebSocket, status: int, message: str) -> None:
        self._refuse(ws, status, message)

    def _on_accept_paused(self, number: int) -> None:
        logger.error("accepting pauses: %s", os.strerror(number), extra={"errno": number})

    def _on_idle(self) -> None:
        if self._idle is not None:
            self._idle.set()

    # -- the handshake

    def _handshake(self, ws: WebSocket) -> Steps:
        request = ws.request
        try:
            manager, channel = self._admit(request)
            with manager._deciding(request):
                yield from self._decide(manager, request, channel)
            response = accept_response(request)
        except Reject as reject:
            extra = {**(request.response_headers or {}), **reject.headers}
            self._refuse(ws, reject.status, reject.reason or _phrase(reject.status), extra)
        except HANDLER_ERRORS as error:
            self._refuse(ws, 500, "the server failed", error=error)
        else:
            if ws._accept(manager, response):
                yield from manager._coming(ws, channel)

    def _decide(self, manager: ConnectionManager, request: Request, channel: str | None) -> Steps:
        """Who it is and whether he or she may: sessions, auth and the listener are asked; raises a Reject."""
        sessions, auth = manager.options.sessions, manager.options.auth
        not_yours = "this channel is not yours" if channel is not None else "this is not yours"
        if sessions is not None:
            request.session = yield sessions.find(request)
        if auth is not None:
            auth.authenticate(request)
        verdict = yield self._ask(manager, "on_handshake", request)
        self._judge(verdict, "the handshake was refused")
        if auth is not None:
            self._judge(auth.allows(request, channel), not_yours)
        verdict = yield self._ask(manager, "authorize", request, channel)
        self._judge(verdict, not_yours)
        self._check_room(manager)
        hash(request.user)  # one that is not hashable fails here, and not when it is looked up

    def _admit(self, request: Request) -> tuple[ConnectionManager, str | None]:
        """All that can be said against a handshake before the listener is asked; the endpoint and the channel."""
        check_upgrade(request)
        found = self._router.find(request._raw_path)
        if found is None:
            raise Reject(404, "there is no endpoint at this path")
        template, manager = found
        request._template = template
        origins = manager.options.origins
        if origins is not None and request.headers.get("origin") not in origins:
            raise Reject(403, "this origin is not allowed")
        self._check_room(manager)
        request.subprotocol = next((p for p in manager.options.subprotocols if p in request.subprotocols), None)
        return manager, request.path_parameters.get("channel")

    def _check_room(self, manager: ConnectionManager) -> None:
        most = self.options.max_connections
        is_full = most is not None and sum(m.connection_count for m in self.endpoints.values()) >= most
        most = manager.options.max_connections
        if self._stopping or is_full or (most is not None and manager.connection_count >= most):
            raise Reject(503, "the server takes no more connections now", headers={"Retry-After": "5"})

    @staticmethod
    def _ask(manager: ConnectionManager, name: str, *arguments: Any) -> Any:
        method = manager._handlers[name]
        return None if method is None else method(*arguments)

    @staticmethod
    def _judge(verdict: Any, reason: str) -> None:
        if isinstance(verdict, Reject):
            raise verdict
        if verdict is False:
            raise Reject(403, reason)

    def _refuse(
        self,
        ws: WebSocket,
        status: int,
        message: str,
        headers: Mapping[str, Any] | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Answer with a status and a JSON body that says why, and log it under the same id."""
        request_id = secrets.token_hex(8)
        extra = {"request_id": request_id, "status": status, "remote_address": ws.request.remote_address}
        level = logging.WARNING if error is None else logging.ERROR
        logger.log(level, "request %s refused: %d %s", request_id, status, message, exc_info=error, extra=extra)
        try:
            ws._refuse(_response(ws.request, status, message, request_id, headers or {}))
        except ValueError as bad_header:
            logger.error("request %s: %s", request_id, bad_header, extra=extra)
            ws._refuse(_response(ws.request, 500, "the server failed", request_id, {}))

    def _hand_over(self, ws: WebSocket) -> None:
        """Give a plain request, and its connection, to the HTTP application."""
        detached = ws._detach()
        if detached is None:
            return
        wire, data = detached
        if isinstance(wire, int):
            self._http.adopt(socket.socket(fileno=wire), data)
        else:
            self._http.adopt_transport(wire, data)


class Wire(TransportWire, asyncio.BufferedProtocol):
    """The engine's protocol, as asyncio recognises one."""


def _phrase(status: int) -> str:
    """The status's name; a listener may refuse with one that has none."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


def _response(request: Request, status: int, message: str, request_id: str, headers: Mapping[str, Any]) -> bytes:
    body = orjson.dumps({"error": {"code": status, "message": message, "request_id": request_id}})
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close", **headers}
    lines = [f"HTTP/1.1 {status} {_phrase(status)}", *field_lines(fields)]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head if request.method == "HEAD" else head + body


async def _bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on every address of ``host``, all on one port."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigurationError(f"host={host!r} is no address of this machine: {error.strerror}") from None
    sockets: list[socket.socket] = []
    with contextlib.ExitStack() as opened:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = opened.enter_context(socket.socket(family, kind, protocol))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((address[0], port, *address[2:]))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL and len(found) > 1:
                    continue
                raise
            port = sock.getsockname()[1]
            sock.listen(BACKLOG)
            sock.setblocking(False)
            sockets.append(sock)
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, f"no address of {host!r} can be listened on")
        opened.pop_all()
    return sockets
