"""The clients at the real server: one conversation in three tongues, tokens, and a server that is killed."""

import asyncio
import json
import time

import pytest
import pytest_asyncio
import websockets

from fastws.client import ChannelError, ConnectionRefused, connect

from .js import TIMEOUT, Page, Refusal
from .real import create, process, token_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHANNELS = 200


@pytest_asyncio.fixture(loop_scope="module")
async def server():
    async with create() as server:
        yield server


@pytest.fixture
def url(server):
    return f"ws://127.0.0.1:{server.port}/ws"


class Plain:
    """fastws.v1 by hand, as docs/protocol.md has it."""

    def __init__(self, socket):
        self.socket = socket
        self.frames = []

    async def send(self, **frame):
        await self.socket.send(json.dumps(frame))

    async def until(self, kind, **fields):
        async with asyncio.timeout(TIMEOUT):
            while True:
                frame = json.loads(await self.socket.recv())
                self.frames.append(frame)
                if frame.get("type") == kind and fields.items() <= frame.items():
                    return frame


async def test_one_conversation_in_three_tongues(js, url):
    await js.connect(url, token=token_of("ann"))
    await js.channel("cars")
    await js.until("cars", "subscribed", subscribers=1)
    protocols = ["fastws.v1", "bearer", token_of("cid")]
    async with (
        connect(url, token=token_of("bob")) as ws,
        ws.channel("cars") as cars,
        websockets.connect(url, subprotocols=protocols) as socket,
    ):
        cid = Plain(socket)
        await cid.send(type="hello", version=1, channels={"cars": None})
        assert (await cid.until("welcome"))["user"] == "cid"
        assert (await cid.until("subscribed"))["subscribers"] == 3
        await js.until("cars", "join", user="cid")
        assert [member["user"] for member in await js.do("cars", "presence")] == ["ann", "bob", "cid"]
        assert [member.user for member in await cars.presence()] == ["ann", "bob", "cid"]

        assert await js.do("cars", "publish", {"text": "of ann"}) == {"connections": 3}
        assert await cars.publish({"text": "of bob"}, exclude="self") == 2
        await cid.send(type="publish", id=1, channel="cars", message={"text": "of cid"})
        for user in ("ann", "bob", "cid"):
            said = {"text": f"of {user}"}
            assert (await js.until("cars", "message", said))[1]["user"] == user
            assert (await cid.until("message"))["message"] == said
            if user != "bob":
                message = await asyncio.wait_for(anext(cars), TIMEOUT)
                assert (message.message, message.user) == (said, user)
        assert (await cid.until("ack", id=1))["connections"] == 3

        assert await js.do("cars", "whisper", "bob", "psst") == {"connections": 1}
        whisper = await asyncio.wait_for(anext(cars), TIMEOUT)
        assert (whisper.message, whisper.user, whisper.to) == ("psst", "ann", ("bob",))
        with pytest.raises(ChannelError) as refusal:
            await cars.whisper("nobody", "psst")
        assert refusal.value.code == "no_recipient"
        with pytest.raises(Refusal) as error:
            await js.do("cars", "whisper", ["nobody"], "psst")
        assert error.value.code == "no_recipient"

        cars.typing()
        assert (await js.until("cars", "typing"))[0] == {"channel": "cars", "user": "bob"}
        assert (await cid.until("typing"))["user"] == "bob"
        assert await js.do("ws", "call", "add", [1, 2]) == await ws.call("add", [1, 2]) == 3
        with pytest.raises(ChannelError, match="there is no multiply"):
            await ws.call("multiply")
        assert not [frame for frame in cid.frames if frame["type"] == "whisper"]
    await js.until("cars", "leave", user="bob")


async def test_refusals_are_read_by_both(js, server, url):
    await js.connect(url)
    await js.channel("secrets")
    error = (await js.until("secrets", "error", code="forbidden"))[0]
    assert error["retry"] is False
    await js.connect(f"{url}/secrets", name="refused")
    await js.state("closed", source="refused", code=4403)
    await js.connect(url, name="unknown", token=token_of("ann")[:-4] + "AAAA")
    await js.state("closed", source="unknown", code=4401)
    async with connect(url) as ws:
        with pytest.raises(ChannelError) as refused:
            await ws.channel("secrets").join()
        assert refused.value.code == "forbidden"
    with pytest.raises(ConnectionRefused) as refusal:
        await connect(f"{url}/secrets").__aenter__()
    assert refusal.value.status == 403
    with pytest.raises(ConnectionRefused) as refusal:
        await connect(url, token="no.to.ken").__aenter__()
    assert refusal.value.status == 401


async def test_a_path_puts_one_into_its_channel_once(js, server, url):
    await js.ask("all", [["connect", "ws", f"{url}/cars"], ["channel", "cars", "ws", "cars"]])
    await js.until("cars", "subscribed", subscribers=1)
    await js.do("ws", "call", "add", [1])
    assert js.of("cars", "subscribed") == []
    await js.connect(f"{url}/boats", name="other")
    await js.until("other", "subscribed", channel="boats")
    await js.channel("boats", connection="other")
    await js.until("boats", "subscribed")


async def test_a_token_is_renewed_and_the_connection_stays(js, server, url):
    renewals = []

    def renew():
        renewals.append(time.time())
        return token_of("bob", 6 if len(renewals) == 1 else 3600)

    await js.connect(url, tokens=[token_of("ann", 6), token_of("ann")])
    async with connect(url, token=renew) as ws:
        await js.state("open")
        connection = await js.ask("get", "ws", "id"), ws.id
        await asyncio.sleep(6.5)  # longer than the first tokens last
        assert await js.do("ws", "call", "add", [1]) == await ws.call("add", [1]) == 1
        assert (await js.ask("get", "ws", "id"), ws.id) == connection
        assert len(renewals) == 2


async def test_a_token_that_is_over_is_replaced_or_not(js, server, url):
    await js.connect(url, tokens=[token_of("ann", 4), token_of("ann")])
    await js.connect(url, name="fixed", token=token_of("bob", 4))
    await js.state("closed", source="fixed", code=4001)
    assert await js.ask("get", "ws", "state") == "open"


# A server that is killed


async def test_two_hundred_channels_come_back_once_each_when_the_server_is_killed(browser, unused_tcp_port):
    if browser is None:
        pytest.skip("chromium is not installed")
    names = [f"channel {number}" for number in range(CHANNELS)]
    page = await browser.new_page()
    client = Page(page)
    await page.expose_function("tell", client.heard)
    try:
        async with process(unused_tcp_port) as server:
            await page.goto(f"http://127.0.0.1:{unused_tcp_port}/")
            await client.until("page", "ready")
            url = f"ws://127.0.0.1:{unused_tcp_port}/ws"
            # A connection is in a hundred channels at most.
            commands = [["connect", connection, url, {}] for connection in ("one", "two")]
            commands += [["channel", name, ("one", "two")[n % 2], name, {}] for n, name in enumerate(names)]
            await client.ask("all", commands)
            await joined(client, names)
            await server.kill()
        for connection in ("one", "two"):
            await client.state("waiting", source=connection, code=1006)
        with pytest.raises(Refusal) as refusal:
            await client.do(names[0], "publish", "not while it is away")
        assert refusal.value.code in ("unavailable", "lost")
        queued = client.begin("do", names[0], "publish", "when it is back", {"queue": True})
        client.events.clear()
        async with process(unused_tcp_port):
            await joined(client, names)
            await queued
            # Each is in its channel once: it hears once what is said there.
            counts = await asyncio.gather(*[client.do(name, "publish", name) for name in names])
            assert counts == [{"connections": 1}] * CHANNELS
            async with asyncio.timeout(TIMEOUT):
                while not all(client.of(name, "message") for name in names):
                    await asyncio.sleep(0.01)
            for connection in ("one", "two"):
                await client.do(connection, "call", "add", [1])
            for name in names:
                assert len(client.of(name, "subscribed")) == 1
                heard = [message for message, _ in client.of(name, "message")]
                assert heard == (["when it is back", name] if name == names[0] else [name])
    finally:
        await page.close()


async def joined(client, names):
    """Wait until each channel says that it is joined."""
    async with asyncio.timeout(60):
        while not all([await client.ask("get", name, "state") == "joined" for name in names]):
            await asyncio.sleep(0.1)


async def test_python_comes_back_when_the_server_is_killed(unused_tcp_port):
    url = f"ws://127.0.0.1:{unused_tcp_port}/ws"
    async with process(unused_tcp_port) as server:
        ws = await connect(url, queue=True).__aenter__()
        cars, boats = ws.channel("cars"), ws.channel("boats")
        await cars.join()
        await boats.join()
        await server.kill()
    async with process(unused_tcp_port), ws:
        assert await cars.publish("again") >= 1  # a try that it has given up may still count
        assert (await asyncio.wait_for(anext(cars), TIMEOUT)).message == "again"
        assert await boats.publish("too") >= 1
