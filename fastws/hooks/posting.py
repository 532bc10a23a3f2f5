"""One HTTP client for all that goes to a backend: it posts, signs, bounds what comes back, and counts."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .. import __version__
from .._core import Headers
from ..errors import ConfigurationError, FastWSError

if TYPE_CHECKING:
    import aiohttp

__all__ = ["BUCKETS", "Figures", "Poster", "Unanswered", "encode", "forwarded", "message_id"]

MAX_ANSWER = 1 << 20  # bytes
# Backends close idle connections after 2 s (gunicorn) or 5 s (Node, Apache). A request that meets such a close cannot
# be told from one that was lost half-way, and must not be repeated: so ours are closed before.
KEPT_FOR = 1.5  # seconds
BUCKETS = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)  # seconds, each an upper bound

TRACE = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context 3.2.2
# The request's own, never the client's.
OWN_FIELDS = re.compile(
    "(accept-encoding|connection|content-.*|expect|host|keep-alive|te|trailer|transfer-encoding|traceparent|upgrade"
    "|user-agent|webhook-.*)"
)


class Unanswered(FastWSError):
    """The backend gave no answer that counts. ``result`` is "timeout" or "error", ``reason`` says why."""

    def __init__(self, result: str, reason: str) -> None:
        super().__init__(reason)
        self.result = result
        self.reason = reason


class Figures:
    """What happened, for whoever shows metrics: plain attributes; all but the last two only ever grow."""

    def __init__(self) -> None:
        #: By event ("connect", ... and "events" for what is told) and result ("ok", "refused", "timeout", "error").
        self.requests: Counter[tuple[str, str]] = Counter()
        #: By event: how many took up to each of BUCKETS, and in the last place how many took longer.
        self.seconds: dict[str, list[int]] = {}
        #: By event: the sum of all seconds.
        self.seconds_sum: Counter[str] = Counter()
        #: Events that were never delivered.
        self.dropped = 0
        #: Asks that wait for their answer, or for their turn.
        self.pending = 0
        #: Whether the last request was answered, by yes or no. A heartbeat, if nothing else, finds out anew.
        self.is_reachable = True

    def count(self, event: str, result: str, seconds: float) -> None:
        """A request has ended."""
        self.requests[event, result] += 1
        self.is_reachable = result in ("ok", "refused")
        buckets = self.seconds.get(event)
        if buckets is None:
            buckets = self.seconds[event] = [0] * (len(BUCKETS) + 1)
        buckets[bisect_left(BUCKETS, seconds)] += 1
        self.seconds_sum[event] += seconds  # type: ignore[assignment]  # typeshed's Counter counts whole numbers


class Poster:
    """Posts to the backend's URL. Made outside a loop; the HTTP client comes with the first request.

    ``sign`` returns the header fields that a body with an id is sent with.
    """

    def __init__(self, url: str, sign: Callable[[str, bytes], Mapping[str, str]]) -> None:
        self.figures = Figures()
        self._url = url
        self._sign = sign
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._aiohttp = http_client()

    async def post(
        self, event: str, body: bytes, *, id: str, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes | None]:
        """Returns the answer's status and body, None where that is larger than 1 MiB.

        Raises Unanswered where there is no whole answer. Where the connection was refused, it is tried once more.
        """
        try:
            try:
                return await self._post(event, body, id, headers or {})
            except self._aiohttp.ClientConnectorError as error:
                if type(error) is not self._aiohttp.ClientConnectorError:  # no such host, or TLS: it would not help
                    raise
                return await self._post(event, body, id, headers or {})  # not a byte was sent
        except self._aiohttp.ClientConnectorError as error:
            why = getattr(error.os_error, "strerror", None) or type(error).__name__
            raise Unanswered("error", f"no connection: {why}") from None
        except (self._aiohttp.ClientError, OSError, ValueError) as error:
            raise Unanswered("error", f"no whole answer: {type(error).__name__}") from None

    async def _post(self, event: str, body: bytes, id: str, headers: Mapping[str, str]) -> tuple[int, bytes | None]:
        url = self._url.replace("{event}", event)
        fields = {
            **headers,
            "Content-Type": "application/json",
            "User-Agent": f"fastws/{__version__}",
            "Accept-Encoding": "identity",  # what would be unpacked could not be bounded
            **self._sign(id, body),
        }
        async with self._client().post(url, data=body, headers=fields, allow_redirects=False) as response:
            answer = bytearray()
            async for piece in response.content.iter_any():
                answer += piece
                if len(answer) > MAX_ANSWER:
                    response.close()
                    return response.status, None
            return response.status, bytes(answer)

    def _client(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            self._loop = loop
            self._session = self._aiohttp.ClientSession(
                connector=self._aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_FOR),
                timeout=self._aiohttp.ClientTimeout(),  # whoever posts has one for all that it does
                cookie_jar=self._aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session

    async def close(self) -> None:
        """Close the HTTP client; the next request makes another."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def forwarded(headers: Headers, names: Iterable[str]) -> dict[str, str]:
    """Returns a client's header fields of these names, and its traceparent, as fields of a request of ours."""
    fields = {}
    for name in names:
        value = headers.get(name)
        if value is not None and OWN_FIELDS.fullmatch(name.lower()) is None:
            # We hold bytes as Latin-1, and aiohttp sends UTF-8: as UTF-8 they go as they came, or not at all.
            with contextlib.suppress(UnicodeDecodeError):
                fields[name.lower()] = value.encode("latin-1").decode()
    trace = headers.get("traceparent", "")
    if TRACE.fullmatch(trace):
        fields["traceparent"] = trace
    return fields


def message_id() -> str:
    """Returns an id for a message, by which a backend knows one that comes again."""
    return "msg_" + secrets.token_hex(12)


_encoder = msgspec.json.Encoder(enc_hook=str)


def encode(content: Mapping[str, Any]) -> bytes:
    """Returns JSON; what it has no type for, such as an application's own users, as text."""
    return _encoder.encode(content)


def http_client() -> Any:
    """Returns the module aiohttp, which is imported only where hooks are used."""
    try:
        import aiohttp
    except ImportError:
        raise ConfigurationError("hooks need aiohttp: pip install 'fastws-server[hooks]'") from None
    return aiohttp
