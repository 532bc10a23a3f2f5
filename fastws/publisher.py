"""Publish from synchronous code, such as Celery tasks, Django views and scripts: the HTTP API by `http.client`.

Of fastws it needs a server with ``[api]``, and of Python the standard library; like every module of fastws it brings
the package, and with that the engine, when it is imported.
"""

import base64
import http.client
import json
import os
import secrets
import ssl
import time
from collections import deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Self, overload
from urllib.parse import urlsplit

from .errors import ConfigurationError, FastWSError

__all__ = ["Publisher", "PublisherError"]

MOST_IDLE = 5.0  # seconds that a connection is kept; a server closes it after its `handshake_timeout`
LOST = (ConnectionError, http.client.BadStatusLine, http.client.IncompleteRead, http.client.CannotSendRequest)


class PublisherError(FastWSError):
    """The server refused, or could not be asked: ``status`` is None then. Its log has the same ``request_id``."""

    def __init__(self, status: int | None, message: str, request_id: str | None = None) -> None:
        self.status = status
        self.message = message
        self.request_id = request_id
        parts = [] if status is None else [str(status)]
        super().__init__(" ".join([*parts, message]) + (f" ({request_id})" if request_id else ""))


class Publisher:
    """Calls the HTTP API at a URL such as ``http://127.0.0.1:8765/api``. Any thread may use it, and a forked process.

    A message is ``str`` (text), ``bytes`` (binary), or any other value that `json` encodes. Counts are of connections
    addressed. Connections to the server are kept. Where one is lost, the request is made once more, with the same
    idempotency key, so that nothing is sent twice. Raises PublisherError. ``timeout`` is in seconds, for each step of
    a request; ``context`` is for https, by default the one that trusts what the system trusts.
    """

    def __init__(self, url: str, key: str, *, timeout: float = 10.0, context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ConfigurationError(f"url={url!r} is not the API's: give one such as 'http://127.0.0.1:8765/api'")
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path.rstrip("/") or "/api"
        self._timeout = timeout
        self._context = None
        if parts.scheme == "https":
            self._context = context or ssl.create_default_context()
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._idle: deque[tuple[http.client.HTTPConnection, float]] = deque()  # with the time of the last use
        self._pid = os.getpid()

    def __repr__(self) -> str:
        scheme = "http" if self._context is None else "https"
        port = "" if self._port is None else f":{self._port}"
        return f"<Publisher {scheme}://{self._host}{port}{self._path}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connections that are kept; the next call makes another."""
        while self._idle:
            try:
                connection, _ = self._idle.pop()
            except IndexError:  # another thread took it
                return
            connection.close()

    # -- commands

    @overload
    def broadcast(
        self,
        channel: str,
        message: Any,
        *,
        users: Hashable | Iterable[Hashable] = None,
        to: str | Iterable[str] | None = None,
        exclude: str | Iterable[str] | None = None,
        endpoint: str | None = None,
        key: str | None = None,
        compress: bool | None = None,
    ) -> int: ...

    @overload
    def broadcast(
        self,
        channel: Sequence[str],
        message: Any,
        *,
        users: Hashable | Iterable[Hashable] = None,
        to: str | Iterable[str] | None = None,
        exclude: str | Iterable[str] | None = None,
        endpoint: str | None = None,
        key: str | None = None,
        compress: bool | None = None,
    ) -> dict[str, int]: ...

    def broadcast(
        self,
        channel: str | Sequence[str],
        message: Any,
        *,
        users: Any = None,
        to: str | Iterable[str] | None = None,
        exclude: str | Iterable[str] | None = None,
        endpoint: str | None = None,
        key: str | None = None,
        compress: bool | None = None,
    ) -> int | dict[str, int]:
        """Send to the members of a channel, or of several (the counts by channel then).

        ``users``, ``to`` (ids) and ``exclude`` (ids) narrow it. ``key`` is the idempotency key, by default a fresh one.
        ``compress`` says whether to compress it, where that is agreed on; by its size unless given.
        """
        where = {"channel": channel} if isinstance(channel, str) else {"channels": list(channel)}
        whom = {"users": users, "to": to, "exclude": exclude, "endpoint": endpoint}
        how = {"key": key or _fresh_key(), "compress": compress}
        said = self._command("broadcast", {**where, **_said(message), **whom, **how})
        count: int | dict[str, int] = said["connections"]
        return count

    def send(
        self,
        message: Any,
        *,
        users: Hashable | Iterable[Hashable] = None,
        to: str | Iterable[str] | None = None,
        exclude: str | Iterable[str] | None = None,
        key: str | None = None,
        compress: bool | None = None,
    ) -> int:
        """Send to users, or connections by id (``to``), wherever they are."""
        whom = {"users": users, "to": to, "exclude": exclude}
        return self._count("send", {**_said(message), **whom, "key": key or _fresh_key(), "compress": compress})

    def subscribe(
        self, channel: str, *, users: Hashable | Iterable[Hashable] = None, to: str | Iterable[str] | None = None
    ) -> int:
        """Have connections join a channel."""
        return self._count("subscribe", {"channel": channel, "users": users, "to": to})

    def unsubscribe(
        self, channel: str, *, users: Hashable | Iterable[Hashable] = None, to: str | Iterable[str] | None = None
    ) -> int:
        """Have connections leave a channel."""
        return self._count("unsubscribe", {"channel": channel, "users": users, "to": to})

    def close(
        self,
        *,
        users: Hashable | Iterable[Hashable] = None,
        to: str | Iterable[str] | None = None,
        session: str | None = None,
        channel: str | None = None,
        code: int = 4001,
        reason: str = "",
    ) -> int:
        """Close the WebSocket connections of users, of an HTTP session, of a channel, or single ones."""
        whom = {"users": users, "to": to, "session": session, "channel": channel}
        return self._count("close", {**whom, "code": code, "reason": reason})

    def batch(self, commands: Iterable[Mapping[str, Mapping[str, Any]]]) -> list[int | dict[str, int] | PublisherError]:
        """Several commands at once, in order, each as the API takes it: ``{"broadcast": {"channel": ..., ...}}``.

        Returns what each came to: its count, or the error that it alone was refused with, which is not raised.
        """
        keyed = [
            {name: {"key": _fresh_key(), **body} if name in ("broadcast", "send") else body}
            for command in commands
            for name, body in command.items()
        ]
        answer = self._ask("batch", {"commands": keyed})
        return [_error(None, r["error"]) if "error" in r else r["connections"] for r in answer["results"]]

    def get(self, name: str) -> Any:
        """Returns what the API answers to a GET, such as ``info`` or ``channels?prefix=a``."""
        return self._ask(name, None)

    # -- requests

    def _count(self, command: str, body: dict[str, Any]) -> int:
        count: int = self._command(command, body)["connections"]
        return count

    def _command(self, command: str, body: dict[str, Any]) -> Any:
        given = {name: _plain(value) for name, value in body.items() if value is not None or name == "message"}
        return self._ask(command, given)

    def _ask(self, command: str, body: dict[str, Any] | None) -> Any:
        content = None
        if body is not None:
            content = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        try:
            try:
                status, answer = self._request(self._take(), command, content)
            except LOST:
                status, answer = self._request(self._connection(), command, content)
        except (OSError, http.client.HTTPException) as error:
            raise PublisherError(None, f"no answer: {error or type(error).__name__}") from error
        try:
            said = json.loads(answer)
        except ValueError:
            raise PublisherError(status, "the answer is not JSON: is this the API's URL?") from None
        if status != 200:
            raise _error(status, said.get("error") if isinstance(said, dict) else None)
        return said

    def _request(
        self, connection: http.client.HTTPConnection, command: str, content: bytes | None
    ) -> tuple[int, bytes]:
        try:
            connection.request("GET" if content is None else "POST", f"{self._path}/{command}", content, self._headers)
            response = connection.getresponse()
            answer = response.read()
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._idle.append((connection, time.monotonic()))
        return response.status, answer

    def _take(self) -> http.client.HTTPConnection:
        """A connection that is kept, the one used last, or a fresh one."""
        if self._pid != os.getpid():  # forked: the connections are the parent's
            self._idle, self._pid = deque(), os.getpid()
        while self._idle:
            try:
                connection, used = self._idle.pop()
            except IndexError:  # another thread took it
                break
            if time.monotonic() - used < MOST_IDLE:
                return connection
            connection.close()
        return self._connection()

    def _connection(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._context)


def _said(message: Any) -> dict[str, Any]:
    if isinstance(message, str):
        return {"text": message}
    if isinstance(message, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(message).decode()}
    return {"message": message}


def _plain(value: Any) -> Any:
    """A value that JSON has: other collections than a list, and a dict, become one."""
    is_other = isinstance(value, Iterable) and not isinstance(value, str | list | tuple | dict)
    return list(value) if is_other else value


def _fresh_key() -> str:
    return secrets.token_hex(16)


def _error(status: int | None, error: Any) -> PublisherError:
    said = error if isinstance(error, dict) else {}
    message = str(said.get("message", "refused"))
    if "field" in said:
        message += f" ({said['field']})"
    return PublisherError(said.get("code", status), message, said.get("request_id"))
