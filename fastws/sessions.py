"""The visitor's HTTP session on the socket: ``endpoint(..., sessions=...)``, found by cookie at the handshake.

Each endpoint has its own `Sessions`, with its own secret or store. A cookie that another application wrote, one that is
forged or one that has expired is no session: ``request.session`` is None, and the handshake goes on.
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
MAX_INFLATED_BYTES = 256 * 1024  # a browser keeps no cookie of more than 4 KiB, and JSON seldom shrinks to a 64th
TOUCH_INTERVAL_SECONDS = 60.0  # between two touches
# A date past all calendars is the second and the third; JSON that is nested too deeply the last.
READ_ERRORS = (ValueError, OSError, OverflowError, RecursionError)
IMMUTABLE_TYPES = frozenset({str, int, float, bool, type(None)})
METADATA_KEY = "__metadata__"  # where starsessions keeps its own among a session's values

is_id = re.compile(r"[!-~]{1,256}").fullmatch  # nobody makes longer ones, or ones with blanks
is_cookie_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch  # RFC 6265 4.1.1


class Session(MutableMapping[str, Any]):
    """A session's values by name, and its ``id`` (None where it has none).

    Of a `StoreSessions` it is live: what a message handler changes is in the store when the handler is done, and what
    HTTP changed is there when the next one starts. Of a `SignedCookieSessions` it can only be read.
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
        self._stored: bytes | None = None  # as the store has it; None: it is in a cookie
        self._source: StoreSessions | None = None  # where its store is immediate, and can be asked when need be
        self._touched = self._lazy_until = -math.inf  # on the monotonic clock, in seconds
        self._is_stale = False  # the source has not been asked for this message
        self._is_used = False  # somebody changed a value, or had one in hand that can be changed
        self._is_gone = False  # from the store, and for good

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
        return f"<Session of {len(self._values)} values>"  # an id or a value in a log would be one too many

    def _catch_up(self) -> None:
        if self._is_stale and self._source is not None:
            self._is_stale = False
            self._source._catch_up(self)

    def _mark_gone(self) -> None:
        """It is gone from the store: logged out, or expired."""
        self._is_gone = True
        self._values = {}

    def _check_writable(self) -> None:
        if self._stored is None:
            raise TypeError(
                "a session in a signed cookie cannot be changed over a WebSocket, which sets no cookies: change it "
                "over HTTP, or use StoreSessions"
            )


@runtime_checkable
class Sessions(Protocol):
    """What ``endpoint(..., sessions=...)`` takes. Each method may return an awaitable; what it raises is an error of
    the server's (500, or close 1011)."""

    def find(self, request: Request) -> "Session | Awaitable[Session | None] | None":
        """The session that the request's cookies name, if there is one."""

    def save(self, session: Session) -> Awaitable[None] | None:
        """Keep what a handler changed."""

    def wrap(self, handle: MessageHandler) -> MessageHandler:
        """A message handler that sees what HTTP has changed, and whose changes are kept."""


class SignedCookieSessions:
    """Sessions that travel in a signed cookie: those of Starlette's and FastAPI's SessionMiddleware, and Flask's.

    ``secret`` and ``cookie`` (its name) are the HTTP application's. A cookie signed more than ``max_age`` seconds ago
    is no session (None: any age will do). ``session.id``, by which ``close_session`` finds it, is what the session
    holds under ``id_key``. Both kinds are understood at once; their signatures have different salts, so that neither
    can be taken for the other.
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
            raise ConfigurationError(f"secret is a {type(secret).__name__}: give the HTTP application's as a string")
        if not secret:
            raise ConfigurationError(f"secret={secret!r} signs nothing: give the one of the HTTP application")
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
        self._max_age: Any = max_age  # itsdangerous says int, and only compares
        self._id_key = id_key
        self._not_ours = itsdangerous.BadData
        self._starlette = itsdangerous.TimestampSigner(secret)
        self._flask = _flask_serializer(secret)

    def find(self, request: Request) -> Session | None:
        """The first session of ours among the cookies of this name (RFC 6265 5.4: the nearest path's comes first)."""
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
        """Nothing: it cannot be changed."""

    def wrap(self, handle: MessageHandler) -> MessageHandler:
        """The handler itself: a cookie stays what it was at the handshake."""
        return handle

    def _read_starlette(self, cookie: str) -> Any:
        return json.loads(b64decode(self._starlette.unsign(cookie, max_age=self._max_age)))

    def _read_flask(self, cookie: str) -> Any:
        return self._flask.loads(cookie, max_age=self._max_age)


def _flask_serializer(secret: str | bytes) -> Any:
    """Reads Flask's cookies: those of itsdangerous' URLSafeTimedSerializer, but a compressed one only within bounds."""
    from itsdangerous import TimedSerializer
    from itsdangerous.encoding import base64_decode

    class Flask(TimedSerializer[str]):
        def load_payload(self, payload: bytes, serializer: Any = None) -> Any:
            data = base64_decode(payload.removeprefix(b"."))
            return super().load_payload(_inflate(data) if payload.startswith(b".") else data, serializer)

    signer = {"key_derivation": "hmac", "digest_method": hashlib.sha1}
    return Flask(secret, salt="cookie-session", serializer=_TaggedJSON, signer_kwargs=signer)


def _inflate(data: bytes) -> bytes:
    """Decompress up to MAX_INFLATED_BYTES; raises ValueError where that is impossible, or not the end.

    A cookie grows by up to a thousand times: a visitor may have had the application keep something long in it.
    """
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(data, MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise ValueError("this is not zlib's") from error
    if not inflater.eof:
        raise ValueError("there is too much of it, or not all")
    return inflated


def _date(value: str) -> datetime:
    from email.utils import parsedate_to_datetime  # slow to import, and hardly ever needed

    return parsedate_to_datetime(value)


class _TaggedJSON:
    """Flask's JSON, in which ``{" t": [1, 2]}`` is a tuple; markup is plain text here."""

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
    """Sessions by id, as starsessions' stores have it; each method may be ``def`` or ``async def``.

    A store may also have ``replace``, with the arguments of ``write``, which writes only while the id is there and
    says whether it was (Redis: ``SET ... XX``). Without it a logout that falls between a reading and the writing
    behind it, a round trip to the store, is overwritten.
    """

    def read(self, session_id: str, lifetime: int) -> Any:
        """The session as bytes, empty ones where there is none."""

    def write(self, session_id: str, data: bytes, lifetime: int, ttl: int) -> Any:
        """Keep it for ``ttl`` more seconds."""

    def remove(self, session_id: str) -> Any:
        """Forget it."""


class Serializer(Protocol):
    """A session's values to bytes and back, as starsessions has it."""

    def serialize(self, data: Any) -> bytes:
        """To bytes."""

    def deserialize(self, data: bytes) -> Any:
        """And back."""


class _JSON:
    """What starsessions' own serializer writes."""

    def serialize(self, data: Any) -> bytes:
        return json.dumps(data).encode()

    def deserialize(self, data: bytes) -> Any:
        return json.loads(data)


class StoreSessions:
    """Sessions in a store that the HTTP side shares; the cookie holds their id.

    ``store`` is one of starsessions', or has their three methods (`SessionStore`); ``serializer`` is that of its
    middleware. While messages come, ``touch`` keeps a session from expiring: at most once a minute it is written with
    its full lifetime. That is the one its data names, else ``lifetime``, in seconds. (A cookie's own ``max-age`` only
    HTTP can renew.)

    An ``immediate`` store never waits: whether its methods are ``def`` or ``async def``, they need no task, and it is
    asked only for messages whose handler looks at the session. By default starsessions' ``InMemoryStore`` is taken for
    one, and no other store (not even a subclass, which may wait). Where a store that is said to be immediate does
    wait, the call is broken off and a ConfigurationError raised.

    Changes from both sides are merged by name; of two to one name the later counts. A session that is gone from the
    store reads as empty from then on, and nothing brings it back.
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
                raise ConfigurationError(f"store={store!r} has no {name}(): give one of starsessions', or one like it")
        for name in ("serialize", "deserialize"):
            if serializer is not None and not callable(getattr(serializer, name, None)):
                raise ConfigurationError(f"serializer={serializer!r} has no {name}(): give the HTTP middleware's")
        if immediate is not None and not isinstance(immediate, bool):
            raise ConfigurationError(f"immediate={immediate!r}: give True or False")
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
        """The first session among the cookies of this name that the store knows."""
        found: Session | Awaitable[Session | None] | None
        found = complete(self._find(request._cookie_values(self._cookie)[:MAX_COOKIES_PER_NAME]))
        return found

    def save(self, session: Session) -> Awaitable[None] | None:
        """Write what was changed, if anything was."""
        saved: Awaitable[None] | None = None
        if session._is_gone:
            session._values.clear()
        elif any(self._changes(session)):
            saved = complete(self._save(session))
        else:
            session._is_used = False
        return saved

    def wrap(self, handle: MessageHandler) -> MessageHandler:
        """A handler that sees what HTTP has changed, and whose changes are written when it is done.

        An immediate store is asked when the handler looks at the session, any other before each message.
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

    # -- sequences of calls of the store: each call is yielded, and its answer comes back

    def _find(self, cookies: list[str]) -> Steps:
        for cookie in filter(is_id, cookies):
            data = yield self._read(cookie, self._lifetime)
            session = Session(cookie, {})
            if self._load(session, data):
                session._source = self if self._is_immediate else None
                return session
        return None

    def _refresh(self, session: Session) -> Steps:
        """See what HTTP has changed, and touch the session if it is time."""
        self._merge(session, (yield self._read(session.id, self._lifetime)))
        interval = min(TOUCH_INTERVAL_SECONDS, self._lifetime_in(session._metadata) / 2)
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
        """Write a session that was there a moment ago."""
        now = accessed = time.time()
        metadata = session._metadata
        lifetime = self._lifetime_in(metadata)
        if metadata is not None and self._touch:
            metadata |= {"created": now, "last_access": now}  # a middleware that does not roll counts from "created"
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
        """Take over what the store has now; what was changed here, and is not written yet, stays as it is."""
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
        """What was set, and the names of what was removed, since the session was read or written."""
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
        """Give a session what the store has for it; False where that is nothing, unreadable or expired."""
        if not data:
            return False
        try:
            values = dict(self._serializer.deserialize(data))
            metadata = values.pop(METADATA_KEY, None)
            if self._has_expired(metadata):
                return False
        except Exception:  # whatever a serializer may raise
            logger.warning("a session in the store is not readable, and counts as none", exc_info=True)
            return False
        session._values, session._metadata, session._stored = values, metadata, data
        return True

    def _dump(self, session: Session) -> bytes:
        metadata = {} if session._metadata is None else {METADATA_KEY: session._metadata}
        return self._serializer.serialize(session._values | metadata)

    def _has_expired(self, metadata: dict[str, Any] | None) -> bool:
        """Whether its time is over: not every store forgets by itself."""
        return metadata is not None and metadata["last_access"] + self._lifetime_in(metadata) <= time.time()

    def _lifetime_in(self, metadata: dict[str, Any] | None) -> int:
        """Seconds; a middleware whose cookies end with the browser says 0."""
        return (metadata or {}).get("lifetime") or self._lifetime


def _is_known_immediate(store: Any) -> bool:
    """Whether a store is known to answer at once: one of that very class, as a subclass may do anything."""
    starsessions: Any = sys.modules.get("starsessions")  # which a store of its own has imported
    return starsessions is not None and type(store) is starsessions.InMemoryStore


def _make_immediate(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of an immediate store: its answer, without a task even where it is ``async def``.

    If it waits after all, it cannot go on, for nothing would wake it: it is broken off where it stands.
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
        raise ConfigurationError(f"{name}() waits, so that its store is not immediate: give immediate=False")

    return call


def _check_cookie_name(name: str) -> None:
    if not (isinstance(name, str) and is_cookie_name(name)):
        raise ConfigurationError(f"cookie={name!r} is no name of a cookie: give the HTTP application's, say 'session'")


def _check_seconds(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(f"{name}={value!r} is no time: give seconds, more than 0")
