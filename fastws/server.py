"""The server: endpoints, and how it starts, runs and stops."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self, Unpack

import uvloop

from ._core import Reactor, TransportWire, WebSocket, has_epoll
from .answers import Answer, with_own_answers
from .config import EndpointKeywords, EndpointOptions, OptionKeywords, Options, ServerKeywords
from .errors import ConfigurationError
from .life.admission import Admission
from .life.connection import Life
from .life.steps import Runner
from .listener import Listener
from .manager import ConnectionManager
from .proxies import Peer
from .routing import Router, Template
from .sockets import BACKLOG, address_of, open_sockets

if TYPE_CHECKING:
    from .asgi.application import Application
    from .cluster.members import NodeInfo
    from .cluster.shared import SharedDict

__all__ = ["Server"]

logger = logging.getLogger("fastws.server")

GOING_AWAY = 1001, "server is stopping"  # RFC 6455 7.4.1
RESTART = 1012, "server is restarting"  # IANA's registry of close codes
HANDSHAKE_GRACE_SECONDS = 1.0  # for the handshake of a connection accepted before the stop
DRAIN_POLL_SECONDS = 0.01  # between checks while draining
LIVE_OPTIONS = {"origins", "restart"}  # those that may change while the server runs
HTTP_STOP_SECONDS_WHEN_HURRIED = 2.0  # for the HTTP application, after a second signal


class Server:
    """A WebSocket server: endpoints and plain HTTP on one port.

    Takes the options of ``fastws.config.Options`` by name, and raises ConfigurationError (a ValueError) for one that
    cannot work. Those of ``EndpointOptions`` can be overridden per endpoint.
    """

    def __init__(self, host: str = Options.host, port: int = Options.port, **options: Unpack[ServerKeywords]) -> None:
        self.options = Options(host=host, port=port, **options)
        self.endpoints: dict[str, ConnectionManager] = {}
        self._overrides: dict[str, EndpointKeywords] = {}  # by the endpoint's path: the options given to it
        self.state = SimpleNamespace()
        #: The server's own answers to GET, by path: also while it is full, or stops.
        self.pages: dict[str, Callable[[], Answer]] = {}
        #: Paths of the HTTP application that a few may ask for while the server is full.
        self.spared: set[str] = set()
        self._router: Router[Life] = Router()
        self._runner = Runner()
        self._admission: Admission | None = None  # set while the server runs, like the next
        self._reactor: Reactor | None = None
        self._address: tuple[str, int] | None = None
        self._sockets: list[socket.socket] = []
        self._transport_servers: dict[socket.socket, asyncio.Server] = {}
        self._hurry = asyncio.Event()  # a second signal
        self._shared: dict[str, Any] = {}  # cluster.shared.SharedDict
        self._node: Any = None  # a cluster.node.Node, while the server runs and any endpoint needs it
        self._application: Application | None = None  # takes the WebSockets that are `http`'s
        self._place_application()

    @property
    def host(self) -> str:
        """The address it listens on; once started, also the path of a unix socket or the address of ``fd``."""
        return self.options.host if self._address is None else self._address[0]

    @property
    def port(self) -> int:
        """The port it listens on; once started, the actual one, which is 0 for a unix socket."""
        return self.options.port if self._address is None else self._address[1]

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop it runs on; raises RuntimeError if it is not running."""
        if self._reactor is None:
            raise RuntimeError("the server is not running")
        return self._reactor.loop

    @property
    def is_running(self) -> bool:
        """Whether it has been started and not stopped."""
        return self._reactor is not None

    @property
    def is_ready(self) -> bool:
        """Whether it accepts connections: from the end of `start` to the beginning of `stop`."""
        return self._admission is not None and self._admission.is_ready

    @property
    def stats(self) -> dict[str, Any]:
        """Counters since the start, over all endpoints, as a dict; empty while it is not running.

        ``handshakes`` counts the answers by endpoint ("" where the request may not know of one) and status,
        ``received_bytes`` and ``sent_bytes`` what went over WebSockets and in handshakes, ``flushes`` those that wrote
        anything, by how long they took, ``pings`` those that were timed. ``backlog_bytes`` wait to be sent now,
        ``arena_bytes`` are held for that. ``cluster``, with logs or a backplane: nodes, whether the store answers, logs
        and what was lost.
        """
        if self._reactor is None or self._admission is None:
            return {}
        arena = self._reactor.counters["arena_bytes"]
        counted = {"handshakes": dict(self._admission.handshakes), "arena_bytes": arena, **self._reactor.figures}
        return counted if self._node is None else {**counted, "cluster": self._node.stats}

    @property
    def nodes(self) -> "list[NodeInfo]":
        """All servers that are one with this, itself first, as of their last signs of life; empty without a backplane.

        Each has ``id``, ``address``, ``started`` (Unix time in seconds), ``connections``, ``version`` and ``is_self``.
        """
        return [] if self._node is None or self._node.is_alone else self._node.members.nodes

    @property
    def asgi(self) -> ConnectionManager:
        """The manager of all WebSockets of the HTTP application; raises RuntimeError where it takes none."""
        if self._application is None:
            raise RuntimeError("no application takes WebSockets here: give Server(http=...) one, and http_websockets")
        return self._application.manager

    @property
    def is_connected(self) -> bool:
        """Whether the backplane answers; False without one."""
        return self._node is not None and not self._node.is_alone and self._node.store.is_connected

    def endpoint(
        self, path: str | Sequence[str], listener: Listener | None = None, **options: Unpack[EndpointKeywords]
    ) -> ConnectionManager:
        """Serve WebSockets at a path template such as ``/ws/chat/{channel}``, or at several.

        Several templates, such as ``["/ws", "/ws/{channel}"]``, are one endpoint, with users and channels in common;
        the first is its name, in `endpoints` and as the manager's ``path``. ``options`` override the server's for this
        endpoint. Raises ConfigurationError (a ValueError) for a path that cannot work or is taken; the endpoint's other
        paths are not served then either.
        """
        templates = [Template(each) for each in ([path] if isinstance(path, str) else path)]
        if not templates:
            raise ConfigurationError("an endpoint needs a path: use one such as '/ws', or several")
        name = templates[0].path
        settings = self._endpoint_options(options)
        manager = ConnectionManager(self, templates[0], listener or Listener(), settings, self._runner)
        self._widen(manager)
        self._router.add(templates, manager.life)
        self.endpoints[name] = manager
        self._overrides[name] = options
        if self._reactor is not None:
            if manager.reaches_others:
                raise RuntimeError("the server is running: an endpoint with logs or a backplane has to be there before")
            self._attach(manager)
        return manager

    def _place_application(self) -> None:
        """Have handshakes at paths that no endpoint has go to the HTTP application, if it takes any."""
        app, had = self.options.http, self._application
        if app is None or not self.options.http_websockets or not getattr(app, "takes_websockets", True):
            if had is not None:
                del self.endpoints[had.manager.path], self._overrides[had.manager.path]
            self._application = self._router.otherwise = None
            return
        if had is None:
            from .asgi.application import Anywhere, Application, ApplicationLife

            self._application = had = Application(self._runner.run)
            had.manager = ConnectionManager(self, Anywhere(), had, self._endpoint_options({}), self._runner)
            had.manager.life.__class__ = ApplicationLife
            had.manager.life.on_drained.add(had.drained)
            self._widen(had.manager)
            self._router.otherwise = had.manager.template, had.manager.life
            self.endpoints[had.manager.path], self._overrides[had.manager.path] = had.manager, {}
        had.app = app

    def shared(self, name: str) -> "SharedDict":
        """Returns the dict of this name, which all nodes with the same backplane have in common."""
        if name not in self._shared:
            from .cluster.start import share

            self._shared[name] = share(name, self._node)
        shared: SharedDict = self._shared[name]
        return shared

    def _widen(self, manager: ConnectionManager) -> None:
        """Make a manager one that has logs and other nodes, if it has: no other does a step for these."""
        if self.options.backplane is not None or manager.options.logs:
            from .cluster.start import take_over

            take_over(manager)

    def reconfigure(self, **options: Unpack[OptionKeywords]) -> None:
        """Replace options before the server starts; options given to an endpoint stay as they are.

        ``origins`` and ``restart`` may also be replaced while the server runs. Raises ConfigurationError for a value
        that cannot work and RuntimeError for any other option while the server is running; then nothing changes.
        """
        if self._reactor is not None and options.keys() - LIVE_OPTIONS:
            raise RuntimeError("the server is running: reconfigure it before it starts, or after it has stopped")
        self.options = replace(self.options, **options)
        self._place_application()
        for path, manager in self.endpoints.items():
            manager.life.options = self._endpoint_options(self._overrides[path])
            self._widen(manager)

    def _endpoint_options(self, overrides: EndpointKeywords) -> EndpointOptions:
        """Returns the server's options, overridden by those given to an endpoint."""
        inherited = {field.name: getattr(self.options, field.name) for field in fields(EndpointOptions)}
        unknown = sorted(overrides.keys() - inherited.keys())
        if unknown:
            raise TypeError(f"{unknown[0]!r} is not an endpoint option; choose from {', '.join(sorted(inherited))}")
        return EndpointOptions(**{**inherited, **overrides})

    # -- lifecycle

    def run(
        self,
        *,
        on_start: Callable[["Server"], object] | None = None,
        on_stop: Callable[["Server"], object] | None = None,
    ) -> None:
        """Serve on uvloop until SIGINT or SIGTERM; a second signal drops whoever is still connected.

        ``on_start`` is called with the server once it listens, ``on_stop`` when it was told to stop.
        """
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run(on_start or _nothing, on_stop or _nothing))

    async def _run(self, on_start: Callable[["Server"], object], on_stop: Callable[["Server"], object]) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()

        def on_signal() -> None:
            (self._hurry if stop.is_set() else stop).set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal)
        await self.start()
        try:
            on_start(self)
            await stop.wait()
            on_stop(self)
        finally:
            await self.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start on the running loop: the HTTP application first, then listen.

        Raises OSError if the port or path is taken, ConfigurationError if it cannot be listened on.
        """
        if self._reactor is not None:
            raise RuntimeError("the server is already running")
        loop = asyncio.get_running_loop()
        self._runner.is_stopping = False
        self._hurry = asyncio.Event()  # of this loop
        self._sockets = await open_sockets(self.options)
        host, port = address_of(self._sockets[0])
        self._address = host if self.options.fd or self.options.uds else self.options.host, port
        run_id = os.urandom(5).hex()
        try:
            admission = self._admission = Admission(self.options, self._router, self._runner, self.pages, self.spared)
            admission.reactor = self._reactor = Reactor(loop, admission, self.options, run_id + "-")
            await self._start_node(run_id)
            for manager in self.endpoints.values():
                self._attach(manager)
            if self.options.http is not None:
                admission.http = await self._start_http(self.options.http, admission)
            for sock in self._sockets:
                await self._listen(sock)
            admission.is_ready = True
        except BaseException:
            await self._stop_node()
            self._release()
            raise

    async def _start_node(self, run_id: str) -> None:
        """Begin what managers have in common with other servers, or with themselves a moment ago: logs."""
        managers = [manager for manager in self.endpoints.values() if manager.reaches_others]
        if managers or (self._shared and self.options.backplane is not None):
            from .cluster.start import start_node

            address = self.host if self.port == 0 else f"{self.host}:{self.port}"
            self._node = await start_node(run_id, address, self.options, managers, self._shared.values())

    async def _stop_node(self) -> None:
        if self._node is not None:
            node, self._node = self._node, None
            await node.stop()

    async def _start_http(self, app: Callable[..., Any], admission: Admission) -> Any:
        from .http import HTTPApp  # needs the `server` extra

        served = with_own_answers(app, admission.page, admission.instead_of_404)
        extensions = None if self._application is None else self._application.extensions
        http = HTTPApp(served, self.options, refusal=admission.refuse_http, websocket=self._wire, extensions=extensions)
        await http.startup()
        if self._application is not None:
            self._application.state = http.state
        return http

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
        self._transport_servers[sock] = server

    async def accept_also(self, sock: socket.socket) -> None:
        """Accept on one more listening, non-blocking socket; it is the server's until `accept_no_more`, or the stop."""
        if not self.is_ready:
            sock.close()
            return
        self._sockets.append(sock)
        await self._listen(sock)

    def accept_no_more(self, sock: socket.socket) -> None:
        """Leave a socket of `accept_also`, and who waits in its queue, to others, and close it."""
        if sock not in self._sockets or self._reactor is None:
            return
        self._sockets.remove(sock)
        if sock in self._transport_servers:
            self._transport_servers.pop(sock).close()
        else:
            self._reactor.stop_listening(for_good=False)
            for other in self._sockets:
                self._reactor.listen(other)
        sock.close()

    def _wire(self, peer: Peer | None = None) -> "Wire":
        """Returns a new wire; ``peer`` is given if HTTP had the transport before, and there are trusted proxies."""
        assert self._reactor is not None
        return Wire(self._reactor, self.options.ssl is not None, *(peer or ()))

    def _attach(self, manager: ConnectionManager) -> None:
        assert self._reactor is not None
        manager._attach(self._reactor, manager.life.message_handler(), manager.options)
        attach = getattr(manager.options.sessions, "attach", None)
        if attach is not None:
            attach(manager)

    async def stop(self, *, restart: bool | None = None) -> None:
        """Stop accepting, call each `on_shutdown`, and close every connection once its pending output is sent.

        Connections are closed with 1001, or with 1012 for a ``restart`` (None: as in the options), ``drain_rate`` per
        second within ``drain_timeout``, so that clients do not all reconnect at once. Handshakes that arrive meanwhile
        are refused with 503. Peers that do not answer are dropped after ``close_timeout``, and handlers have as long to
        finish. The HTTP application is shut down last.
        """
        reactor, admission = self._reactor, self._admission
        if reactor is None or admission is None or self._runner.is_stopping:
            return
        self._runner.is_stopping = True
        admission.is_ready = False
        if self._node is not None:
            self._node.leave()
        timeout = self.options.close_timeout
        restarts = self.options.restart if restart is None else restart
        try:
            self._stop_accepting(reactor)
            await self._run_unless_hurried(self._drain(reactor, admission, *(RESTART if restarts else GOING_AWAY)))
            reactor.shut()
            for manager in self.endpoints.values():
                manager.life.company.away.end_all()
            if not await self._run_unless_hurried(self._runner.finish(timeout)):
                await self._runner.finish(0)
            await self._stop_node()
            http = admission.http
            if http is not None and not await self._run_unless_hurried(http.shutdown(timeout)):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(http.shutdown(0), HTTP_STOP_SECONDS_WHEN_HURRIED)
        finally:
            await self._stop_node()
            self._release()

    def _stop_accepting(self, reactor: Reactor) -> None:
        """Accept no more. The server's own sockets are closed, so that clients do not wait in their queues. Clients in
        the queue of a socket passed by ``fd`` are left to whoever listens on it next."""
        reactor.stop_listening(for_good=not self.options.fd)
        self._close_sockets()

    def _close_sockets(self) -> None:
        for server in self._transport_servers.values():
            server.close()
        for sock in self._sockets:
            sock.close()
        self._transport_servers, self._sockets = {}, []

    async def _drain(self, reactor: Reactor, admission: Admission, code: int, reason: str) -> None:
        """Let handshakes finish, let the listeners say goodbye, then close every connection at the drain rate."""
        loop = reactor.loop
        for _ in range(round(HANDSHAKE_GRACE_SECONDS / DRAIN_POLL_SECONDS)):
            if not reactor.is_shaking_hands(HANDSHAKE_GRACE_SECONDS):
                break
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        admission.is_draining = True
        end = loop.time() + self.options.drain_timeout
        farewells = [manager.life.tell("on_shutdown") for manager in self.endpoints.values()]
        if unfinished := [task for task in farewells if task is not None]:
            await asyncio.wait(unfinished, timeout=self.options.drain_timeout)
        await self._close_connections(reactor.websockets(), code, reason, end - loop.time())
        reactor.hang_up()
        admission.idle.clear()
        if not reactor.is_idle:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(admission.idle.wait(), self.options.close_timeout)

    async def _close_connections(self, connections: list[WebSocket], code: int, reason: str, seconds: float) -> None:
        """Close connections at the drain rate, or at whatever rate closes all of them within ``seconds``."""
        logger.info("stopping: closing %d connections", len(connections))
        at_once = self.options.drain_rate == 0 or seconds <= 0
        rate = float("inf") if at_once else max(self.options.drain_rate, len(connections) / seconds)
        loop = asyncio.get_running_loop()
        begin, closed = loop.time(), 0
        for ws in connections:
            early = begin + closed / rate - loop.time()
            if early > 0 and ws.is_open:
                await asyncio.sleep(max(early, DRAIN_POLL_SECONDS))
            closed += ws.is_open  # one that has left does not count towards the rate
            ws.close(*(ws.manager.life.farewell or (code, reason)))

    async def _run_unless_hurried(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run something until it ends or a second signal comes. Returns whether it ended."""
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

    def _release(self) -> None:
        if self._reactor is not None:
            self._reactor.shut()
        self._reactor = self._admission = None
        self._close_sockets()


def _nothing(server: Server) -> None:
    """What happens at the start and at the stop where nobody else has a say."""


class Wire(TransportWire, asyncio.BufferedProtocol):
    """The engine's protocol, in the form that asyncio recognises."""
