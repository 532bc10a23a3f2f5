"""Many messages at once: in order, one flush for what they cause, and turns for others between them."""

import asyncio
import time

import pytest

from fastws._core import is_awaitable

from ..lib.raw import TEXT, TIMEOUT, Raw, frame
from ..lib.support import eventually
from .scripted import ACCEPT


class SlowSessions:
    """Sessions that see each message before the application has it, as those in a store do."""

    async def find(self, request):
        await asyncio.sleep(0)

    async def save(self, session):
        pass

    def wrap(self, handle):
        async def on_message(ws, message):
            result = handle(ws, message)
            return await result if is_awaitable(result) else result

        return on_message


async def opened(app, *options):
    """A raw client, and the application's side of it."""
    raw = await Raw.open(app.url)
    upgrading = asyncio.create_task(raw.upgrade("/"))
    async with asyncio.timeout(TIMEOUT):
        call = await app._arrived.get()
    await call.receive()
    await call.send(ACCEPT)
    await upgrading
    return raw, call


def numbered(count):
    return b"".join(frame(TEXT, b"%d" % number) for number in range(count))


@pytest.mark.parametrize("sessions", [None, SlowSessions()], ids=["at once", "by sessions"])
async def test_they_come_in_order_though_each_waits_for_the_one_before(scripted, sessions):
    app = await scripted(sessions=sessions)
    raw, call = await opened(app)
    await raw.send(numbered(300))
    assert [(await call.receive())["text"] for _ in range(300)] == [str(number) for number in range(300)]
    await raw.send(numbered(2))
    assert [(await call.receive())["text"] for _ in range(2)] == ["0", "1"]
    raw.close()


async def test_what_came_together_is_answered_together(scripted, monkeypatch):
    monkeypatch.setattr("fastws.asgi.conversation.TURN_SECONDS", 60)  # on a busy machine, too
    app = await scripted()
    raw, call = await opened(app)
    await raw.send(numbered(32))
    await eventually(lambda: app.server.asgi.stats["messages_received"] == 32)
    before = sum(app.server.stats["flushes"])
    for _ in range(32):
        await call.say((await call.receive())["text"])
    for number in range(32):
        assert (await raw.frame()).payload == b"%d" % number
    assert sum(app.server.stats["flushes"]) - before <= 3
    raw.close()


async def test_others_have_turns_while_one_is_busy(scripted):
    app = await scripted()
    raw, call = await opened(app)
    await raw.send(numbered(100))
    await eventually(lambda: app.server.asgi.stats["messages_received"] >= 60)
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    for _ in range(100):
        await call._receive()
        time.sleep(0.002)  # noqa: ASYNC251 - an application that is busy
    counting.cancel()
    assert turns >= 90
    raw.close()


async def test_an_application_that_ends_with_messages_unread_leaves_nothing_behind(scripted):
    app = await scripted()
    raw, call = await opened(app)
    await raw.send(numbered(100))
    await eventually(lambda: app.server.asgi.stats["messages_received"] >= 60)
    assert app.server._reactor.counters["inbound_bytes"] > 0
    call.returns()
    await eventually(lambda: app.server._reactor.counters["inbound_bytes"] == 0)
    raw.close()
