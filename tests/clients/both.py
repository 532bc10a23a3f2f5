"""Both clients, for tests that are for both: `heard` has the messages and `subscribed` of each use of a channel."""

import asyncio
import contextlib

from fastws.client import connect

from .js import TIMEOUT

RETRY = [0.01, 0.05]
DETAILS = ("position", "key", "deleted")  # of a message


class Python:
    """fastws.client."""

    def __init__(self):
        self.heard = []
        self._uses = []
        self._tasks = []
        self._ws = None
        self._direct = asyncio.Queue()

    async def open(self, url, channel, options, throws_at=None):
        self._ws = connect(url, retry=RETRY)
        self._ws.on("direct", self._direct.put_nowait)
        self._tasks.append(asyncio.ensure_future(self._ws.__aenter__()))
        await self.use(channel, options, throws_at)

    async def use(self, channel, options, throws_at=None):
        use = self._ws.channel(channel, **options)
        events = []
        use.on("message", lambda message: events.append(self._message(message)))
        use.on("subscribed", lambda told: events.append(["subscribed", {n: getattr(told, n) for n in told.__slots__}]))
        if throws_at:
            use.on("message", lambda message: 1 / (message.message != throws_at))
            use.on("subscribed", lambda told: 1 / (told.reason != throws_at))
        self.heard.append(events)
        self._uses.append(use)
        self._tasks.append(asyncio.ensure_future(use.join()))
        await asyncio.sleep(0)

    def _message(self, message):
        body = {"bytes": list(message.message)} if isinstance(message.message, bytes) else message.message
        return ["message", body, {name: getattr(message, name) for name in DETAILS}]

    async def direct(self):
        await asyncio.wait_for(self._direct.get(), TIMEOUT)

    async def state(self):
        return self._ws.state

    async def position(self, use=0):
        return self._uses[use].position

    async def duplicates(self):
        return self._ws.duplicates

    async def close(self):
        await self._ws.close()
        for task in self._tasks:
            with contextlib.suppress(Exception):
                await task


class Script:
    """fastws.js, in Node or in a page."""

    def __init__(self, driven):
        self._driven = driven
        self._names = []

    @property
    def heard(self):
        return [self._of(name) for name in self._names]

    def _of(self, name):
        absent = {"message": {}, "subscribed": {"snapshot": False}}
        return [
            [kind, *values[:-1], {**absent[kind], **values[-1]}]
            for source, kind, values in self._driven.events
            if source == name and kind in absent
        ]

    async def open(self, url, channel, options, throws_at=None):
        use = self._use(channel, options, throws_at)
        await self._driven.ask("all", [["connect", "ws", url, {"retry": RETRY}], use])

    async def use(self, channel, options):
        await self._driven.ask(*self._use(channel, options))

    def _use(self, channel, options, throws_at=None):
        self._names.append(f"use {len(self._names)}")
        return ["channel", self._names[-1], "ws", channel, options, throws_at]

    async def direct(self):
        async with asyncio.timeout(TIMEOUT):
            while not self._driven.of("ws", "direct"):
                await asyncio.sleep(0.005)
        self._driven.events = [event for event in self._driven.events if event[1] != "direct"]

    async def state(self):
        return await self._driven.ask("get", "ws", "state")

    async def position(self, use=0):
        return await self._driven.ask("get", self._names[use], "position")

    async def duplicates(self):
        return await self._driven.ask("get", "ws", "duplicates")

    async def close(self):
        await self._driven.do("ws", "close")
