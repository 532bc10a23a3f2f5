"""The life of a connection: the calls of the listener, in order, from the 101 to the end."""

import asyncio
import contextlib
import inspect
import logging
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Protocol

from .._core import CHANNEL_KIND, SESSION_KIND, USER_KIND, Endpoint, Request, WebSocket, accept_response
from ..config import EndpointOptions
from ..errors import ConfigurationError, ProtocolError, Reject
from ..listener import HANDLERS, Listener, handler
from ..presence import Company
from ..routing import Template
from . import access
from .steps import HANDLER_ERRORS, MessageHandler, Runner, Steps, as_exception, call

__all__ = ["Life"]

logger = logging.getLogger("fastws.manager")

ABNORMAL = 1006  # RFC 6455 7.1.5: no Close came
PIECES_PER_TURN = 500  # of a long job, before the loop gets a turn


class Elsewhere(Protocol):
    """What a life has to do with other nodes. Each may return an awaitable."""

    def check(self, user: Hashable) -> None:
        """Raises TypeError for a user whom other nodes could not name, Reject where nobody may come now."""

    def guard(self, handle: MessageHandler) -> MessageHandler:
        """Returns a message handler that waits where other nodes may have said what was not heard yet."""

    def listening(self, channel: str) -> Any:
        """Wait until what others say in a channel arrives here."""

    def came(self, user: Hashable) -> Any:
        """A user is here. Returns whether no other node has him or her."""

    def went(self, user: Hashable) -> Any:
        """A user is no longer here. Returns whether no other node has him or her."""


class Nowhere:
    """There is no other node."""

    def check(self, user: Hashable) -> None:
        """Anybody may come."""

    def guard(self, handle: MessageHandler) -> MessageHandler:
        """Nothing is said elsewhere."""
        return handle

    def listening(self, channel: str) -> None:
        """There is nobody to listen to."""

    def came(self, user: Hashable) -> bool:
        """Here is everywhere."""
        return True

    went = came


class Life:
    """What happens to the connections of one endpoint: the engine reports it here, and the listener is called."""

    def __init__(
        self, endpoint: Endpoint, template: Template, listener: Listener, options: EndpointOptions, runner: Runner
    ) -> None:
        self.endpoint = endpoint
        self.template = template
        self.options = options
        self.elsewhere: Elsewhere = Nowhere()
        self.greeting: set[WebSocket] = set()  # on_open is running and may still refuse them
        self._runner = runner
        self._handlers = {name: handler(listener, name) for name in HANDLERS}
        self._pending: dict[Request, Reject | None] = {}  # handshakes under way, and why to refuse them
        self._opening: dict[WebSocket, tuple[int, str] | None] = {}
        self._readable: str | None = getattr(listener, "reads_refusals", None)
        #: Code and reason that a stop closes connections with, where the listener has its own.
        self.farewell: tuple[int, str] | None = getattr(listener, "farewell", None)
        self._turned_away: set[WebSocket] = set()
        self.closes: Counter[tuple[int, str]] = Counter()  # by code and by whom: "peer", "server" or "lost"
        self.errors: Counter[str] = Counter()  # by the handler that raised
        self.on_drained: set[Callable[[WebSocket], None]] = set()
        if inspect.iscoroutinefunction(self._handlers["can_see"]):
            raise ConfigurationError(
                f"{type(listener).__name__}.can_see is async: make it a plain def that answers from memory"
            )
        self.company = Company(endpoint, self._handlers["can_see"], lambda ws: self._run(self._offline(ws)))

    @property
    def is_stopping(self) -> bool:
        """Whether the server stops."""
        return self._runner.is_stopping

    def ask(self, name: str, *arguments: Any) -> Any:
        """Call a handler of the listener. Returns its result, None if there is no such handler."""
        method = self._handlers[name]
        return None if method is None else call(method, *arguments)

    def tell(self, name: str, *arguments: Any, about: dict[str, Any] | None = None) -> "asyncio.Task[None] | None":
        """Call a handler whose failure closes no connection; errors are logged, with ``about`` in their records.

        Returns the task of the rest, if any.
        """

        def steps() -> Steps:
            try:
                yield self.ask(name, *arguments)
            except HANDLER_ERRORS:
                self.errors[name] += 1
                logger.exception("%s of %s failed", name, self.template.path, extra=about)

        return self._runner.run(steps())

    @contextlib.contextmanager
    def deciding(self, request: Request) -> Iterator[None]:
        """Track a handshake that is under way; at the end, raises a Reject that `refuse_pending` has set."""
        self._pending[request] = None
        try:
            yield
        finally:
            reject = self._pending.pop(request)
        if reject is not None:
            raise reject

    def is_deciding(self, request: Request) -> bool:
        """Returns whether this endpoint is deciding on a request."""
        return request in self._pending

    def turn_away(self, ws: WebSocket, code: int, reason: str) -> bool:
        """Refuse with a Close frame, which a browser's script can read; it cannot read an HTTP answer.

        Returns False if the client does not offer the subprotocol that the listener names as ``reads_refusals``. The
        handshake is completed only for the Close frame; the listener is never told of the connection.
        """
        request = ws.request
        if self._readable is None or self._readable not in request.subprotocols:
            return False
        request.subprotocol = self._readable
        try:
            response = accept_response(request)
        except ValueError:  # a header field that the listener set
            return False
        if not ws._accept(self.endpoint, response):
            return False
        self._turned_away.add(ws)
        ws.close(code, reason)
        ws._ready()
        return True

    def refuse_pending(self, is_meant: Callable[[Request], bool], reason: str, status: int = 401) -> None:
        """Refuse handshakes that are under way."""
        for request in self._pending:
            if is_meant(request):
                self._pending[request] = Reject(status, reason)

    def enter(self, connections: Iterable[WebSocket], channel: str) -> int:
        """Have connections of one user, or a single one, join a channel. Returns its number of subscribers."""
        joined = []
        count = self.endpoint._count(channel)
        for ws in connections:
            count, has_joined, is_new = self.endpoint._join(CHANNEL_KIND, channel, ws)
            if has_joined:
                joined.append((ws, count, is_new))
        if joined:
            self._run(self._tell_joined(channel, joined))
        return count

    def exit(self, places: Iterable[tuple[WebSocket, str]]) -> None:
        """Have connections leave channels."""
        left = [(ws, channel) for ws, channel in places if self.endpoint._leave(channel, ws)]
        if left:
            self._run(self._tell_left(left, on_purpose=True))

    # -- from the 101 to the end

    def _run(self, steps: Steps) -> None:
        self._runner.run(steps)

    def _call(self, ws: WebSocket, name: str, *arguments: Any) -> Steps:
        """Call a handler, if there is one. Returns its result. If it raises, only its connection is closed."""
        method = self._handlers[name]
        if method is None:
            return None
        try:
            return (yield call(method, *arguments))
        except HANDLER_ERRORS as error:
            self.handler_failed(ws, error, name)
            return False

    def open(self, ws: WebSocket, channel: str | None) -> Steps:
        """Run everything between the accepted handshake and the first message."""
        access.accepted(ws, self.template.path)
        self._opening[ws] = None
        self.greeting.add(ws)
        is_done = False
        try:
            yield from self._tell_opened(ws, channel)
            is_done = True
        finally:
            self.greeting.discard(ws)
            end = self._opening.pop(ws)
            if end is not None and not is_done:  # cancelled during a stop: nobody is told any more
                for kind, name, _ in ws._left_groups():
                    self.endpoint._release_group(kind, name)
        if end is not None:
            yield from self._tell_closed(ws, *end)

    def _tell_opened(self, ws: WebSocket, channel: str | None) -> Steps:
        session, user = ws.session, ws.user
        if session is not None and session.id is not None:
            self.endpoint._join(SESSION_KIND, session.id, ws)
        if self.options.auth is not None:
            self.options.auth.opened(ws)
        if (yield from self._call(ws, "on_open", ws)) is False:
            ws.close(1008, "refused by the server")
        self.greeting.discard(ws)
        yield from self._bring(ws, user)
        if channel is not None:
            yield self.elsewhere.listening(channel)
            count, joined, is_new = self.endpoint._join(CHANNEL_KIND, channel, ws)
            if joined:
                yield from self._tell_joined(channel, [(ws, count, is_new)])
        yield from self._save_session(ws)
        ws._ready()

    def identify(self, ws: WebSocket, user: Hashable) -> None:
        """A connection that had no user has one from now on, as where clients say who they are after the handshake.

        Nothing changes if it has one. Raises TypeError for a user whom other nodes could not name, Reject where nobody
        may come now.
        """
        if ws.user is None and ws.is_open:
            self.elsewhere.check(user)
            ws.request.user = user
            self._run(self._bring(ws, user))

    def _bring(self, ws: WebSocket, user: Hashable | None) -> Steps:
        """A connection with its user, if it has one, is there, and maybe in channels already."""
        is_online = user is not None and self._join_user(ws, user)
        for name in ws.channels if ws.is_open else ():
            self.company.arrive([ws], name)
        if is_online and (yield self.elsewhere.came(user)):
            yield from self._call(ws, "on_user_online", user)

    def _join_user(self, ws: WebSocket, user: Hashable) -> bool:
        """Returns whether this connection brings the user online."""
        _, joined, is_new = self.endpoint._join(USER_KIND, user, ws)
        return joined and self.company.away.end(None, user) is None and is_new

    def _tell_joined(self, channel: str, joined: list[tuple[WebSocket, int, bool]]) -> Steps:
        """Tell everybody that connections of one user, or a single one, have joined a channel."""
        present = [ws for ws, _, _ in joined if ws not in self.greeting]
        if present:
            self.company.arrive(present, channel)
        for done, (ws, count, is_new) in enumerate(joined, 1):
            if is_new:
                yield from self._call(ws, "on_channel_open", channel)
            yield from self._call(ws, "on_subscribe", ws, channel, count)
            yield from _yield_turn(done)

    def _tell_left(self, left: list[tuple[WebSocket, str]], *, on_purpose: bool) -> Steps:
        """Tell everybody that connections have left channels. Their groups are released in any case."""
        waiting = deque(left)
        try:
            while waiting:
                ws, channel = waiting[0]
                if on_purpose:
                    self.company.depart(ws, channel)
                yield from self._call(ws, "on_unsubscribe", ws, channel, self.endpoint._count(channel))
                waiting.popleft()
                if self.endpoint._release_group(CHANNEL_KIND, channel):
                    yield from self._call(ws, "on_channel_close", channel)
                yield from _yield_turn(len(waiting))
        finally:
            for _, channel in waiting:
                self.endpoint._release_group(CHANNEL_KIND, channel)

    def _tell_closed(self, ws: WebSocket, code: int, reason: str) -> Steps:
        """Tell everybody that a connection is over; it has already left all its groups."""
        channels, user, session = _by_kind(ws._left_groups())
        waiting = [channel for channel, _ in channels]
        try:
            if user is not None and not self._runner.is_stopping:
                for done, (channel, since) in enumerate(channels, 1):
                    self.company.vanish(ws, channel, since, self.options.offline_after)
                    yield from _yield_turn(done)
            yield from self._call(ws, "on_close", ws, code, reason)
            yield from self._save_session(ws)
            told, waiting = waiting, []
            yield from self._tell_left([(ws, channel) for channel in told], on_purpose=False)
        finally:
            for channel in waiting:
                self.endpoint._release_group(CHANNEL_KIND, channel)
            is_last = user is not None and self.endpoint._release_group(USER_KIND, user[0])
            if session is not None:
                self.endpoint._release_group(SESSION_KIND, session[0])
        if user is not None and is_last:
            if self.options.offline_after > 0 and not self._runner.is_stopping:
                self.company.away.begin(ws, None, user[1], self.options.offline_after)
            else:
                yield from self._offline(ws)
        ws._forget_groups()

    def _offline(self, ws: WebSocket) -> Steps:
        self.company.sight.forget(ws.user)
        if (yield self.elsewhere.went(ws.user)):
            yield from self._call(ws, "on_user_offline", ws.user)

    # -- calls from the engine

    def closed(self, ws: WebSocket, code: int, reason: str) -> None:
        """A connection is over; it has left all its groups."""
        if ws in self._turned_away:
            self._turned_away.discard(ws)
            return
        messages_in, messages_out, sent_code = ws._figures()
        self.closes[sent_code or code, _closer(sent_code, code)] += 1
        access.closed(ws, self.template.path, code, messages_in, messages_out)
        logger.debug("connection %s closed: %d %r", ws.id, code, reason, extra={"connection": ws.id, "code": code})
        if self.options.auth is not None:
            self.options.auth.closed(ws)
        if ws in self._opening:
            self._opening[ws] = code, reason  # on_open is still running and has to end first
        else:
            self._run(self._tell_closed(ws, code, reason))

    def drained(self, ws: WebSocket) -> None:
        """All that a connection had pending is written, as `WebSocket._notify_when_drained` asked to be told."""
        for call_back in self.on_drained:
            call_back(ws)

    # -- messages

    def message_handler(self) -> MessageHandler | None:
        """Returns what the engine calls with each message: on_message, wrapped by sessions and auth if any."""
        sessions, auth = self.options.sessions, self.options.auth
        handle: MessageHandler | None = self._handlers["on_message"]
        if sessions is not None:
            handle = sessions.wrap(handle or _ignore)
        if auth is not None:
            handle = auth.wrap(handle or _ignore)
        return None if handle is None else self.elsewhere.guard(handle)

    def _save_session(self, ws: WebSocket) -> Steps:
        """Save what a handler other than on_message has changed."""
        sessions = self.options.sessions
        if sessions is not None and ws.session is not None:
            try:
                yield call(sessions.save, ws.session)
            except HANDLER_ERRORS as error:
                self.handler_failed(ws, error, "save_session")

    def await_message(self, ws: WebSocket, awaitable: Any) -> None:
        """Await a message handler; the connection's next messages wait for it."""
        self._run(self._handle(ws, awaitable))

    def _handle(self, ws: WebSocket, awaitable: Any) -> Steps:
        result = None
        try:
            result = yield awaitable
        except HANDLER_ERRORS as error:
            self.handler_failed(ws, error)
        ws._take_result(result)

    def handler_failed(self, ws: WebSocket, error: BaseException, name: str = "on_message") -> None:
        """A handler raised: close its connection with 1011."""
        error = as_exception(error)
        self.errors[name] += 1
        logger.error(
            "a handler of %s failed for connection %s",
            self.template.path,
            ws.id,
            exc_info=error,
            extra={"connection": ws.id},
        )
        self._tell_error(ws, error)
        ws.close(1011, "internal error")

    def protocol_failed(self, ws: WebSocket, error: ProtocolError) -> None:
        """The peer violated the protocol, and its connection is being closed."""
        if ws in self._turned_away:
            return
        logger.warning(
            "connection %s violated the protocol: %s", ws.id, error, extra={"connection": ws.id, "code": error.code}
        )
        self._tell_error(ws, error)

    def _tell_error(self, ws: WebSocket, error: BaseException) -> None:
        self.tell("on_error", ws, error, about={"connection": ws.id})


def _closer(sent_code: int, code: int) -> str:
    """Returns by whom a connection was closed; one that ended without a Close from either side was lost."""
    if sent_code:
        return "server"
    return "lost" if code == ABNORMAL else "peer"


def _by_kind(left: list[tuple[int, Any, float]]) -> tuple[list[tuple[str, float]], Any, Any]:
    """Returns the channels, the user and the session (or None) that a connection left, with join times."""
    by_kind: dict[int, list[tuple[Any, float]]] = {CHANNEL_KIND: [], USER_KIND: [], SESSION_KIND: []}
    for kind, name, since in left:
        by_kind[kind].append((name, since))
    return by_kind[CHANNEL_KIND], next(iter(by_kind[USER_KIND]), None), next(iter(by_kind[SESSION_KIND]), None)


def _yield_turn(done: int) -> Steps:
    """Let other tasks run, now and then during a long job."""
    if done % PIECES_PER_TURN == 0 and done:
        yield asyncio.sleep(0)


def _ignore(ws: WebSocket, message: str | bytes) -> None:
    """The message handler of a listener without on_message."""
