"""Django's sessions and users on WebSockets: ``endpoint(..., sessions=DjangoSessions())``; see docs/django.md.

Needs Django 5.2 or later (the extra `django`), set up as for any script: by ``django.setup()``, or by
``get_asgi_application()`` where the same process serves Django's pages.
"""

import asyncio
import contextlib
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, TypeVar

from ._core import SESSION_KIND, Request, WebSocket
from .errors import ConfigurationError
from .life.steps import MessageHandler, Steps, complete
from .manager import ConnectionManager
from .publisher import Publisher, PublisherError
from .sessions import MAX_COOKIES_PER_NAME, Session, StoreSessions, is_id

__all__ = ["DjangoSessions", "close_on_logout"]

logger = logging.getLogger("fastws.sessions")

T = TypeVar("T")

USER_ID = "_auth_user_id"  # under which django.contrib.auth keeps the user
LOGGED_OUT = 4001, "logged out"
FLUSHED_AFTER_SECONDS = 1.0  # after the signal a session is out of the store
MOST_ENDED = 10_000  # logouts that are remembered
CHECKED_AT_ONCE = 50  # sessions, by one job
MAX_SIGNED_BYTES = 4096  # browsers limit cookies to that


class DjangoSessions(StoreSessions):
    """The sessions of a Django project, from its ``SESSION_ENGINE`` by the cookie ``SESSION_COOKIE_NAME``.

    ``request.user`` is ``str(user.pk)`` of the user who is logged in by the rules of ``django.contrib.auth.get_user``,
    the session's hash and ``SECRET_KEY_FALLBACKS`` included; None for anybody else. With ``user_field`` it is another
    of the user's fields, such as ``"username"``, which has to be unique.

    ``ws.session`` is as live as that of `StoreSessions`: read before each message, saved when its handler is done.
    Without ``live``, and in the engine of signed cookies, it stays as it was at the handshake, and is read-only.
    Messages prolong a session where the project has set ``SESSION_SAVE_EVERY_REQUEST``.

    A connection whose user is no longer logged in is closed with 4001: at once when this process sends Django's signal
    ``user_logged_out`` (`close_on_logout` is for other processes), with its next message if ``live``, and within
    ``recheck`` seconds (None: never) if the session has expired or was flushed by another process, if the password was
    changed, or if the user is no longer active. In the engine of signed cookies sessions have no ids of their own; a
    logout closes all the user's connections then.

    The engine and the database are used in ``threads`` threads, since their methods wait, and each of these keeps to
    ``CONN_MAX_AGE``. Raises ConfigurationError if Django is missing or not set up.
    """

    def __init__(
        self, *, user_field: str = "pk", live: bool = True, recheck: float | None = 60.0, threads: int = 4
    ) -> None:
        settings = _settings()
        if recheck is not None and not (isinstance(recheck, int | float) and recheck > 0):
            raise ConfigurationError(f"recheck={recheck!r} is not a duration: use seconds greater than 0, or None")
        if not isinstance(threads, int) or threads < 1:
            raise ConfigurationError(f"threads={threads!r} is not a number of threads: use 1 or more")
        engine = _Engine(threads)
        super().__init__(
            engine,
            settings.SESSION_COOKIE_NAME,
            lifetime=settings.SESSION_COOKIE_AGE,
            touch=bool(settings.SESSION_SAVE_EVERY_REQUEST),
            serializer=engine,
            immediate=False,
        )
        self._engine = engine
        self._is_live = live and not engine.is_signed
        self._user_field = user_field
        self._recheck = recheck
        self._managers: tuple[ConnectionManager, ...] = ()  # replaced, not changed: other threads read it
        self._rounds: dict[ConnectionManager, _Rounds] = {}
        self._ended: dict[str, None] = {}  # ids of sessions that were logged out here, the oldest first
        self._lock = threading.Lock()
        if _has_users():
            from django.contrib.auth import get_user_model
            from django.contrib.auth.signals import user_logged_out

            if not hasattr(get_user_model(), user_field):
                raise ConfigurationError(f"user_field={user_field!r} is no field of the user model: use 'pk', say")
            user_logged_out.connect(self._logged_out)

    # -- at the handshake

    def find(self, request: Request) -> Any:
        """Returns the first session of the project among the cookies of this name; sets ``request.user``."""
        return complete(self._identify(request))

    def _identify(self, request: Request) -> Steps:
        for cookie in request._cookie_values(self._cookie)[:MAX_COOKIES_PER_NAME]:
            if not self._engine.may_be_key(cookie):
                continue
            found = yield self._engine.run(self._look_up, cookie)
            if found is not None:
                session, request.user = found
                if session.id not in self._ended:
                    return session
                request.user = None
        return None

    def _look_up(self, key: str) -> "tuple[DjangoSession, str | None] | None":
        """Returns a session and who is logged in there; None if there is no such session. Runs in a thread."""
        values = self._engine.load(key)
        if values is None:
            return None
        user, is_valid = _user_of(values)
        if not is_valid:
            return None
        session = DjangoSession(self._engine.session_id(key, user), {})
        session.key, session.user_id = key, None if user is None else str(values[USER_ID])
        self._load(session, self._engine.serialize(values))
        if not self._is_live:
            session._stored = None  # which makes it read-only
        return session, None if user is None else str(getattr(user, self._user_field))

    # -- with each message

    def wrap(self, handle: MessageHandler) -> MessageHandler:
        """Returns a handler as that of `StoreSessions`, which closes a connection whose user has logged out."""
        if not self._is_live:
            return handle

        def on_message(ws: WebSocket, message: str | bytes) -> Any:
            if isinstance(ws.session, DjangoSession) and ws.session.is_over:
                ws.close(*LOGGED_OUT)
                return None
            return handle(ws, message)

        return super().wrap(on_message)

    def _lifetime_of(self, session: Session) -> int:
        """Returns seconds: what ``set_expiry`` was given, if that was a number of them."""
        expiry = session._values.get("_session_expiry")
        return expiry if isinstance(expiry, int) and expiry > 0 else self._lifetime

    # -- logging out

    def attach(self, manager: ConnectionManager) -> None:
        """An endpoint with these sessions begins to serve."""
        others = [other for other in self._managers if other is not manager and _is_running(other)]
        self._managers = (*others, manager)
        if manager in self._rounds:
            self._rounds[manager].stop()
        if self._recheck is not None:
            rounds = _Rounds(manager, self._recheck, self._engine, self._over_among)
            self._rounds = {other: self._rounds[other] for other in others} | {manager: rounds}

    def _logged_out(self, *, request: Any, user: Any, **named: Any) -> None:
        """Django's signal ``user_logged_out``, in any thread, before it flushes the session."""
        session_id = self._engine.session_id(_key_of(request), user)
        if session_id is None:
            return
        if not self._engine.is_signed:  # a handshake may have read it already
            with self._lock:
                self._ended[session_id] = None
                if len(self._ended) > MOST_ENDED:
                    del self._ended[next(iter(self._ended))]
        for manager in self._managers:
            with contextlib.suppress(RuntimeError):  # that server has stopped
                manager.server.loop.call_soon_threadsafe(self._close, manager, session_id)

    def _close(self, manager: ConnectionManager, session_id: str) -> None:
        """Close a session's connections, on other nodes again when it is no longer in the store for newcomers there."""
        manager.close_session(session_id, *LOGGED_OUT)
        if manager.reaches_others and not self._engine.is_signed:
            manager.server.loop.call_later(FLUSHED_AFTER_SECONDS, self._close_again, manager, session_id)

    def _close_again(self, manager: ConnectionManager, session_id: str) -> None:
        if _is_running(manager):
            manager.close_session(session_id, *LOGGED_OUT)

    def _over_among(self, known: Mapping[str, str]) -> set[str]:
        """Returns which keys have no valid session with that user any more. Runs in a thread."""
        over = set()
        for key, user_id in known.items():
            values = self._engine.load(key)
            if values is None or _user_of(values)[0] is None or str(values[USER_ID]) != user_id:
                over.add(key)
        return over


class DjangoSession(Session):
    """A session of a Django project."""

    __slots__ = ("key", "user_id")

    key: str  # the cookie
    user_id: str | None  # of whoever was logged in at the handshake

    @property
    def is_over(self) -> bool:
        """Whether somebody was logged in at the handshake, and is not any more."""
        if self.user_id is None:
            return False
        return self._is_gone or str(self._values.get(USER_ID)) != self.user_id

    def _check_writable(self) -> None:
        if self._stored is None:
            raise TypeError("this session is read-only: use live=True, and another engine than signed cookies")


class _Engine:
    """The project's ``SESSION_ENGINE`` and ``SESSION_SERIALIZER``, with the interfaces of a store and its serializer.

    Django's engines wait, those in caches included, and so do their async methods, each for a thread. Here everything
    that a look-up needs, session and user, is one job of a few threads.
    """

    def __init__(self, threads: int) -> None:
        from django.conf import settings
        from django.contrib.sessions.backends import signed_cookies
        from django.utils.module_loading import import_string

        try:
            self._make = import_string(f"{settings.SESSION_ENGINE}.SessionStore")
            if hasattr(self._make, "get_model_class"):
                self._make.get_model_class()
        except (ImportError, RuntimeError) as error:
            raise ConfigurationError(f"SESSION_ENGINE={settings.SESSION_ENGINE!r} cannot be used: {error}") from None
        self.is_signed = issubclass(self._make, signed_cookies.SessionStore)
        serializer = import_string(settings.SESSION_SERIALIZER)()
        self.serialize: Callable[[Any], bytes] = serializer.dumps
        self.deserialize: Callable[[bytes], Any] = serializer.loads
        self._pool = ThreadPoolExecutor(threads, "fastws-django")

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Returns what a function that waits, or uses the database, returns."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, _with_fresh_connections, work, arguments)

    def may_be_key(self, cookie: str) -> bool:
        """Returns whether it is worth a look-up."""
        if self.is_signed:
            return cookie.isascii() and cookie.isprintable() and len(cookie) <= MAX_SIGNED_BYTES
        return is_id(cookie) is not None

    def session_id(self, key: str | None, user: Any) -> str | None:
        """Returns a session's id for ``close_session``. The key of a signed cookie is another after each change."""
        if not self.is_signed:
            return key
        return None if getattr(user, "pk", None) is None else f"user {user.pk}"

    def load(self, key: str) -> dict[str, Any] | None:
        """Returns a session's values, None if there is no such session. Runs in a thread."""
        store = self._make(key)
        values = dict(store.items())
        if self.is_signed:
            return values or None
        if store.session_key == key:
            return values
        if store.session_key is not None:  # that of files begins another one in place of one that has expired
            store.delete()
        return None

    # -- the interface of a store

    async def read(self, key: str, lifetime: int) -> bytes:
        """Returns a session as bytes, b"" if there is none."""
        values = await self.run(self.load, key)
        return b"" if values is None else self.serialize(values)

    async def replace(self, key: str, data: bytes, lifetime: int, ttl: int) -> bool:
        """Save a session, which Django itself gives its time to live. Returns False if there is none any more."""
        return await self.run(self._replace, key, data)

    write = replace

    async def remove(self, key: str) -> None:
        """Delete a session."""
        await self.run(self._make(key).delete)

    def _replace(self, key: str, data: bytes) -> bool:
        from django.contrib.sessions.backends.base import UpdateError

        store = self._make(key)
        store.clear()
        store.update(self.deserialize(data))
        try:
            store.save()
        except UpdateError:
            if store.exists(key):  # the database failed: that is an UpdateError, too
                raise
            return False
        return True


class _Rounds:
    """Looks, once in ``seconds``, at every session of an endpoint where somebody is logged in, some at a time."""

    def __init__(
        self,
        manager: ConnectionManager,
        seconds: float,
        engine: _Engine,
        over_among: Callable[[Mapping[str, str]], set[str]],
    ) -> None:
        self._manager = manager
        self._seconds = seconds
        self._engine = engine
        self._over_among = over_among
        self._ids: deque[str] = deque()  # still to be looked at in this round
        self._pause = seconds
        self._task: asyncio.Task[None] | None = None
        self._timer = manager.server.loop.call_later(seconds, self._go_on)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _go_on(self) -> None:
        if not _is_running(self._manager):
            return
        loop = self._manager.server.loop
        if self._task is None or self._task.done():  # else the database is slow, and gets no more to do
            if not self._ids:
                self._ids.extend(self._manager._counts(SESSION_KIND))
                self._pause = self._seconds / max(1, math.ceil(len(self._ids) / CHECKED_AT_ONCE))
            some = [self._ids.popleft() for _ in range(min(CHECKED_AT_ONCE, len(self._ids)))]
            if some:
                self._task = loop.create_task(self._check(some))
        self._timer = loop.call_later(self._pause, self._go_on)

    async def _check(self, ids: list[str]) -> None:
        known = {session.key: session.user_id for _, session in self._sessions(ids) if session.user_id is not None}
        try:
            over = await self._engine.run(self._over_among, known) if known else set()
        except Exception:  # the store's or the database's: the connections stay until it answers
            logger.exception("cannot look whether %d sessions are still valid", len(known))
            return
        for ws, session in self._sessions(ids) if over else ():
            if session.key in over:
                ws.close(*LOGGED_OUT)

    def _sessions(self, ids: list[str]) -> Iterator[tuple[WebSocket, DjangoSession]]:
        """Returns the open connections of some sessions, with these."""
        for session_id in ids:
            for ws in self._manager._members(SESSION_KIND, session_id):
                if isinstance(ws.session, DjangoSession):
                    yield ws, ws.session


def close_on_logout(publisher: Publisher) -> None:
    """Have every logout in this Django process close the session's connections, with 4001, on a server elsewhere.

    For ``AppConfig.ready`` of a project whose WebSockets another process serves; its HTTP API needs a key that may
    ``close``. A server that cannot be asked does not stop anybody from logging out: that is logged.
    """
    _settings()
    from django.contrib.auth.signals import user_logged_out

    engine = _Engine(1)

    def logged_out(*, request: Any, user: Any, **named: Any) -> None:
        session_id = engine.session_id(_key_of(request), user)
        if session_id is not None:
            try:
                publisher.close(session=session_id, code=LOGGED_OUT[0], reason=LOGGED_OUT[1])
            except PublisherError as error:
                logger.warning("a logout did not reach the server: %s", error)

    user_logged_out.connect(logged_out, weak=False, dispatch_uid="fastws.django.close_on_logout")


class _Glance(dict[str, Any]):
    """A session for ``get_user`` to look at, and to change without consequences for the real one."""

    def cycle_key(self) -> None:
        """Its hash is of an old secret, which counts: only HTTP can give the browser a new cookie."""

    def flush(self) -> None:
        """Its hash is wrong."""
        self.clear()


def _user_of(values: dict[str, Any]) -> tuple[Any, bool]:
    """Returns the user who is logged in, or None, and whether the session is valid at all. Runs in a thread."""
    if not _has_users():
        return None, True
    from django.contrib.auth import get_user

    glance = _Glance(values)
    user = get_user(SimpleNamespace(session=glance))
    return user if user.is_authenticated else None, bool(glance) or not values


def _key_of(request: Any) -> str | None:
    """Returns the key of a Django request's session, None if it has none."""
    key: str | None = getattr(getattr(request, "session", None), "session_key", None)
    return key


def _with_fresh_connections(work: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    """Call a function as Django calls a view: with no connection to a database that is too old, or was lost."""
    from django.db import close_old_connections

    close_old_connections()
    try:
        return work(*arguments)
    finally:
        close_old_connections()


def _settings() -> Any:
    """Returns the project's settings; raises ConfigurationError if there is no Django, or if it is not set up."""
    try:
        from django.apps import apps
        from django.conf import settings
    except ImportError:
        raise ConfigurationError('DjangoSessions needs Django: pip install "fastws-server[django]"') from None
    if not apps.models_ready:  # as in AppConfig.ready
        raise ConfigurationError("Django is not set up: call django.setup() or get_asgi_application() before")
    return settings


def _has_users() -> bool:
    from django.apps import apps

    return bool(apps.is_installed("django.contrib.auth"))


def _is_running(manager: ConnectionManager) -> bool:
    try:
        return not manager.server.loop.is_closed()
    except RuntimeError:
        return False
