"""Positions: cases.json says what a server sends, and what both clients then tell the application and bring back."""

import asyncio
import json

import pytest

from .fake import FROM
from .js import HERE, TIMEOUT

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

CASES = json.loads((HERE / "cases.json").read_text())
ACTS = ("cut", "use", "hello", "subscribe", "server")  # what there may be in a step, in the order in which it is done
CHECKS = ("heard", "heard too", "position", "duplicates")


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
        await self._client.use("a", options)

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
    about = {"subscribed": {"subscribers": 1}, "message": {"from": FROM, "time": 1}}
    return {"channel": "a", **({} if "deleted" in frame else about.get(frame["type"], about["message"])), **frame}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_both_clients_keep_positions(client, fake, case):
    fake.silent = {"hello", "subscribe"}
    await client.open(fake.url, "a", case.get("channel", {}), case.get("throws"))
    run = Run(client, fake)
    for step in case["steps"]:
        assert set(step) <= {*ACTS, *CHECKS}
        for name in (name for name in ACTS if name in step):
            await getattr(run, name)(step[name])
        await run.caught_up()
        for name in (name for name in CHECKS if name in step):
            await getattr(run, name.replace(" ", "_"))(step[name])
