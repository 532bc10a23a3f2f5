"""A connection that comes back by itself."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from ssl import SSLContext
from typing import Any, Self, TypeAlias

import orjson
from picows import WSHandshakeError, WSProtocolError

from .channel import Channel
from .ends import OVER, BackOff, is_final, is_soon
from .errors import ChannelError, ConnectionClosed, ConnectionRefused
from .talk import State, Talk, lost, unavailable
from .wire import HandshakeRefused, Wire, dial

__all__ = ["Connection", "Token"]

logger = logging.getLogger("fastws.client")

Token: TypeAlias = str | Callable[[], "str | Awaitable[str | None] | None"] | None

VERSION = 1
CLIENT = "fastws-python/0.1.0"
CLOSING = 2.0  # seconds that the server has to answer a close frame
SKEWED = 30.0  # seconds until a token is renewed that is over already by our clock


class Connection(Talk):
    """One connection to a server that speaks fastws.v1; `connect` makes it.

    Listeners (`ws.on(event, listener)`): `state` (a State), `direct` (a Message), `error` (a ChannelError), and of all
    channels `message`, `whisper` (a Message) and `subscribed` (a Subscribed). `duplicates` counts messages of logs that
    came a second time and were dropped; there should be none.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        queue: bool = False,
        retry: tuple[float, float] = (0.5, 20),
        timeout: float = 20,
        ssl: SSLContext | None = None,
        max_message_size: int = 64 * 1024 * 1024,
    ) -> None:
        super().__init__(queue, BackOff(*retry))
        self.url = url
        self._token = token
        self._headers = list(headers.items() if isinstance(headers, Mapping) else headers)
        self._timeout = timeout
        self._ssl = ssl
        self._max_message_size = max_message_size
        self._renewed = False  # a fresh token was tried, and has not proved its worth yet
        self._task: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None

    def channel(self, name: str, *, position: str | None = None) -> Channel:
        """Returns a channel, to be used in an `async with`; `position`: where to resume, of an earlier process."""
        return Channel(self, self._know(name), position)

    async def call(self, method: str, params: Any = None, *, queue: bool | None = None) -> Any:
        """Ask the backend; returns what it says. Raises ChannelError."""
        return (await self._ask({"type": "call", "method": method, "params": params}, queue))["result"]

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close for good."""
        if self.state == "closed":
            return
        wire = self._wire
        self._finish(code, reason, None)
        if wire is not None and not wire.disconnected:
            wire.send_close(code, reason)
            with suppress(TimeoutError, WSProtocolError):
                async with asyncio.timeout(CLOSING):
                    await wire.transport.wait_disconnected()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def __aenter__(self) -> Self:
        self._welcomed = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(self._timeout):
                await asyncio.wait({self._task, self._welcomed}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            reason = self._state.reason
            await self.close()
            raise TimeoutError(f"no connection to {self.url} within {self._timeout:g} s: {reason}") from None
        except BaseException:
            await self.close()
            raise
        if self._end is not None:
            raise self._end
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    # Coming and going.

    async def _run(self) -> None:
        try:
            await self._come_back()
        except Exception as error:
            self._finish(1006, str(error), error)

    async def _come_back(self) -> None:
        while True:
            code, reason = await self._attempt()
            was_open = self.state == "open"
            if self.state == "closed":
                return
            self._lose()
            if was_open and time.monotonic() - self._open_since >= self._back_off.most:
                self._back_off.tries = 0
                self._renewed = False
            if is_final(code) or (code == OVER and (self._renewed or not callable(self._token))):
                refused = 4400 <= code < 4500
                self._finish(code, reason, ConnectionRefused(code - 4000, reason) if refused else None)
                return
            if code == OVER:
                self._renewed = True
            if was_open and is_soon(code):
                self._back_off.tries = 0
            wait = self._back_off.next()
            self._become(State("waiting", code, reason, wait))
            await asyncio.sleep(wait)

    async def _attempt(self) -> tuple[int, str]:
        """One connection, from the handshake to its end; returns its code and reason."""
        reason = self._state.reason
        self._become(State("connecting", reason=reason))
        try:
            token = await self._fetch_token()
        except Exception as error:
            logger.warning("no token: %r", error)
            return (OVER if self._renewed else 1006), f"no token: {error}"
        headers = [*self._headers, ("Sec-WebSocket-Protocol", "fastws.v1")]
        if token:
            headers.append(("Authorization", f"Bearer {token}"))
        wire = Wire()
        try:
            await dial(
                wire,
                self.url,
                headers=headers,
                ssl=self._ssl,
                max_message_size=self._max_message_size,
                timeout=self._timeout,
            )
        except HandshakeRefused as refused:
            return (4000 + refused.status if refused.status >= 400 else 1002), message_in(refused.body)
        except (OSError, TimeoutError, WSHandshakeError) as error:
            return 1006, str(error) or type(error).__name__
        try:
            return await self._talk(wire)
        finally:
            self._wire = None
            wire.transport.disconnect(graceful=False)

    async def _talk(self, wire: Wire) -> tuple[int, str]:
        self._wire = wire
        self._silence = self._timeout
        channels = {}
        for there in self._there.values():
            if there.wanted:
                there.asked = True
                channels[there.name] = there.progress.position
        self._send({"type": "hello", "version": VERSION, "client": CLIENT, "channels": channels})
        self._greeted = True
        while True:
            while wire.messages:
                self._hear(wire.messages.popleft())
            if wire.disconnected:
                break
            try:
                async with asyncio.timeout(self._silence or None):
                    await wire.change()
            except TimeoutError:
                return 1006, f"nothing was heard for {self._silence:g} s"
        try:
            await wire.transport.wait_disconnected()
        except WSProtocolError as error:
            return 1006, f"the server broke the protocol: {error}"
        return wire.close_received

    def _finish(self, code: int, reason: str, error: Exception | None) -> None:
        """It is over for good; by ourselves where the code is 1000 and there is no error."""
        by_us = self._state.state != "closed" and error is None and code == 1000
        self._end = None if by_us else error or ConnectionClosed(code, reason)
        self._become(State("closed", code, reason))
        self._lose()
        for there in self._there.values():
            for use in list(there.uses):
                use._finish(self._end)
        if self._welcomed is not None and not self._welcomed.done():
            self._welcomed.set_result(None)

    def _lose(self) -> None:
        """What is lost with a connection: for good, or until the next."""
        self._greeted = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        for there in list(self._there.values()):
            there.asked = there.left = False
            there.leaving.clear()
            there.members.clear()
            if there.state == "joined":
                there.state = "joining"
            if not there.wanted and not there.uses:
                del self._there[there.name]
        is_closed = self.state == "closed"
        for ident, asked in list(self._asked.items()):
            if not asked.sent and asked.queue and not is_closed:
                continue
            del self._asked[ident]
            if not asked.answer.done():
                asked.answer.set_exception(lost() if asked.sent else unavailable(is_closed))

    # Tokens.

    async def _fetch_token(self) -> str | None:
        if not callable(self._token):
            return self._token
        token = self._token()
        return await token if inspect.isawaitable(token) else token

    def _renew_by(self, expires: float | None) -> None:
        """A fresh token comes before the old one is over, at a time that spreads the clients."""
        if expires and callable(self._token):
            left = expires - time.time()
            wait = left * random.uniform(0.8, 0.9) if left > 0 else SKEWED
            self._renewal = asyncio.create_task(self._renew(wait))

    async def _renew(self, wait: float) -> None:
        back_off = BackOff(self._back_off.least, self._back_off.most)
        while True:
            await asyncio.sleep(wait)
            try:
                answer = await self._ask({"type": "authenticate", "token": await self._fetch_token()})
            except Exception as error:
                logger.warning("the token is not renewed: %r", error)
                if isinstance(error, ChannelError) and not error.retry:
                    return  # it would be refused again
                wait = back_off.next()
            else:
                self._renew_by(answer["expires"])
                return


def message_in(body: bytes) -> str:
    """The message of a refusal's body, as a fastws server writes it; else the body."""
    try:
        error = orjson.loads(body)["error"]
        return f"{error['message']} ({error['request_id']})"
    except (ValueError, TypeError, KeyError):
        return body.decode("utf-8", "replace")
