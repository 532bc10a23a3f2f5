"""HTTP routes on the server's own port: a small ASGI application, to which each part of fastws adds its own."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from .._core import Headers, is_awaitable
from ..answers import Answer, facts, refusal
from ..errors import ConfigurationError, FastWSError, Reject
from ..routing import Template

__all__ = ["BadRequest", "Disconnected", "Handler", "Web", "WebRequest"]

logger = logging.getLogger("fastws.web")

BODY_LIMIT = 1 << 20  # bytes
MOST_FIELDS = 1000  # of a query string


class BadRequest(Reject):
    """Refuse a request for a fault in it; ``field`` says where: ``$.users[0]`` in a body, ``limit`` in a query."""

    def __init__(self, message: str, field: str | None = None, *, status: int = 400) -> None:
        super().__init__(status, message)
        self.field = field


class Disconnected(FastWSError):
    """The peer left while its body was awaited: nobody is there to be answered."""


class WebRequest:
    """One HTTP request. ``params`` are the path template's parameters, decoded."""

    def __init__(self, scope: Mapping[str, Any], receive: Callable[[], Awaitable[Any]]) -> None:
        self.scope = scope
        self.params: dict[str, str] = {}
        self.route = ""  # the path template; empty where there is none
        self._receive = receive
        self._headers: Headers | None = None
        self._query: list[tuple[str, str]] | None = None
        self._body: bytes | None = None

    @property
    def method(self) -> str:
        """The method, in capitals."""
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        """The path, percent-decoded."""
        return str(self.scope["path"])

    @property
    def raw_path(self) -> str:
        """The path as it was sent."""
        return str(self.scope["raw_path"].decode("latin-1"))

    @property
    def peer(self) -> tuple[str, int] | None:
        """(host, port) of the peer; None where it has none."""
        client = self.scope["client"]
        return None if client is None else (client[0], client[1])

    @property
    def headers(self) -> Headers:
        """Case-insensitive mapping of header fields."""
        if self._headers is None:
            fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.scope["headers"]]
            self._headers = Headers(fields)
        return self._headers

    @property
    def query(self) -> dict[str, str]:
        """The query string's fields by name; of several with one name the last counts. Raises BadRequest."""
        return dict(self._query_fields())

    def query_all(self, name: str) -> list[str]:
        """Returns every value that came under a name, in order. Raises BadRequest where there are too many fields."""
        return [value for key, value in self._query_fields() if key == name]

    def _query_fields(self) -> list[tuple[str, str]]:
        if self._query is None:
            text = self.scope["query_string"].decode("latin-1")
            try:
                self._query = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
            except UnicodeDecodeError:
                raise BadRequest("the query string is not UTF-8") from None
            except ValueError:
                raise BadRequest(f"the query string has more than {MOST_FIELDS:,} fields") from None
        return self._query

    async def body(self, limit: int = BODY_LIMIT) -> bytes:
        """Returns the whole body.

        Raises Reject(413) for one of over ``limit`` bytes, of which no more than that is kept, and Disconnected when
        the peer leaves before its end.
        """
        if self._body is None:
            self._body = await self._read(limit)
        return self._body

    async def _read(self, limit: int) -> bytes:
        too_large = Reject(413, f"the body is over {limit:,} bytes")
        declared = self.headers.get("content-length")
        if declared is not None and int(declared) > limit:
            raise too_large
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise too_large
            parts.append(part)
            more = message.get("more_body", False)
        return parts[0] if len(parts) == 1 else b"".join(parts)


Handler: TypeAlias = Callable[[WebRequest], Answer | Awaitable[Answer]]
BodyHandler: TypeAlias = Callable[[WebRequest, bytes], Answer]
Observer: TypeAlias = Callable[[str, str, int, float], object]


class Web:
    """An ASGI application of routes, to be given to ``Server(http=...)``.

    A path that no route has is left to ``otherwise``, another ASGI application, whose lifespan runs, too; without one
    it gets 404. What a handler raises is an answer as well: a Reject its own, anything else 500.
    """

    def __init__(self, otherwise: Callable[..., Any] | None = None) -> None:
        #: What answers, by method, raw path and peer, for a path that would get 404; the server's to set.
        self.instead_of_404: Callable[[str, str, tuple[str, int] | None], Answer | None] | None = None
        self._otherwise = otherwise
        self._literal: dict[str, dict[str, Handler]] = {}  # by the path; templates are looked through one by one
        self._templates: list[tuple[Template, dict[str, Handler]]] = []  # the most literal first
        self._shapes: dict[tuple[str | None, ...], dict[str, Handler]] = {}
        self._at_once: dict[tuple[bytes, bytes], BodyHandler] = {}
        self._observers: list[Observer] = []
        self._contexts: list[AbstractAsyncContextManager[Any]] = []
        self._stack = AsyncExitStack()

    @property
    def takes_websockets(self) -> bool:
        """Whether the server has anybody to hand WebSockets to: the application behind."""
        return self._otherwise is not None

    def add(self, method: str, path: str, handler: Handler, at_once: BodyHandler | None = None) -> None:
        """Serve a method at a path template; HEAD comes with GET. Raises ConfigurationError where that is taken.

        ``at_once`` answers alike, from the request and its body: it takes over, for a path without parameters, where
        the body is there with the head, since that needs no task and costs a fraction.
        """
        template = Template(path)
        handlers = self._shapes.get(template.shape)
        if handlers is None:
            handlers = self._shapes[template.shape] = {}
            self._templates.append((template, handlers))
            self._templates.sort(key=lambda route: route[0].rank)
            if not template.names:
                self._literal[path] = handlers
        if method in handlers:
            raise ConfigurationError(f"{method} {path} is served already: one handler a route")
        handlers[method] = handler
        if at_once is not None and not template.names:
            self._at_once[method.encode(), path.encode()] = at_once

    def run_with(self, context: AbstractAsyncContextManager[Any]) -> None:
        """Have something entered when the server starts, and left when it has stopped, the last one added first.

        What it raises as it is entered keeps the server from its start.
        """
        self._contexts.append(context)

    def observe(self, call: Observer) -> None:
        """Have something called with each answer of ours: method, path template ("" for none), status, seconds."""
        self._observers.append(call)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http":
            begin, request = time.perf_counter(), WebRequest(scope, receive)
            answer = await self._answer(request, scope, receive, send)
            if answer is not None:
                self._tell(request, answer, begin)
                await answer.as_asgi(send)
        elif self._otherwise is not None:
            await self._otherwise(scope, receive, send)

    async def _answer(self, request: WebRequest, scope: Any, receive: Any, send: Any) -> Answer | None:
        """The answer to a request; None where it was given, or nobody waits for it."""
        try:
            handler = self._find(request)
            if handler is None and self._otherwise is not None:
                await self._otherwise(scope, receive, send)
                return None
            if handler is None:
                return self._nothing(request)
            answer = handler(request)
            return (await answer) if is_awaitable(answer) else answer  # type: ignore[misc, return-value]
        except Disconnected:
            return None
        except Exception as error:
            return _refused(request, error)

    def at_once(
        self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], peer: tuple[str, int] | None
    ) -> Callable[[bytes], Answer] | None:
        """Returns what answers a request whose body is there, if anything does; the server asks, before it goes on."""
        handler = self._at_once.get((method, target))
        if handler is None:
            return None
        scope = {
            "method": method.decode(),
            "path": target.decode(),
            "raw_path": target,
            "query_string": b"",
            "headers": headers,
            "client": peer,
        }
        return partial(self._answer_at_once, handler, WebRequest(scope, _nothing_more))

    def _answer_at_once(self, handler: BodyHandler, request: WebRequest, body: bytes) -> Answer:
        begin, request.route = time.perf_counter(), request.path
        try:
            answer = handler(request, body)
        except Exception as error:
            answer = _refused(request, error)
        self._tell(request, answer, begin)
        return answer

    def _tell(self, request: WebRequest, answer: Answer, begin: float) -> None:
        for observer in self._observers:
            observer(request.method, request.route, answer.status, time.perf_counter() - begin)

    def _find(self, request: WebRequest) -> Handler | None:
        """Who answers a request, None where none of ours does. Raises Reject for a method that the path has not."""
        raw_path = request.raw_path
        handlers = self._literal.get(raw_path)
        if handlers is None:
            found = next((route for route in self._templates if route[0].match(raw_path)), None)
            if found is None:
                return None
            template, handlers = found
            request.params, request.route = template.parameters(raw_path), template.path
        else:
            request.route = raw_path
        method = request.method
        handler = handlers.get(method) or (handlers.get("GET") if method == "HEAD" else None)
        if handler is None:
            allowed = sorted({*handlers, "HEAD"} if "GET" in handlers else handlers)
            raise Reject(405, f"this path takes {' or '.join(allowed)}", headers={"Allow": ", ".join(allowed)})
        return handler

    def _nothing(self, request: WebRequest) -> Answer:
        """The answer where nothing is."""
        find = self.instead_of_404
        answer = None if find is None else find(request.method, request.raw_path, request.peer)
        if answer is None:
            raise Reject(404, "not found")
        return answer

    async def _lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        """Ours within that of the application behind, which need not have any."""
        was_asked = has_spoken = False

        async def receive_ours() -> Any:
            nonlocal was_asked
            message = await receive()
            was_asked = True
            return message

        async def send_ours(message: Any) -> None:
            nonlocal has_spoken
            has_spoken = True
            if message["type"] == "lifespan.startup.complete":
                message = await self._start()
            elif message["type"] == "lifespan.shutdown.complete":
                await self._stack.aclose()
            await send(message)

        if self._otherwise is not None:
            try:
                await self._otherwise(scope, receive_ours, send_ours)
            except Exception:
                if has_spoken:
                    raise
                logger.debug("the application behind has no lifespan", exc_info=True)
        if not has_spoken:
            if not was_asked:
                await receive()
            await send_ours({"type": "lifespan.startup.complete"})
            await receive()
            await send_ours({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> dict[str, str]:
        try:
            for context in self._contexts:
                await self._stack.enter_async_context(context)
        except Exception as error:
            logger.exception("a part of the server does not start")
            await self._stack.aclose()
            return {"type": "lifespan.startup.failed", "message": str(error)}
        return {"type": "lifespan.startup.complete"}


def _refused(request: WebRequest, error: Exception) -> Answer:
    """The answer that a handler's exception is."""
    about = facts(request.raw_path, request.headers)
    if isinstance(error, Reject):
        field = getattr(error, "field", None)
        return refusal(request.peer, error.status, error.reason, error.headers, about=about, field=field)
    return refusal(request.peer, 500, "internal server error", error=error, about=about)


async def _nothing_more() -> dict[str, Any]:
    return {"type": "http.disconnect"}
