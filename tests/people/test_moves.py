"""Moving people from the server's side: into channels, out of them, and logged out."""

import asyncio

import pytest

from fastws import Listener, SignedCookieSessions
from fastws.testing import Refused, connect

from ..lib.people import NEVER, People, gone, notices
from ..lib.support import Named, eventually, signed_cookie


async def test_subscribe_user_moves_every_device(serve, enter):
    site = await serve(people := People())
    devices = [await enter(site, "ann"), await enter(site, "ann", "bikes")]
    bob = await enter(site, "bob")
    assert site.manager.subscribe_user("ann", "planes") == 2
    assert site.manager.subscribe_user("nobody", "planes") == 2
    assert site.manager.broadcast("planes", "hello") == 2
    for device in devices:
        assert await device.received() == ["hello"]
    assert site.manager.unsubscribe_user("ann", "planes") == 0
    assert site.manager.unsubscribe_user("ann", "cars") == 1
    assert site.manager.broadcast("cars", "bob alone") == 1
    assert await bob.received() == ["bob alone"]
    assert ("planes",) in people.of("on_channel_close")


async def test_who_is_kicked_while_away_is_gone_at_once(serve, enter):
    site = await serve(Named(), offline_after=NEVER)
    site.manager.watch_presence("cars")
    ann, bob = await enter(site, "ann"), await enter(site, "bob")
    await ann.received()
    await gone(site, bob)
    assert site.manager.unsubscribe_user("bob", "cars") == 1
    assert await notices(ann) == [("leave", "bob")]


async def test_close_user_reaches_every_device_and_nobody_else(serve, enter):
    site = await serve(Named())
    devices = [await enter(site, "ann"), await enter(site, "ann", "bikes")]
    bob = await enter(site, "bob")
    assert site.manager.close_user("ann") == 2
    for device in devices:
        assert await device.closed() == (4001, "logged out")
    assert site.manager.close_user("ann") == 0
    assert site.manager.close_user("bob", 4010, "by an admin") == 1
    assert await bob.closed() == (4010, "by an admin")


@pytest.mark.parametrize("close", ["close_user", "close_session"])
async def test_a_close_that_may_not_be_sent_is_an_error_even_where_nobody_is(serve, close):
    site = await serve(Named())
    with pytest.raises(ValueError, match="1005"):
        getattr(site.manager, close)("ann", 1005)
    with pytest.raises(ValueError, match="123 bytes"):
        getattr(site.manager, close)("ann", 4001, "x" * 124)


class Slow(Listener):
    """Waits in the handshake, or in on_open, until it is released."""

    def __init__(self, wait_in):
        self.wait_in = wait_in
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def on_handshake(self, request):
        request.user = request.session and request.session["id"]
        await self.wait("on_handshake")

    async def on_open(self, ws):
        await self.wait("on_open")

    async def wait(self, where):
        if where == self.wait_in:
            self.reached.set()
            await self.go.wait()


def cookie(id):
    return {"Cookie": "session=" + signed_cookie({"id": id}, "secret")}


@pytest.mark.parametrize("close", ["close_user", "close_session"])
async def test_a_log_out_during_the_handshake_refuses_it(serve, close):
    site = await serve(slow := Slow("on_handshake"), sessions=SignedCookieSessions("secret"))

    async def come(id):
        async with connect(f"{site.url}/ws/cars", headers=cookie(id)) as client:
            return await client.ping()

    ann, bob = asyncio.create_task(come("ann")), asyncio.create_task(come("bob"))
    await slow.reached.wait()
    await eventually(lambda: len(site.manager.life._pending) == 2)
    assert getattr(site.manager, close)("ann") == 0
    slow.go.set()
    with pytest.raises(Refused) as refused:
        await ann
    assert (refused.value.status, refused.value.error["message"]) == (401, "logged out")
    assert await bob > 0
    assert site.manager.life._pending == {}


@pytest.mark.parametrize("close", ["close_user", "close_session"])
async def test_a_log_out_during_on_open_closes(serve, join, close):
    site = await serve(slow := Slow("on_open"), sessions=SignedCookieSessions("secret"))
    client = await join(f"{site.url}/ws/cars", headers=cookie("ann"))
    await slow.reached.wait()
    assert getattr(site.manager, close)("ann") == 1
    slow.go.set()
    assert await client.closed() == (4001, "logged out")
    assert site.manager.channels == {}
