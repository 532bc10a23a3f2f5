"""What `[[channels]]` keep, without a line of Python; on one server, and on two with one store."""

from contextlib import AsyncExitStack

import pytest

from fastws.access.rules import ChannelRule
from fastws.backplane.memory import Memory, MemoryStore
from fastws.command.settings import Settings
from fastws.standalone import create_server
from fastws.testing import connect as plain
from fastws.v1.raw import RawSettings

from ..lib.support import eventually
from ..lib.v1 import Client, connect

RULES = (
    ChannelRule(pattern="room.*", subscribe="anyone", publish="anyone", history=5),
    ChannelRule(pattern="price.*", subscribe="anyone", publish="anyone", latest=True),
    ChannelRule(pattern="plain", subscribe="anyone", publish="anyone"),
)


@pytest.fixture
async def servers():
    """`await servers(2)` are servers of one store."""
    async with AsyncExitStack() as stack:
        store = MemoryStore()

        async def start(count):
            options = [{"port": 0, "backplane": Memory(store)} for _ in range(count)] if count > 1 else [{"port": 0}]
            return [
                await stack.enter_async_context(
                    create_server(Settings(options=each, channels=RULES, raw=RawSettings()))
                )
                for each in options
            ]

        yield start


async def dial(server):
    return Client(await connect(f"ws://127.0.0.1:{server.port}/ws", subprotocols=["fastws.v1"]))


async def test_a_room_keeps_its_history(servers):
    (server,) = await servers(1)
    first = await dial(server)
    [subscribed] = await first.hello(channels={"room.1": None})
    for number in range(3):
        assert (await first.ask({"type": "publish", "channel": "room.1", "message": number}))["message"] == number
    await first.ws.close()
    back = await dial(server)
    [subscribed] = await back.hello(channels={"room.1": subscribed["position"]})
    assert (subscribed["recovered"], subscribed["count"]) == (True, 3)
    assert [(await back.receive())["message"] for _ in range(3)] == [0, 1, 2]
    await back.ws.close()


async def test_plain_sockets_get_what_is_said_now(servers):
    (server,) = await servers(1)
    client = await dial(server)
    await client.hello(channels={"room.1": None})
    async with plain(f"ws://127.0.0.1:{server.port}/raw/room.1") as socket:
        await eventually(lambda: server.endpoints["/raw/{channel}"].channels)
        await client.send({"type": "publish", "channel": "room.1", "message": "hi"})
        assert await socket.receive() == "hi"
        await socket.send("from a plain socket")
        frames = [await client.receive() for _ in range(2)]
        assert [frame["message"] for frame in frames] == ["hi", "from a plain socket"]
        assert all("position" in frame for frame in frames)
    await client.ws.close()


async def test_two_servers_are_one(servers):
    here, there = await servers(2)
    ann, bob = await dial(here), await dial(there)
    [subscribed, *_] = await ann.hello(channels={"room.1": None, "price.1": None, "plain": None})
    await bob.hello(channels={"room.1": None, "price.1": None, "plain": None})
    for channel, key in (("plain", {}), ("room.1", {}), ("price.1", {"key": "A"})):
        await ann.send({"type": "publish", "channel": channel, "message": channel, **key})
        seen = [await client.receive() for client in (ann, bob)]
        assert [frame["message"] for frame in seen] == [channel, channel]
        assert seen[0].get("position") == seen[1].get("position")
    async with plain(f"ws://127.0.0.1:{there.port}/raw/plain") as socket:
        await eventually(lambda: there.endpoints["/raw/{channel}"].channels)
        await ann.send({"type": "publish", "channel": "plain", "message": "again"})
        assert await socket.receive() == "again"
    await ann.ws.close()
    back = await dial(there)
    [subscribed] = await back.hello(channels={"room.1": "0-0"})
    assert subscribed["recovered"] is False
    for client in (bob, back):
        await client.ws.close()
