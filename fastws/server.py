"""The server: listens, decides on handshakes, and hands what is no WebSocket to an HTTP application."""

import asyncio
import contextlib
import http
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import fields, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, Self, Unpack

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
from .config import EndpointKeywords, EndpointOptions, OptionKeywords, Options, ServerKeywords
from .errors import Reject
from .listener import Listener
from .manager import ConnectionManager
from .routing import Router, Template
from .sockets import BACKLOG, address_of, open_sockets
from .steps import HANDLER_ERRORS, Runner, Steps, call

__all__ = ["Server"]

logger = logging.getLogger("fastws.server")

GOING_AWAY = 1001, "server is going away"  # RFC 6455 7.4.1
RESTART = 1012, "server restarts"  # of IANA's registry
RETRY = {"Retry-After": "5"}  # seconds
FULL = "the server takes no more connections now"
NO_STORE = {"Cache-Control": "no-store"}
UNDER_WAY = 1.0  # seconds that a connection accepted before a stop has for its handshake
GLANCE = 0.01  # seconds between two looks at the drain
HURRY = 2.0  # seconds that the HTTP application's end may take after a second signal


class Server:
    """A WebSocket server: endpoints on one port, and plain HTTP beside them.

    Takes the options of ``fastws.config.Options`` by name; each is a ConfigurationError (a ValueError) at once when
    it cannot work. Those of ``EndpointOptions`` may be overridden per endpoint.
    """

    def __init__(self, host: str = Options.host, port: int = Options.port, **options: Unpack[ServerKeywords]) -> None:
        self.options = Options(host=host, port=port, **options)
        self.endpoints: dict[str, ConnectionManager] = {}
        self._overrides: dict[str, EndpointKeywords] = {}  # by the endpoint's path: what it was given for itself
        self.state = SimpleNamespace()
        self._router: Router[ConnectionManager] = Router()
        self._runner = Runner()
        self._deciding: dict[WebSocket, asyncio.Task[None]] = {}
        self._reactor: Reactor | None = None
        self._address: tuple[str, int] | None = None
        self._sockets: list[socket.socket] = []
        self._transport_servers: list[asyncio.Server] = []
        self._ready = False
        self._stopping = False
        self._draining = False
        self._idle = asyncio.Event()
        self._hurry = asyncio.Event()  # a second signal
        self._http: Any = None

    @property
    def host(self) -> str:
        """The address it listens on; once started, the path of a unix socket, or what ``fd`` listens on."""
        return self.options.host if self._address is None else self._address[0]

    @property
    def port(self) -> int:
        """The port it listens on; once started, the real one, which is 0 for a unix socket."""
        return self.options.port if self._address is None else self._address[1]

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

    @property
    def is_ready(self) -> bool:
        """Whether it takes connections: from the end of `start` to the beginning of `stop`."""
        return self._ready

    def endpoint(
        self, path: str, listener: Listener | None = None, **options: Unpack[EndpointKeywords]
    ) -> ConnectionManager:
        """Serve WebSockets at a path template such as ``/ws/chat/{channel}``.

        ``options`` override the server's, for this endpoint. Raises ConfigurationError (a ValueError) for a path that
        cannot work or is taken.
        """
        template = Template(path)
        settings = self._endpoint_options(options)
        manager = ConnectionManager(self, template, Listener() if listener is None else listener, settings)
        self._router.add(template, manager)
        self.endpoints[path] = manager
        self._overrides[path] = options
        if self._reactor is not None:
            self._attach(manager)
        return manager

    def reconfigure(self, **options: Unpack[OptionKeywords]) -> None:
        """Replace options before the server starts; what an endpoint was given for itself stays as it is.

        Raises ConfigurationError for what cannot work, RuntimeError while the server runs; nothing is changed then.
        """
        if self._reactor is not None:
            raise RuntimeError("the server runs: reconfigure it before it starts, or after it has stopped")
        self.options = replace(self.options, **options)
        for path, manager in self.endpoints.items():
            manager.options = self._endpoint_options(self._overrides[path])

    def _endpoint_options(self, overrides: EndpointKeywords) -> EndpointOptions:
        """The server's options, but for those that an endpoint was given for itself."""
        inherited = {field.name: getattr(self.options, field.name) for field in fields(EndpointOptions)}
        unknown = sorted(overrides.keys() - inherited.keys())
        if unknown:
            raise TypeError(f"{unknown[0]!r} is not an endpoint option; choose from {', '.join(sorted(inherited))}")
        return EndpointOptions(**{**inherited, **overrides})

    # -- lifecycle

    def run(self, *, on_start: Callable[["Server"], object] | None = None) -> None:
        """Serve on uvloop until SIGINT or SIGTERM; a second signal drops who is still connected.

        ``on_start`` is called with the server once it listens.
        """
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run(on_start))

    async def _run(self, on_start: Callable[["Server"], object] | None) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()

        def on_signal() -> None:
            (self._hurry if stop.is_set() else stop).set()

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
        """Start on the running loop: the HTTP application first, then listen.

        Raises OSError for a taken port or path, ConfigurationError for one that cannot be listened on.
        """
        if self._reactor is not None:
            raise RuntimeError("the server runs already")
        loop = asyncio.get_running_loop()
        self._stopping = self._draining = False
        self._idle, self._hurry = asyncio.Event(), asyncio.Event()  # of this loop
        self._sockets = await open_sockets(self.options)
        host, port = address_of(self._sockets[0])
        self._address = host if self.options.fd or self.options.uds else self.options.host, port
        try:
            self._reactor = Reactor(loop, self, self.options, secrets.token_hex(5) + "-")
            for manager in self.endpoints.values():
                self._attach(manager)
            if self.options.http is not None:
                await self._start_http(self.options.http)
            for sock in self._sockets:
                await self._listen(sock)
            self._ready = True
        except BaseException:
            self._end()
            raise

    async def _start_http(self, app: Callable[..., Any]) -> None:
        from .http import HTTPApp  # needs the `server` extra

        self._http = HTTPApp(self._with_readiness(app), self.options, refusal=self._http_refusal, websocket=self._wire)
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

    async def stop(self, *, restart: bool | None = None) -> None:
        """Accept no more, tell the listeners (`on_shutdown`), and close every connection behind what is pending for it.

        They are closed with 1001, or with 1012 for a ``restart`` (None: as the option says), ``drain_rate`` a second
        within ``drain_timeout``, so that not all of them come back at once. A handshake that comes meanwhile is refused
        with 503. Peers that do not answer are dropped after ``close_timeout``; handlers get as long to finish. The HTTP
        application is shut down last.
        """
        reactor = self._reactor
        if reactor is None or self._stopping:
            return
        self._stopping = True
        self._ready = False
        timeout = self.options.close_timeout
        returns = self.options.restart if restart is None else restart
        try:
            self._close_doors(reactor)
            await self._unless_hurried(self._drain(reactor, *(RESTART if returns else GOING_AWAY)))
            reactor.shut()
            for manager in self.endpoints.values():
                manager._away.end_all()
            if not await self._unless_hurried(self._runner.finish(timeout)):
                await self._runner.finish(0)
            if self._http is not None and not await self._unless_hurried(self._http.shutdown(timeout)):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._http.shutdown(0), HURRY)
        finally:
            self._end()

    def _close_doors(self, reactor: Reactor) -> None:
        """Accept no more. A socket that is ours is closed, lest clients wait on it in vain; who waits on one that was
        passed to us is left to whoever listens on it next."""
        reactor.stop_listening(for_good=not self.options.fd)
        self._close_sockets()

    def _close_sockets(self) -> None:
        for server in self._transport_servers:
            server.close()
        for sock in self._sockets:
            sock.close()
        self._transport_servers, self._sockets = [], []

    async def _drain(self, reactor: Reactor, code: int, reason: str) -> None:
        """Let every connection go: those that the listeners can still say good-bye to, a few at a time."""
        loop = reactor.loop
        for _ in range(round(UNDER_WAY / GLANCE)):
            if not reactor.is_shaking_hands(UNDER_WAY):
                break
            await asyncio.sleep(GLANCE)
        self._draining = True
        end = loop.time() + self.options.drain_timeout
        farewells = [self._runner.run(self._tell_shutdown(manager)) for manager in self.endpoints.values()]
        if unfinished := [task for task in farewells if task is not None]:
            await asyncio.wait(unfinished, timeout=self.options.drain_timeout)
        await self._close(reactor.websockets(), code, reason, end - loop.time())
        reactor.hang_up()
        self._idle.clear()
        if not reactor.is_idle:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), self.options.close_timeout)

    def _tell_shutdown(self, manager: ConnectionManager) -> Steps:
        try:
            yield self._ask(manager, "on_shutdown")
        except HANDLER_ERRORS:
            logger.exception("on_shutdown of %s failed", manager.path)

    async def _close(self, connections: list[WebSocket], code: int, reason: str, seconds: float) -> None:
        """Close connections at the drain's rate, or at the one that gets through in so many seconds."""
        logger.info("the server stops: %d connections are to be closed", len(connections))
        at_once = self.options.drain_rate == 0 or seconds <= 0
        rate = float("inf") if at_once else max(self.options.drain_rate, len(connections) / seconds)
        loop = asyncio.get_running_loop()
        begin, closed = loop.time(), 0
        for ws in connections:
            early = begin + closed / rate - loop.time()
            if early > 0 and ws.is_open:
                await asyncio.sleep(max(early, GLANCE))
            closed += ws.is_open  # who has left uses up none of the rate
            ws.close(code, reason)

    async def _unless_hurried(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do something up to its end, or up to a second signal; whether it ended."""
        task, hurry = asyncio.ensure_future(work), asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait((task, hurry), return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurry.cancel()
            task.cancel()
        await asyncio.wait((task,))
        if task.cancelled():
            return False
        task.result()
        return True

    def _end(self) -> None:
        self._ready = False
        if self._reactor is not None:
            self._reactor.shut()
            self._reactor = None
        self._close_sockets()
        self._http = None

    # -- what the reactor tells

    def _on_request(self, ws: WebSocket) -> None:
        """A whole head came."""
        if is_upgrade(ws.request):
            self._begin(ws)
        elif self._asks_for_readiness(ws.request.method, ws.request.path):
            ws._refuse(_response(ws.request, *self._readiness(), NO_STORE))
        elif self._draining:
            self._refuse(ws, 503, "the server stops", RETRY)
        elif self._http is not None:
            self._hand_over(ws)
        elif ws.request.method == "GET" and self._router.find(ws.request._raw_path) is not None:
            self._refuse(ws, 426, "this path speaks WebSocket", UPGRADE_REQUIRED)
        else:
            self._refuse(ws, 404, "there is nothing here")

    def _begin(self, ws: WebSocket) -> None:
        """Decide on a handshake; while that waits for others, the peer may leave, or the time be up."""
        task = self._runner.run(self._handshake(ws))
        if task is not None:
            self._deciding[ws] = task
            task.add_done_callback(lambda _: self._deciding.pop(ws, None))

    def _on_abandoned(self, ws: WebSocket) -> None:
        """The peer left during its handshake: whoever decides on it need not go on."""
        logger.info("a handshake was abandoned by %s", ws.request.remote_address[0])
        self._stop_deciding(ws)

    def _on_overdue(self, ws: WebSocket) -> None:
        """No decision on a handshake within `handshake_timeout`."""
        self._refuse(ws, 503, "the handshake took longer than handshake_timeout", RETRY)
        self._stop_deciding(ws)

    def _stop_deciding(self, ws: WebSocket) -> None:
        task = self._deciding.get(ws)
        if task is not None:
            task.get_loop().call_soon(task.cancel)  # not before its first step, which awaits what a handler returned

    def _on_bad_request(self, ws: WebSocket, status: int, message: str) -> None:
        self._refuse(ws, status, message, RETRY if status == 503 else None)

    def _on_accept_paused(self, number: int) -> None:
        logger.error("accepting pauses: %s", os.strerror(number), extra={"errno": number})

    def _on_idle(self) -> None:
        self._idle.set()

    # -- readiness

    def _asks_for_readiness(self, method: str, path: str) -> bool:
        return path == self.options.ready_path and method in ("GET", "HEAD")

    def _readiness(self) -> tuple[int, dict[str, bool]]:
        return 200 if self._ready else 503, {"ready": self._ready}

    def _with_readiness(self, app: Callable[..., Any]) -> Callable[..., Any]:
        """The application as kept-alive connections meet it, whose requests pass us by."""
        if self.options.ready_path is None:
            return app

        async def answer(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or not self._asks_for_readiness(scope["method"], scope["path"]):
                await app(scope, receive, send)
                return
            status, content = self._readiness()
            fields, body = _json(content, NO_STORE)
            headers = [(name.encode(), value.encode()) for name, value in fields.items()]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        return answer

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
            request.session = yield call(sessions.find, request)
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
        most = manager.options.max_connections
        if self._draining or self._is_full() or (most is not None and manager.connection_count >= most):
            raise Reject(503, FULL, headers=RETRY)

    def _is_full(self) -> bool:
        """Whether there are `max_connections`: WebSockets, and those that the HTTP application has."""
        most = self.options.max_connections
        if most is None:
            return False
        plain = 0 if self._http is None else self._http.connection_count
        return plain + sum(manager.connection_count for manager in self.endpoints.values()) >= most

    @staticmethod
    def _ask(manager: ConnectionManager, name: str, *arguments: Any) -> Any:
        method = manager._handlers[name]
        return None if method is None else call(method, *arguments)

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
        extra = _log_refusal(ws.request.remote_address, status, message, error)
        request_id = extra["request_id"]
        try:
            ws._refuse(_response(ws.request, status, _error(status, message, request_id), headers or {}))
        except ValueError as bad_header:
            logger.error("request %s: %s", request_id, bad_header, extra=extra)
            ws._refuse(_response(ws.request, 500, _error(500, "the server failed", request_id), {}))

    def _hand_over(self, ws: WebSocket) -> None:
        """Give a plain request, and its connection, to the HTTP application."""
        if self._is_full():
            self._refuse(ws, 503, FULL, RETRY)
            return
        assert self._reactor is not None
        detached = ws._detach()
        if detached is None:
            return
        wire, data, claim = detached
        release = partial(self._reactor.release_address, claim)
        if isinstance(wire, int):
            self._http.adopt(socket.socket(fileno=wire), data, release)
        else:
            self._http.adopt_transport(wire, data, release)

    @staticmethod
    def _http_refusal(address: tuple[str, int] | None, status: int, message: str) -> bytes:
        """The answer to what came over HTTP and cannot be a request."""
        request_id = _log_refusal(address, status, message)["request_id"]
        return _response(Request(b""), status, _error(status, message, request_id), {})


class Wire(TransportWire, asyncio.BufferedProtocol):
    """The engine's protocol, as asyncio recognises one."""


def _phrase(status: int) -> str:
    """The status's name; a listener may refuse with one that has none."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


def _log_refusal(
    address: tuple[str, int] | None, status: int, message: str, error: BaseException | None = None
) -> dict[str, Any]:
    """Log a refusal under an id of its own; what was logged beside the message."""
    request_id = secrets.token_hex(8)
    extra = {"request_id": request_id, "status": status, "remote_address": address}
    level = logging.WARNING if error is None else logging.ERROR
    logger.log(level, "request %s refused: %d %r", request_id, status, message, exc_info=error, extra=extra)
    return extra


def _error(code: int, message: str, request_id: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "request_id": request_id}}


def _json(content: Mapping[str, Any], headers: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Header fields and body of a JSON response."""
    body = orjson.dumps(content)
    return {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}, body


def _response(request: Request, status: int, content: Mapping[str, Any], headers: Mapping[str, Any]) -> bytes:
    fields, body = _json(content, {"Connection": "close", **headers})
    lines = [f"HTTP/1.1 {status} {_phrase(status)}", *field_lines(fields)]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head if request.method == "HEAD" else head + body
