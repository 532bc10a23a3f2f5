"""The connection manager: one per endpoint, who is there and how to reach them."""

import asyncio
import concurrent.futures
import contextlib
import inspect
import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from ._core import (
    CHANNEL_KIND,
    EVERYONE_KIND,
    SESSION_KIND,
    USER_KIND,
    Endpoint,
    Request,
    WebSocket,
    check_close,
    many,
)
from .config import EndpointOptions
from .errors import ConfigurationError, ProtocolError, Reject
from .listener import HANDLERS, Listener, handler, warn_of_misspelt
from .presence import Absence, Away, Notices, Presence, Sight
from .routing import Template
from .steps import AT_ONCE, HANDLER_ERRORS, MessageHandler, Steps, as_exception, call

if TYPE_CHECKING:
    from .server import Server

__all__ = ["ConnectionManager"]

logger = logging.getLogger("fastws.manager")

Connections: TypeAlias = WebSocket | str | Iterable[WebSocket | str]

EVERY_VIEWER: Any = object()


class ConnectionManager(Endpoint):
    """Knows every connection, channel and user of one endpoint, and sends to them.

    ``Server.endpoint`` makes it. Everything is called on the loop's thread; from another thread only the
    ``..._threadsafe`` methods work, and the others raise RuntimeError. Counts are of the connections addressed.
    """

    def __init__(self, server: "Server", template: Template, listener: Listener, options: EndpointOptions) -> None:
        self.server = server
        self.template = template
        self.listener = listener
        self.options = options
        self._handlers = {name: handler(listener, name) for name in HANDLERS}
        self._pending: dict[Request, Reject | None] = {}  # handshakes under way, and why they must not succeed any more
        self._opening: dict[WebSocket, tuple[int, str] | None] = {}
        self._greeting: set[WebSocket] = set()  # on_open runs, and may yet refuse them
        self._sight = Sight(self._handlers["can_see"])
        self._away = Away(self._absence_over)
        self._notices = Notices(self)
        #: The open connections by id, live.
        self.connections: Mapping[str, WebSocket] = _ById(self)
        #: The users who are there, each with the ids of his or her connections, live.
        self.users: Mapping[Hashable, list[str]] = _ByUser(self)
        warn_of_misspelt(listener)
        if inspect.iscoroutinefunction(self._handlers["can_see"]):
            raise ConfigurationError(
                f"{type(listener).__name__}.can_see is async: make it a plain def, whose answers come from memory"
            )

    @property
    def path(self) -> str:
        """The endpoint's path template."""
        return self.template.path

    def __repr__(self) -> str:
        return f"<ConnectionManager {self.path!r}>"

    # -- channels, users, presence

    @property
    def channels(self) -> dict[str, int]:
        """Every channel with its number of subscribers."""
        return self._counts(CHANNEL_KIND)

    def subscribers(self, channel: str) -> list[WebSocket]:
        """The connections in a channel."""
        return self._members(CHANNEL_KIND, channel)

    def presence(self, channel: str, *, viewer: Hashable = EVERY_VIEWER) -> dict[Hashable, Presence]:
        """Who is in a channel: each user once, with the time since when and the number of devices there.

        With a ``viewer`` (None: a connection without a user) only those whom he or she may see.
        """
        people = {user: Presence.at(since, devices) for user, (since, devices) in self._people(channel).items()}
        for user, absence in self._away.users(channel).items():
            people.setdefault(user, Presence.at(absence.since, 0))
        if viewer is EVERY_VIEWER:
            return people
        return {user: presence for user, presence in people.items() if self.sees(viewer, user)}

    def watch_presence(self, channel: str) -> None:
        """Tell the members of a channel who comes and goes, until `unwatch_presence`. Twice is once.

        They get JSON texts ``{"type": "presence", "channel": ..., "event": ...}``. The event is "list" for a connection
        that joins (``users``: each with ``user``, ``since`` and ``devices``), "join" (``user``, ``since``) when another
        user's first device has come, and "leave" (``user``) when the last is gone, after ``offline_after``. Nobody is
        told of a user whom he or she may not see (`Listener.can_see`).
        """
        self._check_thread()
        self._notices.watch(_channel_name(channel))

    def unwatch_presence(self, channel: str) -> None:
        """Tell the members of a channel no more who comes and goes."""
        self._check_thread()
        self._notices.unwatch(channel)

    def notify(self, channel: str, user: Hashable, message: Any, *, exclude: Connections | None = None) -> int:
        """Send a message about a user (typing, say) to the members who may see that user; how many."""
        if not self._sight.is_free:
            hidden = [ws for ws in self._members(CHANNEL_KIND, channel) if not self.sees(ws.user, user)]
            exclude = hidden if exclude is None else [*hidden, *many(exclude)]
        return self.broadcast(channel, message, exclude=exclude)

    def sees(self, viewer: Hashable, user: Hashable) -> bool:
        """Whether `Listener.can_see` lets a viewer see a user. Its answers are kept, until `visibility_changed`."""
        return self._sight.sees(viewer, user)

    def visibility_changed(self, user: Hashable) -> None:
        """What ``can_see`` says of a user has changed, as viewer or as the one seen: ask it again.

        In watched channels those for whom somebody comes to be there, or is gone, get a "join" or a "leave".
        """
        self._check_thread()
        self._sight.forget(user)
        self._notices.review(user)

    def subscribe_user(self, user: Hashable, channel: str) -> int:
        """Have every connection of a user join a channel; its number of subscribers."""
        return self._enter(self._members(USER_KIND, user), channel)

    def unsubscribe_user(self, user: Hashable, channel: str) -> int:
        """Have every connection of a user leave a channel (a kick); the number of subscribers that stay."""
        self._exit([(ws, channel) for ws in self._members(USER_KIND, user)])
        if self._away.end(_channel_name(channel), user) is not None:
            self._notices.gone(channel, user)
        return self._count(channel)

    def close_user(self, user: Hashable, code: int = 4001, reason: str = "logged out") -> int:
        """Close every connection of a user; how many. One whose handshake is under way is refused with 401."""
        self._check_thread()
        check_close(code, reason)
        greeting = [ws for ws in self._greeting if ws.user == user]
        self._refuse_pending(lambda request: request.user == user, reason)
        return self._close([*self._members(USER_KIND, user), *greeting], code, reason)

    def close_session(self, session_id: str, code: int = 4001, reason: str = "logged out") -> int:
        """Close every connection with an HTTP session (``Session.id``), as a log-out must; how many.

        One whose handshake is under way is refused with 401. Raises ValueError for a code that may not be sent.
        """
        self._check_thread()
        check_close(code, reason)
        self._refuse_pending(lambda request: getattr(request.session, "id", None) == session_id, reason)
        return self._close(self._members(SESSION_KIND, session_id), code, reason)

    @contextlib.contextmanager
    def _deciding(self, request: Request) -> Iterator[None]:
        """A handshake is under way; raises the Reject that it earned meanwhile."""
        self._pending[request] = None
        try:
            yield
        finally:
            reject = self._pending.pop(request)
        if reject is not None:
            raise reject

    def _refuse_pending(self, is_meant: Callable[[Request], bool], reason: str) -> None:
        for request in self._pending:
            if is_meant(request):
                self._pending[request] = Reject(401, reason)

    def _close(self, connections: list[WebSocket], code: int, reason: str) -> int:
        still_open = [ws for ws in connections if ws.is_open]
        for ws in still_open:
            ws.close(code, reason)
        return len(still_open)

    def subscribe(self, channel: str, ws: WebSocket) -> int:
        """Have a connection join a channel; the number of subscribers. Twice is once.

        Raises TypeError for a name that is no str, ValueError for a connection of another endpoint.
        """
        return self._enter((ws,), channel)

    def unsubscribe(self, channel: str, ws: WebSocket) -> int:
        """Have a connection leave a channel; the number of subscribers that stay."""
        self._exit([(ws, channel)])
        return self._count(channel)

    def unsubscribe_all(self, ws: WebSocket) -> None:
        """Have a connection leave all of its channels."""
        if ws.is_open:
            self._exit([(ws, channel) for channel in ws.channels])

    def _enter(self, connections: Iterable[WebSocket], channel: str) -> int:
        """Connections of one user, or a single one, join a channel; its number of subscribers."""
        joined = []
        count = self._count(_channel_name(channel))
        for ws in connections:
            count, has_joined, is_new = self._join(CHANNEL_KIND, channel, ws)
            if has_joined:
                joined.append((ws, count, is_new))
        if joined:
            self._run(self._tell_joined(channel, joined))
        return count

    def _exit(self, places: Iterable[tuple[WebSocket, str]]) -> None:
        """Connections leave channels."""
        left = [(ws, channel) for ws, channel in places if self._leave(_channel_name(channel), ws)]
        if left:
            self._run(self._tell_parted(left))

    # -- from other threads

    def broadcast_threadsafe(
        self,
        channel: str,
        message: Any,
        *,
        to: Connections | None = None,
        users: Any = None,
        exclude: Connections | None = None,
    ) -> "concurrent.futures.Future[int]":
        """``broadcast`` from any thread. Raises RuntimeError when the server does not run."""
        return self._on_loop(lambda: self.broadcast(channel, message, to=to, users=users, exclude=exclude))

    def send_threadsafe(self, ids: Connections, message: Any) -> "concurrent.futures.Future[int]":
        """``send`` from any thread. Raises RuntimeError when the server does not run."""
        return self._on_loop(lambda: self.send(ids, message))

    def _on_loop(self, call: Callable[[], int]) -> "concurrent.futures.Future[int]":
        future: concurrent.futures.Future[int] = concurrent.futures.Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except Exception as error:
                    future.set_exception(error)

        self.server.loop.call_soon_threadsafe(run)
        return future

    # -- the life of a connection, as the engine tells it

    def _run(self, steps: Steps) -> None:
        self.server._runner.run(steps)

    def _call(self, ws: WebSocket, name: str, *arguments: Any) -> Steps:
        """Call a handler, if there is one; the result. One that raises costs the connection and nothing else."""
        method = self._handlers[name]
        if method is None:
            return None
        try:
            return (yield call(method, *arguments))
        except HANDLER_ERRORS as error:
            self._handler_failed(ws, error)
            return False

    def _coming(self, ws: WebSocket, channel: str | None) -> Steps:
        """From the accepted handshake to the first message."""
        session, user = ws.session, ws.user
        self._opening[ws] = None
        self._greeting.add(ws)
        is_done = False
        try:
            yield from self._open(ws, channel, session, user)
            is_done = True
        finally:
            self._greeting.discard(ws)
            end = self._opening.pop(ws)
            if end is not None and not is_done:  # at a stop that could not wait: nobody is told any more
                for kind, name, _ in ws._left():
                    self._told(kind, name)
        if end is not None:
            yield from self._going(ws, *end)

    def _open(self, ws: WebSocket, channel: str | None, session: Any, user: Hashable) -> Steps:
        if session is not None and session.id is not None:
            self._join(SESSION_KIND, session.id, ws)
        if self.options.auth is not None:
            self.options.auth.opened(ws)
        if (yield from self._call(ws, "on_open", ws)) is False:
            ws.close(1008, "refused by the server")
        self._greeting.discard(ws)
        is_online = user is not None and self._join_user(ws, user)
        for name in ws.channels if ws.is_open else ():
            self._arrive([ws], name)
        if is_online:
            yield from self._call(ws, "on_user_online", user)
        if channel is not None:
            count, joined, is_new = self._join(CHANNEL_KIND, channel, ws)
            if joined:
                yield from self._tell_joined(channel, [(ws, count, is_new)])
        yield from self._save_session(ws)
        ws._ready()

    def _join_user(self, ws: WebSocket, user: Hashable) -> bool:
        """Whether the user is online by this, and was not a moment ago."""
        _, joined, is_new = self._join(USER_KIND, user, ws)
        return joined and self._away.end(None, user) is None and is_new

    def _tell_joined(self, channel: str, joined: list[tuple[WebSocket, int, bool]]) -> Steps:
        """Connections of one user, or a single one, have joined a channel."""
        present = [ws for ws, _, _ in joined if ws not in self._greeting]
        if present:
            self._arrive(present, channel)
        for done, (ws, count, is_new) in enumerate(joined, 1):
            if is_new:
                yield from self._call(ws, "on_channel_open", channel)
            yield from self._call(ws, "on_subscribe", ws, channel, count)
            yield from _take_turns(done)

    def _tell_parted(self, left: list[tuple[WebSocket, str]]) -> Steps:
        """Connections have left channels on purpose. Of several in one channel the last one's user is told of."""
        for ws, channel in {(ws.user, channel): (ws, channel) for ws, channel in left}.values():
            self._depart(ws, channel, None)
        yield from self._tell_left(left)

    def _tell_left(self, left: list[tuple[WebSocket, str]]) -> Steps:
        """Tell the listener of connections that have left channels. Whatever ends this, their groups are let go."""
        waiting = deque(left)
        try:
            while waiting:
                ws, channel = waiting[0]
                yield from self._call(ws, "on_unsubscribe", ws, channel, self._count(channel))
                waiting.popleft()
                if self._told(CHANNEL_KIND, channel):
                    yield from self._call(ws, "on_channel_close", channel)
                yield from _take_turns(len(waiting))
        finally:
            for _, channel in waiting:
                self._told(CHANNEL_KIND, channel)

    def _going(self, ws: WebSocket, code: int, reason: str) -> Steps:
        """The connection is over and has left everything: tell the listener."""
        channels, user, session = _by_kind(ws._left())
        waiting = [channel for channel, _ in channels]
        try:
            if user is not None:
                for done, (channel, since) in enumerate(channels, 1):
                    self._depart(ws, channel, since)
                    yield from _take_turns(done)
            yield from self._call(ws, "on_close", ws, code, reason)
            yield from self._save_session(ws)
            told, waiting = waiting, []
            yield from self._tell_left([(ws, channel) for channel in told])
        finally:
            for channel in waiting:
                self._told(CHANNEL_KIND, channel)
            is_last = user is not None and self._told(USER_KIND, user[0])
            if session is not None:
                self._told(SESSION_KIND, session[0])
        if user is not None and is_last:
            if self._waits:
                self._away.begin(ws, None, user[1], self.options.offline_after)
            else:
                yield from self._offline(ws)
        ws._forget()

    def _offline(self, ws: WebSocket) -> Steps:
        self._sight.forget(ws.user)
        yield from self._call(ws, "on_user_offline", ws.user)

    def _closed(self, ws: WebSocket, code: int, reason: str) -> None:
        logger.debug("connection %s closed: %d %r", ws.id, code, reason, extra={"connection": ws.id, "code": code})
        if self.options.auth is not None:
            self.options.auth.closed(ws)
        if ws in self._opening:
            self._opening[ws] = code, reason  # on_open still runs: its end comes first
        else:
            self._run(self._going(ws, code, reason))

    # -- a user comes to a channel, and leaves it

    @property
    def _waits(self) -> bool:
        """Whether a user without connections may be back."""
        return self.options.offline_after > 0 and not self.server._stopping

    def _arrive(self, connections: list[WebSocket], channel: str) -> None:
        """Connections of one user, or a single one, are in a channel."""
        absence = self._away.end(channel, connections[0].user)
        if absence is not None:
            self._backdate(channel, connections[0], absence.since)
        self._notices.came(connections, channel)

    def _depart(self, ws: WebSocket, channel: str, since: float | None) -> None:
        """A connection left a channel: with ``since`` its end did it, and its user may be back."""
        user = ws.user
        if user is None or self._is_there(channel, user):
            return
        if since is not None and self.server._stopping:
            return  # everybody goes, and nobody need be told of each
        if since is not None and self._waits:
            self._away.begin(ws, channel, since, self.options.offline_after)
        else:
            self._away.end(channel, user)
            self._notices.gone(channel, user)

    def _absence_over(self, absence: Absence) -> None:
        if absence.channel is None:
            self._run(self._offline(absence.ws))
        else:
            self._notices.gone(absence.channel, absence.user)

    # -- messages

    def _message_handler(self) -> MessageHandler | None:
        """What the engine calls with each message: the listener's own, where nobody else looks at messages."""
        sessions, auth = self.options.sessions, self.options.auth
        handle: MessageHandler | None = self._handlers["on_message"]
        if sessions is not None:
            handle = sessions.wrap(handle or _ignore)
        if auth is not None:
            handle = auth.wrap(handle or _ignore)
        return handle

    def _save_session(self, ws: WebSocket) -> Steps:
        """Keep what another handler than on_message has changed."""
        sessions = self.options.sessions
        if sessions is not None and ws.session is not None:
            try:
                yield call(sessions.save, ws.session)
            except HANDLER_ERRORS as error:
                self._handler_failed(ws, error)

    def _await_message(self, ws: WebSocket, awaitable: Any) -> None:
        self._run(self._handle(ws, awaitable))

    def _handle(self, ws: WebSocket, awaitable: Any) -> Steps:
        result = None
        try:
            result = yield awaitable
        except HANDLER_ERRORS as error:
            self._handler_failed(ws, error)
        ws._handled(result)

    def _handler_failed(self, ws: WebSocket, error: BaseException) -> None:
        error = as_exception(error)
        logger.error(
            "a handler of %s failed for connection %s", self.path, ws.id, exc_info=error, extra={"connection": ws.id}
        )
        self._tell_error(ws, error)
        ws.close(1011, "internal error")

    def _protocol_failed(self, ws: WebSocket, error: ProtocolError) -> None:
        logger.warning(
            "connection %s broke the protocol: %s", ws.id, error, extra={"connection": ws.id, "code": error.code}
        )
        self._tell_error(ws, error)

    def _tell_error(self, ws: WebSocket, error: BaseException) -> None:
        def steps() -> Steps:
            on_error = self._handlers["on_error"]
            if on_error is not None:
                try:
                    yield call(on_error, ws, error)
                except HANDLER_ERRORS:
                    logger.exception("on_error of %s failed", self.path, extra={"connection": ws.id})

        self._run(steps())


class _ById(Mapping[str, WebSocket]):
    """The open connections of a manager by id."""

    def __init__(self, manager: ConnectionManager) -> None:
        self._manager = manager

    def __getitem__(self, id: str) -> WebSocket:
        ws = self._manager._find(id)
        if ws is None:
            raise KeyError(id)
        return ws

    def __iter__(self) -> Iterator[str]:
        return iter([ws.id for ws in self._manager._members(EVERYONE_KIND, None)])

    def __len__(self) -> int:
        return self._manager.connection_count

    def __repr__(self) -> str:
        return repr(dict(self))


class _ByUser(Mapping[Hashable, list[str]]):
    """The ids of a manager's connections by user."""

    def __init__(self, manager: ConnectionManager) -> None:
        self._manager = manager

    def __getitem__(self, user: Hashable) -> list[str]:
        ids = [ws.id for ws in self._manager._members(USER_KIND, user)]
        if not ids:
            raise KeyError(user)
        return ids

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._manager._counts(USER_KIND))

    def __len__(self) -> int:
        return len(self._manager._counts(USER_KIND))

    def __repr__(self) -> str:
        return repr(dict(self))


def _by_kind(left: list[tuple[int, Any, float]]) -> tuple[list[tuple[str, float]], Any, Any]:
    """What a connection left: its channels, its user and its session (None: it had none), with the times of joining."""
    by_kind: dict[int, list[tuple[Any, float]]] = {CHANNEL_KIND: [], USER_KIND: [], SESSION_KIND: []}
    for kind, name, since in left:
        by_kind[kind].append((name, since))
    return by_kind[CHANNEL_KIND], next(iter(by_kind[USER_KIND]), None), next(iter(by_kind[SESSION_KIND]), None)


def _take_turns(done: int) -> Steps:
    """Let others have the loop, now and then during a long piece of work."""
    if done % AT_ONCE == 0 and done:
        yield asyncio.sleep(0)


def _ignore(ws: WebSocket, message: str | bytes) -> None:
    """What a listener does that has no on_message."""


def _channel_name(channel: str) -> str:
    if not isinstance(channel, str):
        raise TypeError(f"a channel is named by a str, not {channel!r}")
    return channel
