"""Positions: cases.json says what a server sends, and what both clients then tell the application and bring back."""

import asyncio
import contextlib
import json

import pytest
import pytest_asyncio

from fastws.client import connect

from .js import HERE, TIMEOUT, node

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

CASES = json.loads((HERE / "cases.json").read_text())
RETRY = [0.01, 0.05]
SENDER = {"user": "bob", "id": "fake-b"}
DETAILS = ("position", "key", "deleted")  # of a message
ACTS = ("cut", "use", "hello", "subscribe", "server")  # what there may be in a step, in the order in which it is done
CHECKS = ("heard", "heard too", "position", "duplicates")


class Python:
    """fastws.client, as a case needs it; `heard` is a list for each use of the channel."""

    def __init__(self):
        self.heard = []
        self._uses = []
        self._tasks = []
        self._ws = None
        self._direct = asyncio.Queue()

    async def open(self, url, options, throws_at):
        self._ws = connect(url, retry=RETRY)
        self._ws.on("direct", self._direct.put_nowait)
        self._tasks.append(asyncio.ensure_future(self._ws.__aenter__()))
        await self.use(options, throws_at)

    async def use(self, options, throws_at=None):
        use = self._ws.channel("a", **options)
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

    async def position(self):
        return self._uses[0].position

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

    async def open(self, url, options, throws_at):
        await self._driven.ask("all", [["connect", "ws", url, {"retry": RETRY}], self._use(options, throws_at)])

    async def use(self, options):
        await self._driven.ask(*self._use(options))

    def _use(self, options, throws_at=None):
        self._names.append(f"use {len(self._names)}")
        return ["channel", self._names[-1], "ws", "a", options, throws_at]

    async def direct(self):
        async with asyncio.timeout(TIMEOUT):
            while not self._driven.of("ws", "direct"):
                await asyncio.sleep(0.005)
        self._driven.events = [event for event in self._driven.events if event[1] != "direct"]

    async def state(self):
        return await self._driven.ask("get", "ws", "state")

    async def position(self):
        return await self._driven.ask("get", self._names[0], "position")

    async def duplicates(self):
        return await self._driven.ask("get", "ws", "duplicates")

    async def close(self):
        await self._driven.do("ws", "close")


@pytest_asyncio.fixture(loop_scope="module", params=["python", "node", "chromium"])
async def client(request, browser, open_page):
    if request.param == "node":
        async with node() as driven:
            yield Script(driven)
        return
    if request.param == "chromium" and browser is None:
        pytest.skip("chromium is not installed")
    page = await open_page() if request.param == "chromium" else None
    client = Script(page) if page else Python()
    yield client
    await client.close()
    if page:
        await page.page.close()


class Run:
    """One case, step by step."""

    def __init__(self, client, fake):
        self._client = client
        self._fake = fake
        self._there = None
        self._checked = [0, 0]  # how many events of each use

    async def cut(self, _):
        self._there.drop()
        async with asyncio.timeout(TIMEOUT):
            while await self._client.state() == "open":
                await asyncio.sleep(0.001)

    async def use(self, options):
        await self._client.use(options)

    async def hello(self, position):
        self._there = await self._fake.connection()
        assert (await self._there.next("hello"))["channels"] == {"a": position}
        await self._there.send({"type": "welcome", "version": 1, "id": "fake", **self._fake.welcome})

    async def subscribe(self, position):
        assert (await self._there.next("subscribe")).get("position") == position

    async def server(self, frames):
        await self._there.send(*map(whole, frames))

    async def heard(self, events, use=0):
        heard = self._client.heard[use][self._checked[use] :]
        self._checked[use] += len(heard)
        assert [event[:-1] for event in heard] == [event[:-1] for event in events], heard
        for (*_, details), (*_, expected) in zip(heard, events, strict=True):
            assert {**details, **expected} == details

    async def heard_too(self, events):
        await self.heard(events, 1)

    async def position(self, position):
        assert await self._client.position() == position

    async def duplicates(self, count):
        assert await self._client.duplicates() == count

    async def caught_up(self):
        """Wait until the client has had all frames."""
        await self._there.send({"type": "direct", "message": "that is all", "time": 1})
        await self._client.direct()


def whole(frame):
    """A frame with what is the same in all of its kind."""
    about = {"subscribed": {"subscribers": 1}, "message": {"from": SENDER, "time": 1}}
    return {"channel": "a", **({} if "deleted" in frame else about.get(frame["type"], about["message"])), **frame}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_both_clients_keep_positions(client, fake, case):
    fake.silent = {"hello", "subscribe"}
    await client.open(fake.url, case.get("channel", {}), case.get("throws"))
    run = Run(client, fake)
    for step in case["steps"]:
        assert set(step) <= {*ACTS, *CHECKS}
        for name in (name for name in ACTS if name in step):
            await getattr(run, name)(step[name])
        await run.caught_up()
        for name in (name for name in CHECKS if name in step):
            await getattr(run, name.replace(" ", "_"))(step[name])
