"""Third-party clients that compress, with what each can ask for: websockets, aiohttp, Node's ws, Chromium; and picows,
which cannot."""

import asyncio
import itertools
import json
import os

import aiohttp
import pytest
import websockets
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from fastws import Server
from fastws.testing import running

from ..lib.support import Echo
from ..lib.tab import CHROMIUM, CI, async_playwright
from .test_clients import NodeClient, PicowsClient

MEBIBYTE = 1 << 20
JSON = json.dumps([{"symbol": f"S{n}", "bid": n / 4, "ask": n / 4 + 0.5} for n in range(200)])
TEXTS = ["", "Grüße 🚗", "x" * 5000, JSON]
SHORT = ["", "Grüße 🚗", "x" * 900, JSON[:990]]  # of longer ones the program on Node tells only the size


@pytest.fixture
async def server():
    server = Server(port=0, compression="shared", compression_threshold=0, max_message_size=2 * MEBIBYTE)
    server.endpoint("/", Echo())
    async with running(server) as url:
        server.url = url
        yield server


def agreed(server):
    """Whether each connection has agreed on compression."""
    return [ws.compression for ws in server.endpoints["/"].connections.values()]


def compressed(server):
    return server.endpoints["/"].stats["compressed"]


OFFERS = [
    dict(zip(("server_no_context_takeover", "client_no_context_takeover"), flags, strict=True)) | bits
    for flags, bits in itertools.product(
        itertools.product([False, True], repeat=2),
        [
            {},
            {"client_max_window_bits": True},
            {"client_max_window_bits": 9},
            {"server_max_window_bits": 9},
            {"server_max_window_bits": 12, "client_max_window_bits": 15},
        ],
    )
]


@pytest.mark.parametrize("offer", OFFERS, ids=str)
async def test_websockets(server, offer):
    extensions = [ClientPerMessageDeflateFactory(**offer)]
    connected = websockets.connect(server.url, extensions=extensions, compression=None, max_size=2 * MEBIBYTE)
    async with asyncio.timeout(20), connected as socket:
        assert agreed(server) == [True]
        for message in [*TEXTS, b"\x00\xff" * 3000, os.urandom(3000), bytes(MEBIBYTE)]:
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send([JSON[:100], "", JSON[100:]])
        assert await socket.recv() == JSON
        assert compressed(server) >= 5


@pytest.mark.parametrize("bits", range(9, 16))
async def test_aiohttp(server, bits):
    async with (
        asyncio.timeout(20),
        aiohttp.ClientSession() as session,
        session.ws_connect(server.url, compress=bits, max_msg_size=2 * MEBIBYTE) as socket,
    ):
        assert agreed(server) == [True]
        assert socket.compress
        for text in TEXTS:
            await socket.send_str(text)
            assert (await socket.receive()).data == text
        for data in (os.urandom(3000), bytes(MEBIBYTE)):
            await socket.send_bytes(data)
            assert (await socket.receive()).data == data
        assert compressed(server) >= 3


NODE_OFFERS = [
    {},
    {"serverNoContextTakeover": True, "clientNoContextTakeover": True},
    {"serverMaxWindowBits": 9, "clientMaxWindowBits": 9},
    {"serverMaxWindowBits": 15, "clientMaxWindowBits": 15, "threshold": 0},
    {"threshold": 0, "clientNoContextTakeover": True, "serverMaxWindowBits": 11},
]


@pytest.mark.parametrize("offer", NODE_OFFERS, ids=str)
async def test_ws_on_node(server, offer):
    async with asyncio.timeout(20), NodeClient.open(server.url, offer) as client:
        for text in SHORT:
            assert await client.echo(text) == text
        assert await client.echo(b"\x00\xff\x80") == b"\x00\xff\x80"
        assert await client.echo(bytes(MEBIBYTE)) == bytes(MEBIBYTE)
        assert await client.echo_fragments([JSON[:100], "", JSON[100:990]]) == JSON[:990]
        assert agreed(server) == [True]
        assert compressed(server) >= 4


async def test_ws_on_node_does_without_where_its_offer_cannot_be_kept(server):
    async with asyncio.timeout(20), NodeClient.open(server.url, {"serverMaxWindowBits": 8}) as client:
        assert await client.echo(JSON[:990]) == JSON[:990]
        assert agreed(server) == [False]
        assert compressed(server) == 0


async def test_picows_gets_plain_frames(server):
    async with asyncio.timeout(20), PicowsClient.open(server.url) as client:
        assert await client.echo(JSON) == JSON
        assert agreed(server) == [False]
        assert compressed(server) == 0


SCRIPT = """async ([url, texts]) => {
  const socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = reject; });
  const next = () => new Promise((resolve, reject) => {
    socket.onmessage = (event) => resolve(event.data);
    socket.onclose = (event) => reject(new Error(`closed: ${event.code} ${event.reason}`));
  });
  const got = [];
  for (const text of texts) { const answer = next(); socket.send(text); got.push(await answer); }
  const answer = next();
  socket.send(new Uint8Array(1 << 20));
  const data = new Uint8Array(await answer);
  return [socket.extensions, got, data.length, data.every((byte) => byte === 0)];
}"""


@pytest.mark.skipif(CHROMIUM is None and not CI, reason="chromium is not installed")
async def test_chromium(server):
    assert CHROMIUM, "chromium is not installed"
    async with asyncio.timeout(60), async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = await browser.new_page()
        extensions, got, size, is_zero = await page.evaluate(SCRIPT, [server.url, TEXTS])
        assert extensions.startswith("permessage-deflate")
        assert (got, size, is_zero) == (TEXTS, MEBIBYTE, True)
        assert agreed(server) == [True]
        assert compressed(server) >= 3
        await browser.close()
