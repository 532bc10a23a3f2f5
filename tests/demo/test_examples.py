"""Each example in examples/ does what it says."""

import asyncio
import json
from contextlib import AsyncExitStack
from email import message_from_bytes
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import fastws

from ..lib.raw import TIMEOUT

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


class Recipe:
    """A running example, on any free port."""

    def __init__(self, module, clients):
        self.module = module
        self.clients = clients

    async def join(self, path, **options):
        url = f"ws://127.0.0.1:{self.module.server.port}{path}"
        return await self.clients.enter_async_context(connect(url, **options))


@pytest.fixture
async def cook(monkeypatch):
    """`await cook("echo")` runs that example."""
    monkeypatch.setattr(fastws, "Server", partial(fastws.Server, port=0))
    async with AsyncExitStack() as servers, AsyncExitStack() as clients:

        async def start(name):
            spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            await servers.enter_async_context(module.server)
            return Recipe(module, clients)

        yield start


async def receive(client):
    return await asyncio.wait_for(client.recv(), TIMEOUT)


async def received(client):
    return json.loads(await receive(client))


def test_every_example_is_short_and_has_a_test():
    for example in EXAMPLES.glob("*.py"):
        assert len(example.read_text().splitlines()) <= 40, example
        assert f"test_{example.stem}" in globals(), example


async def test_echo(cook):
    client = await (await cook("echo")).join("/ws/echo")
    for message in ("héllo", b"\x00\xff"):
        await client.send(message)
        assert await receive(client) == message


async def test_chat_rooms(cook):
    recipe = await cook("chat_rooms")
    ann, bob, other = [await recipe.join(f"/ws/chat/{room}") for room in ("cars", "cars", "boats")]
    await ann.send("vroom")
    assert await receive(ann) == await receive(bob) == "vroom"
    await other.send("ahoy")
    assert await receive(other) == "ahoy"


async def test_whisper(cook):
    recipe = await cook("whisper")
    ann, bob, cat = [await recipe.join(f"/ws/table/blue?name={name}") for name in ("ann", "bob", "cat")]
    await ann.send('{"to": ["bob"], "message": "psst"}')
    await ann.send('{"message": "for all"}')
    for client, messages in ((ann, ["psst", "for all"]), (bob, ["psst", "for all"]), (cat, ["for all"])):
        assert [(await received(client))["message"] for _ in messages] == messages
    with pytest.raises(InvalidStatus):
        await recipe.join("/ws/table/blue")


async def test_devices(cook):
    recipe = await cook("devices")
    ann, phone, bob, tablet = [await recipe.join(f"/ws/direct?name={name}") for name in ("ann", "ann", "bob", "bob")]
    await ann.send('{"to": "bob", "message": "hi"}')
    assert await received(ann) == {"devices": 3}
    for device in (phone, bob, tablet):
        assert await received(device) == {"from": "ann", "to": "bob", "message": "hi"}


async def test_starlette_app(cook):
    recipe = await cook("starlette_app")
    reader = await recipe.join("/ws/news/sport")
    assert await fetch(recipe, "GET /news") == {"sport": 1}
    assert await fetch(recipe, "POST /news/sport", b"1:0") == {"readers": 1}
    assert await receive(reader) == b"1:0"
    assert await fetch(recipe, "POST /news/weather", b"rain") == {"readers": 0}


async def test_background_ticker(cook):
    recipe = await cook("background_ticker")
    client = await recipe.join("/ws/ticker/seconds")
    task = asyncio.create_task(recipe.module.tick(0.01))
    assert (await received(client))["time"] < (await received(client))["time"]
    task.cancel()


async def test_threadsafe(cook):
    recipe = await cook("threadsafe")
    client, watcher = [await recipe.join("/ws/jobs/kitchen") for _ in range(2)]
    await client.send("bake")
    assert [await received(watcher) for _ in range(3)] == [{"job": "bake", "percent": at} for at in (0, 50, 100)]


async def test_auth(cook):
    recipe = await cook("auth")

    def enter(channel, token):
        return recipe.join(f"/ws/members/{channel}", additional_headers={"Authorization": f"Bearer {token}"})

    assert await received(await enter("board", "ann-token")) == {"hello": "ann"}
    assert await received(await enter("staff", "bob-token")) == {"hello": "bob"}
    for channel, token, status in (("staff", "wrong", 401), ("board", "bob-token", 403)):
        with pytest.raises(InvalidStatus) as refused:
            await enter(channel, token)
        assert refused.value.response.status_code == status


async def test_session(cook):
    recipe = await cook("session")
    ann, eve = [(await answer_to(recipe, "POST /login/ann"))["set-cookie"].partition(";")[0] for _ in range(2)]
    tabs = [await recipe.join("/ws/inbox", additional_headers={"Cookie": ann}) for _ in range(2)]
    other = await recipe.join("/ws/inbox", additional_headers={"Cookie": eve})
    await tabs[0].send("hi")
    assert await fetch(recipe, "POST /logout", cookie=ann) == {"tabs": 2}
    for tab in tabs:
        await asyncio.wait_for(tab.wait_closed(), TIMEOUT)
        assert tab.close_code == 4001
    assert other.state.name == "OPEN"
    for cookie in (ann, "session=made-up"):
        with pytest.raises(InvalidStatus) as refused:
            await recipe.join("/ws/inbox", additional_headers={"Cookie": cookie})
        assert refused.value.response.status_code == 403


async def test_jwt(cook):
    recipe = await cook("jwt")
    token = (await fetch(recipe, "POST /token/ann"))["token"]
    ann = await recipe.join("/ws/rooms/ann.inbox", subprotocols=["bearer", token])
    assert ann.subprotocol == "bearer"
    assert (await received(ann))["hello"] == "ann"
    await ann.send(json.dumps({"type": "authenticate", "token": (await fetch(recipe, "POST /token/ann"))["token"]}))
    assert (await received(ann))["type"] == "authenticated"
    for room, offer, status in (("bob.inbox", ["bearer", token], 403), ("news", [], 401)):
        with pytest.raises(InvalidStatus) as refused:
            await recipe.join(f"/ws/rooms/{room}", subprotocols=offer or None)
        assert refused.value.response.status_code == status


async def fetch(recipe, target, body=b"", cookie=""):
    return json.loads((await answer_to(recipe, target, body, cookie)).get_payload())


async def answer_to(recipe, target, body=b"", cookie=""):
    """The HTTP answer, as a message with header fields and a body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", recipe.module.server.port)
    head = f"{target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    head += f"Cookie: {cookie}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await asyncio.wait_for(reader.read(), TIMEOUT)
    writer.close()
    await writer.wait_closed()
    return message_from_bytes(answer.partition(b"\r\n")[2])
