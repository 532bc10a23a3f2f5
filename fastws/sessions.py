"""The visitor's HTTP session on a WebSocket: ``endpoint(..., sessions=...)``, found by cookie during the handshake.

Each endpoint has its own `Sessions`, with its own secret or store. A cookie from another application, or a forged or
expired one, is ignored: ``request.session`` is None, and the handshake continues.
"""

import hashlib
import json
import logging
import math
import re
import sys
import time
import zlib
from base64 import b64decode
from collections.abc import Awaitable, Callable, Coroutine, Iterator, MutableMapping
from datetime import datetime
from typing import Any, ClassVar, Protocol, runtime_checkable
from uuid import UUID

from ._core import Request, WebSocket, is_awaitable
from .errors import ConfigurationError
from .life.steps import MessageHandler, Steps, complete

__all__ = ["Session", "Sessions", "SignedCookieSessions", "StoreSessions"]

logger = logging.getLogger("fastws.sessions")

DEFAULT_LIFETIME_SECONDS = 14 * 24 * 3600
MAX_COOKIES_PER_NAME = 8
MAX_INFLATED_BYTES = 256 * 1024  # browsers limit cookies to 4 KiB, and JSON rarely shrinks to 1/64
TOUCH_INTERVAL_SECONDS = 60.0  # between touches
# The second and third are raised for impossible dates, the last for JSON that is nested too deeply.
READ_ERRORS = (ValueError, OSError, OverflowError, RecursionError)
IMMUTABLE_TYPES = frozenset({str, int, float, bool, type(None)})
METADATA_KEY = "__metadata__"  # under which starsessions keeps its own data among a session's values

is_id = re.compile(r"[!-~]{1,256}").fullmatch  # no application uses longer ones, or ones with blanks
is_cookie_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch  # RFC 6265 4.1.1


class Session(MutableMapping[str, Any]):
    """A session's values by name, and its ``id`` (None if it has none).

    With `StoreSessions` it is live: a message handler's changes are in the store when the handler is done, and changes
    over HTTP are visible when the next handler starts. With `SignedCookieSessions` it is read-only.
    """

    __slots__ = (
        "_is_gone",
        "_is_stale",
        "_is_used",
        "_lazy_until",
        "_metadata",
        "_source",
        "_stored",
        "_touched",
        "_values",
        "id",
    )

    def __init__(self, id: str | None, values: dict[str, Any]) -> None:
        self.id = id
        self._values = values
        self._metadata: dict[str, Any] | None = None
        self._stored: bytes | None = None  # as in the store; None: it is in a cookie
        self._source: StoreSessions | None = None  # set if its store is immediate, so that it can be read when needed
        self._touched = self._lazy_until = -math.inf  # on the monotonic clock, in seconds
        self._is_stale = False  # the source has not been read for this message
        self._is_used = False  # somebody changed a value, or got a mutable one
        self._is_gone = False  # from the store, for good

    def __getitem__(self, name: str) -> Any:
        self._catch_up()
        value = self._values[name]
        self._is_used = self._is_used or type(value) not in IMMUTABLE_TYPES
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        self._check_writable()
        self._catch_up()
        self._is_used = True
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        self._check_writable()
        self._catch_up()
        self._is_used = True
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        self._catch_up()
        return iter(self._values)

    def __len__(self) -> int:
        self._catch_up()
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Session of {len(self._values)} values>"  # ids and values must not appear in logs

    def _catch_up(self) -> None:
        if self._is_stale and self._source is not None:
            self._is_stale = False
            self._source._catch_up(self)

    def _mark_gone(self) -> None:
        """It is gone from the store: logged out or expired."""
        self._is_gone = True
        self._values = {}

    def _check_writable(self) -> None:
        if self._stored is None:
            raise TypeError("a session in a signed cookie is read-only: change it over HTTP, or use StoreSessions")


@runtime_checkable
class Sessions(Protocol):
    """The interface of ``endpoint(..., sessions=...)``. Each method may return an awaitable; an exception is treated as
    a server error (500, or close 1011). Those that also have ``attach`` are given the `ConnectionManager` of each
    endpoint that begins to serve, as for a logout that they hear of themselves."""

    def find(self, request: Request) -> "Session | Awaitable[Session | None] | None":
        """Returns the session that the request's cookies name, if there is one."""

    def save(self, session: Session) -> Awaitable[None] | None:
        """Save what a handler changed."""

    def wrap(self, handle: MessageHandler) -> MessageHandler:
        """Returns a message handler that sees changes over HTTP, and whose own changes are saved."""


class SignedCookieSessions:
    """Sessions in a signed cookie, as written by Flask or by the SessionMiddleware of Starlette and FastAPI.

    ``secret`` and ``cookie`` (its name) are the HTTP application's. A cookie signed more than ``max_age`` seconds ago
    is ignored (None: any age is accepted). ``session.id``, which ``close_session`` takes, is the session's value under
    ``id_key``. Both kinds of cookies are accepted; their signatures use different salts, so that one cannot be mistaken
    for the other.
    """

    def __init__(
        self,
        secret: str | bytes,
        cookie: str = "session",
        *,
        max_age: float | None = DEFAULT_LIFETIME_SECONDS,
        id_key: str = "id",
    ) -> None:
        if not isinstance(secret, str | bytes):
            raise ConfigurationError(f"secret is a {type(secret).__name__}: use the HTTP application's, as a string")
        if not secret:
            raise ConfigurationError(f"secret={secret!r} is empty: use the HTTP application's secret")
        _check_cookie_name(cookie)
        if max_age is not None:
            _check_seconds("max_age", max_age)
        try:
            import itsdangerous
        except ImportError:
            raise ConfigurationError(
                'SignedCookieSessions needs itsdangerous: pip install "fastws-server[sessions]"'
            ) from None
        self._cookie = cookie
        self._max_age: Any = max_age  # itsdangerous declares int, but only compares
        self._id_key = id_key
        self._not_ours = itsdangerous.BadData
        self._starlette = itsdangerous.TimestampSigner(secret)
        self._flask = _flask_serializer(secret)

    def find(self, request: Request) -> Session | None:
        """Returns the first valid session among the cookies of this name (RFC 6265 5.4: longest path first)."""
        for cookie in filter(str.isascii, request._cookie_values(self._cookie)[:MAX_COOKIES_PER_NAME]):
            for read in (self._read_starlette, self._read_flask):
                try:
                    values = read(cookie)
                    if isinstance(values, dict):
                        name = values.get(self._id_key)
                        return Session(None if name is None else str(name), values)
                except (self._not_ours, *READ_ERRORS):
                    continue
        return None

    def save(self, session: Session) -> None:
        """Do nothing: the session cannot be changed."""

    def wrap(self, handle: MessageHandler) -> MessageHandler:
        """Returns the handler itself: a cookie stays what it was at the handshake."""
        return handle

    def _read_starlette(self, cookie: str) -> Any:
        return json.loads(b64decode(self._starlette.unsign(cookie, max_age=self._max_age)))

    def _read_flask(self, cookie: str) -> Any:
        return self._flask.loads(cookie, max_age=self._max_age)


def _flask_serializer(secret: str | bytes) -> Any:
    """Returns a reader of Flask's cookies: itsdangerous' URLSafeTimedSerializer, with a limit on decompression."""
    from itsdangerous import TimedSerializer
    from itsdangerous.encoding import base64_decode

    class Flask(TimedSerializer[str]):
        def load_payload(self, payload: bytes, serializer: Any = None) -> Any:
            data = base64_decode(payload.removeprefix(b"."))
            return super().load_payload(_inflate(data) if payload.startswith(b".") else data, serializer)

    signer = {"key_derivation": "hmac", "digest_method": hashlib.sha1}
    return Flask(secret, salt="cookie-session", serializer=_TaggedJSON, signer_kwargs=signer)


def _inflate(data: bytes) -> bytes:
    """Decompress up to MAX_INFLATED_BYTES; raises ValueError if that is impossible, or not all.

    A cookie can grow a thousandfold, and a visitor may be able to make the application store something long in it.
    """
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(data, MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise ValueError("not zlib data") from error
    if not inflater.eof:
        raise ValueError("too long or incomplete")
    return inflated


def _date(value: str) -> datetime:
    from email.utils import parsedate_to_datetime  # slow to import, and rarely needed

    return parsedate_to_datetime(value)


class _TaggedJSON:
    """Flask's JSON, in which ``{" t": [1, 2]}`` is a tuple. Markup is read as plain text."""

    tags: ClassVar[dict[str, Callable[[Any], Any]]] = {
        " b": b64decode,
        " d": _date,
        " di": lambda value: {name[:-2]: item for name, item in value.items()},  # a dict that looks like a tag
        " m": str,
        " t": tuple,
        " u": UUID,
    }

    dumps = staticmethod(json.dumps)

    @classmethod
    def loads(cls, text: str) -> Any:
        return json.loads(text, object_hook=cls._untag)

    @classmethod
    def _untag(cls, found: dict[str, Any]) -> Any:
        if len(found) == 1:
            ((name, value),) = found.items()
            if name in cls.tags:
                return cls.tags[name](value)
        return found


class SessionStore(Protocol):
    """Sessions by id, with the interface of starsessions' stores; each method may be ``def`` or ``async def``.

    A store may also have ``replace``, with the arguments of ``write``, which writes only if the id exists and returns
    whether it did (Redis: ``SET ... XX``). Without it, a logout between a read and the write that follows it, one
    round trip to the store, is overwritten.
    """

    def read(self, session_id: str, lifetime: int) -> Any:
        """Returns the session as bytes, b"" if there is none."""

    def write(self, session_id: str, data: bytes, lifetime: int, ttl: int) -> Any:
        """Store it for ``ttl`` more seconds."""

    def remove(self, session_id: str) -> Any:
        """Delete it."""


class Serializer(Protocol):
    """Converts a session's values to bytes and back, with the interface of starsessions."""

    def serialize(self, data: Any) -> bytes:
        """Returns values as bytes."""

    def deserialize(self, data: bytes) -> Any:
        """Returns values from bytes."""


class _JSON:
    """The format of starsessions' default serializer."""

    def serialize(self, data: Any) -> bytes:
        return json.dumps(data).encode()

    def deserialize(self, data: bytes) -> Any:
        return json.loads(data)


class StoreSessions:
    """Sessions in a store shared with the HTTP side; the cookie holds their id.

    ``store`` is a starsessions store, or has the same three methods (`SessionStore`); ``serializer`` is that of its
    middleware. With ``touch``, messages keep a session from expiring: at most once a minute it is written with its full
    lifetime, which is the one in its data or else ``lifetime``, in seconds. (Only HTTP can renew the ``max-age`` of the
    cookie itself.)

    An ``immediate`` store never waits. Even if its methods are ``async def``, they need no task, and it is read only
    for messages whose handler uses the session. By default only starsessions' ``InMemoryStore`` is considered
    immediate (not its subclasses, which may wait). If an immediate store does wait, the call is aborted with a
    ConfigurationError.

    Changes from both sides are merged by name; if both change the same name, the later change counts. Once a session
    is gone from the store, it stays empty and is never written again.
    """

    def __init__(
        self,
        store: Any,
        cookie: str = "session",
        *,
        lifetime: int = DEFAULT_LIFETIME_SECONDS,
        touch: bool = True,
        serializer: Serializer | None = None,
        immediate: bool | None = None,
    ) -> None:
        for name in ("read", "write", "remove"):
            if not callable(getattr(store, name, None)):
                raise ConfigurationError(f"store={store!r} has no {name}(): use a starsessions store or a similar one")
        for name in ("serialize", "deserialize"):
            if serializer is not None and not callable(getattr(serializer, name, None)):
                raise ConfigurationError(f"serializer={serializer!r} has no {name}(): use the HTTP middleware's")
        if immediate is not None and not isinstance(immediate, bool):
            raise ConfigurationError(f"immediate={immediate!r} must be True or False")
        _check_cookie_name(cookie)
        _check_seconds("lifetime", lifetime)
        self._cookie = cookie
        self._lifetime = math.ceil(lifetime)
        self._touch = touch
        self._serializer = serializer or _JSON()
        self._has_replace = callable(getattr(store, "replace", None))
        self._is_immediate = _is_known_immediate(store) if immediate is None else immediate
        self._read, self._write = store.read, store.replace if self._has_replace else store.write
        if self._is_immediate:
            self._read, self._write = _make_immediate(self._read), _make_immediate(self._write)

    def find(self, request: Request) -> "Session | Awaitable[Session | None] | None":
        """Returns the first session among the cookies of this name that is in the store."""
        found: Session | Awaitable[Session | None] | None
        found = complete(self._find(request._cookie_values(self._cookie)[:MAX_COOKIES_PER_NAME]))
        return found

    def save(self, session: Session) -> Awaitable[None] | None:
        """Write changes to the store, if there are any."""
        saved: Awaitable[None] | None = None
        if session._is_gone:
            session._values.clear()
        elif any(self._changes(session)):
            saved = complete(self._save(session))
        else:
            session._is_used = False
        return saved

    def wrap(self, handle: MessageHandler) -> MessageHandler:
        """Returns a handler that sees changes over HTTP, and whose own changes are written when it is done.

        An immediate store is read when the handler uses the session, any other before each message.
        """

        def on_message(ws: WebSocket, message: str | bytes) -> Any:
            session = ws.session
            if session is None:
                return handle(ws, message)
            if time.monotonic() >= session._lazy_until:
                return complete(self._handle(session, handle, ws, message))
            session._is_stale = True
            result = handle(ws, message)
            return complete(self._keep(session, result)) if session._is_used or is_awaitable(result) else result

        return on_message

    def _handle(self, session: Session, handle: MessageHandler, ws: WebSocket, message: str | bytes) -> Steps:
        if not session._is_gone:
            yield from self._refresh(session)
        return (yield from self._keep(session, handle(ws, message)))

    def _keep(self, session: Session, result: Any) -> Steps:
        result = yield result
        yield self.save(session)
        return result

    # -- sequences of calls to the store: each call is yielded, and its result comes back

    def _find(self, cookies: list[str]) -> Steps:
        for cookie in filter(is_id, cookies):
            data = yield self._read(cookie, self._lifetime)
            session = Session(cookie, {})
            if self._load(session, data):
                session._source = self if self._is_immediate else None
                return session
        return None

    def _refresh(self, session: Session) -> Steps:
        """Read changes over HTTP, and touch the session if it is time."""
        self._merge(session, (yield self._read(session.id, self._lifetime)))
        interval = min(TOUCH_INTERVAL_SECONDS, self._lifetime_of(session) / 2)
        if self._touch and not session._is_gone and time.monotonic() - session._touched >= interval:
            yield from self._store(session)
        if session._source is not None:
            session._lazy_until = session._touched + interval if self._touch else math.inf

    def _save(self, session: Session) -> Steps:
        self._merge(session, (yield self._read(session.id, self._lifetime)))
        if not session._is_gone:
            session._is_used = False
            yield from self._store(session)

    def _store(self, session: Session) -> Steps:
        """Write a session that has just been read."""
        now = accessed = time.time()
        metadata = session._metadata
        lifetime = self._lifetime_in(metadata)
        if metadata is not None and self._touch:
            metadata |= {
                "created": now,
                "last_access": now,
            }  # a middleware without rolling sessions counts from "created"
        elif metadata is not None:
            accessed = metadata["last_access"]
        data = self._dump(session)
        answer = yield self._write(session.id, data, lifetime, max(1, math.ceil(accessed + lifetime - now)))
        if self._has_replace and not answer:
            session._mark_gone()
        else:
            session._stored = data
            session._touched = time.monotonic()

    # -- bytes and values

    def _catch_up(self, session: Session) -> None:
        if not session._is_gone:
            self._merge(session, self._read(session.id, self._lifetime))

    def _merge(self, session: Session, data: bytes) -> None:
        """Update a session from the store, keeping local changes that are not yet written."""
        if data == session._stored and not self._has_expired(session._metadata):
            return
        changed, removed = self._changes(session)
        if not self._load(session, data):
            session._mark_gone()
            return
        session._values.update(changed)
        for name in removed:
            session._values.pop(name, None)

    def _changes(self, session: Session) -> tuple[dict[str, Any], set[str]]:
        """Returns the values set, and the names removed, since the session was last read or written."""
        if not session._is_used or session._stored is None or self._dump(session) == session._stored:
            return {}, set()
        before, after, dump = self._serializer.deserialize(session._stored), session._values, self._serializer.serialize
        changed = {
            name: value
            for name, value in after.items()
            if name not in before or dump({name: value}) != dump({name: before[name]})
        }
        return changed, before.keys() - after.keys() - {METADATA_KEY}

    def _load(self, session: Session, data: bytes) -> bool:
        """Load a session from stored data. Returns False if that is empty, unreadable or expired."""
        if not data:
            return False
        try:
            values = dict(self._serializer.deserialize(data))
            metadata = values.pop(METADATA_KEY, None)
            if self._has_expired(metadata):
                return False
        except Exception:  # a serializer may raise anything
            logger.warning("ignoring an unreadable session in the store", exc_info=True)
            return False
        session._values, session._metadata, session._stored = values, metadata, data
        return True

    def _dump(self, session: Session) -> bytes:
        metadata = {} if session._metadata is None else {METADATA_KEY: session._metadata}
        return self._serializer.serialize(session._values | metadata)

    def _has_expired(self, metadata: dict[str, Any] | None) -> bool:
        """Returns whether a session has expired: not every store deletes expired ones."""
        return metadata is not None and metadata["last_access"] + self._lifetime_in(metadata) <= time.time()

    def _lifetime_of(self, session: Session) -> int:
        return self._lifetime_in(session._metadata)

    def _lifetime_in(self, metadata: dict[str, Any] | None) -> int:
        """Returns seconds; a middleware whose cookies end with the browser stores 0."""
        return (metadata or {}).get("lifetime") or self._lifetime


def _is_known_immediate(store: Any) -> bool:
    """Returns whether a store is known to answer at once: of exactly this class, since a subclass may wait."""
    starsessions: Any = sys.modules.get("starsessions")  # imported if the store is its own
    return starsessions is not None and type(store) is starsessions.InMemoryStore


def _make_immediate(method: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a method of an immediate store that answers without a task, even if it is ``async def``.

    If it waits after all, it is aborted, since nothing would resume it.
    """

    def call(*arguments: Any) -> Any:
        answer = method(*arguments)
        if not is_awaitable(answer):
            return answer
        if isinstance(answer, Coroutine):
            try:
                answer.send(None)
            except StopIteration as done:
                return done.value
            answer.close()
        name = getattr(method, "__qualname__", repr(method))
        raise ConfigurationError(f"{name}() waits, so the store is not immediate: use immediate=False")

    return call


def _check_cookie_name(name: str) -> None:
    if not (isinstance(name, str) and is_cookie_name(name)):
        raise ConfigurationError(f"cookie={name!r} is not a cookie name: use the HTTP application's, such as 'session'")


def _check_seconds(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(f"{name}={value!r} is not a duration: use a number of seconds greater than 0")
