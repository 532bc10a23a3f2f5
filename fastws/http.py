"""Plain HTTP on the server's own port: an ASGI application with uvicorn's HTTP protocol."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from .errors import ConfigurationError, FastWSError
from .proxies import Proxies

if TYPE_CHECKING:
    import socket

    from uvicorn.lifespan.on import LifespanOn

    from .config import Options
    from .http_protocol import HTTPProtocol
    from .proxies import Peer

__all__ = ["HTTPApp"]

SHUTDOWN_POLL_SECONDS = 0.02  # between checks during a shutdown
CANCEL_GRACE_SECONDS = 1.0  # for the clean-up of a cancelled request


class HTTPApp:
    """One ASGI application and its connections; the server hands it every request that does not open a WebSocket.

    Its connections observe `handshake_timeout` and `max_header_size` (for each head), `idle_timeout` and
    `close_timeout` of ``options``. ``refusal`` returns the answer to an invalid request, given the peer (host and
    port, or None), a status and a sentence. ``websocket`` returns the protocol for a later upgrade of a kept-alive
    connection, given the peer as it was adopted; without it, such a request goes to the application like any other.
    ``extensions`` are those in the scope of each request. If the application has an attribute ``at_once``, that is the
    one of `Terms`.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        options: Options,
        *,
        refusal: Callable[[tuple[str, int] | None, int, str], bytes],
        websocket: Callable[[Peer | None], Any] | None = None,
        logger: logging.Logger | None = None,
        root_path: str = "",
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        if not callable(app):
            raise ConfigurationError(
                f"http={app!r} is not an ASGI application: use one such as Starlette's or FastAPI's"
            )
        try:
            from uvicorn.config import Config
            from uvicorn.server import ServerState

            from .http_protocol import HTTPProtocol, Terms
        except ImportError:
            raise ConfigurationError("http= needs uvicorn and httptools: pip install 'fastws-server[server]'") from None

        self.connection_count = 0
        self._logger = logger or logging.getLogger("fastws.http")
        self._logger.getChild("access").addFilter(without_query)
        # Whose X-Forwarded-For counts is said by `trusted_proxies`, as for WebSockets.
        self._config = Config(
            app,
            http=HTTPProtocol,
            ws="none",
            interface="asgi3",
            log_config=None,
            root_path=root_path,
            proxy_headers=False,
            server_header=False,
        )
        self._config.load()
        proxies = Proxies(options.trusted_proxies)
        terms = Terms(options, refusal, websocket, getattr(app, "at_once", None), proxies, extensions or {})
        self._make_protocol = partial(HTTPProtocol, terms=terms)
        self._state = ServerState()
        self._lifespan: LifespanOn | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._adopting: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> dict[str, Any]:
        """What the application's lifespan has put into ``scope["state"]``; empty while it does not run."""
        return {} if self._lifespan is None else self._lifespan.state

    async def startup(self) -> None:
        """Run the startup of the application's lifespan; raises FastWSError if the application reports a failure."""
        lifespan = self._config.lifespan_class(self._config)
        lifespan.logger = self._logger
        await lifespan.startup()
        if lifespan.should_exit:
            raise FastWSError("the HTTP application failed to start: see its error in the log")
        self._lifespan = lifespan
        self._tick()

    async def shutdown(self, timeout: float) -> None:
        """Close idle connections, give running requests ``timeout`` seconds, cancel the rest, then end the lifespan."""
        if self._lifespan is None:
            return
        if not await self._wait_until_idle(timeout):
            await self._cancel()
        if self._ticker is not None:
            self._ticker.cancel()
        lifespan, self._lifespan = self._lifespan, None
        await lifespan.shutdown()

    def adopt(self, sock: socket.socket, data: bytes, release: Callable[[], None], peer: Peer | None = None) -> None:
        """Take over an accepted, non-blocking socket, and the ``data`` already read from it.

        ``release`` is called once, as soon as the connection is gone or has become a WebSocket. ``peer`` says who it
        is, if there are trusted proxies; else the socket does.
        """
        task = asyncio.get_running_loop().create_task(self._connect(self._protocol(release, peer), sock, data))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    def adopt_transport(
        self, transport: asyncio.Transport, data: bytes, release: Callable[[], None], peer: Peer | None = None
    ) -> None:
        """Take over a transport (such as TLS) and the ``data`` already read from it; the rest is as for `adopt`."""
        if transport.is_closing():
            release()
        else:
            FirstBytes(self._protocol(release, peer), data).connection_made(transport)

    def _protocol(self, release: Callable[[], None], peer: Peer | None) -> HTTPProtocol:
        """Returns a new HTTP protocol for one connection on the running loop; it counts until it is released."""
        if self._lifespan is None:
            raise RuntimeError("the HTTP application is not running: await startup() first")

        def leave() -> None:
            self.connection_count -= 1
            release()

        protocol = self._make_protocol(self._config, self._state, self._lifespan.state, release=leave, peer=peer)
        protocol.logger = self._logger
        protocol.access_logger = self._logger.getChild("access")
        protocol.access_log = protocol.access_logger.isEnabledFor(logging.INFO)
        self.connection_count += 1
        return protocol

    async def _connect(self, protocol: HTTPProtocol, sock: socket.socket, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: FirstBytes(protocol, data), sock)
        except BaseException as error:
            sock.close()
            protocol.release()
            if not isinstance(error, OSError):
                raise
            self._logger.debug("an HTTP connection closed before its first request: %s", error)
            return
        # uvloop starts to read after connection_made, even if that has paused reading.
        if protocol.flow.read_paused and not transport.is_closing():
            transport.pause_reading()

    async def _wait_until_idle(self, timeout: float) -> bool:
        """Wait for connections and requests to end. Returns whether they did within ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self._adopting or self._state.connections or self._state.tasks:
                    for connection in list(self._state.connections):
                        connection.shutdown()
                    await asyncio.sleep(SHUTDOWN_POLL_SECONDS)
        except TimeoutError:
            return False
        return True

    async def _cancel(self) -> None:
        self._logger.warning("cancelled %d HTTP requests because the server is stopping", len(self._state.tasks))
        for task in list(self._state.tasks):
            task.cancel()
        if not await self._wait_until_idle(CANCEL_GRACE_SECONDS):
            for connection in list(self._state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)

    def _tick(self) -> None:
        """Update the Date header of responses once a second, as uvicorn's own server does."""
        date = formatdate(usegmt=True).encode()
        self._state.default_headers = [(b"date", date), *self._config.encoded_headers]
        self._ticker = asyncio.get_running_loop().call_later(1.0, self._tick)


class FirstBytes(asyncio.Protocol):
    """Gives the bytes that were already read to an HTTP protocol before any others, then steps aside."""

    def __init__(self, protocol: HTTPProtocol, data: bytes) -> None:
        self._protocol = protocol
        self._data = data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection = cast(asyncio.Transport, transport)
        connection.set_protocol(self._protocol)
        self._protocol.connection_made(connection)
        if self._data:
            self._protocol.data_received(self._data)


def without_query(record: logging.LogRecord) -> bool:
    """Cut the query string, which may hold a token, off the target in one of uvicorn's lines on a request."""
    match record.args:
        case (peer, method, str(target), *rest):
            record.args = (peer, method, target.partition("?")[0], *rest)
    return True
