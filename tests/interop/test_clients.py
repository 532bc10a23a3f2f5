"""Third-party clients: websockets, aiohttp, picows and Node's ws, each with an echo server."""

import asyncio
import json
import os
import shutil
import struct
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import picows
import pytest
import websockets

from ..lib.support import Recorder

NODE = Path(__file__).parent / "node"
MEBIBYTE = 1 << 20


class EchoRecorder(Recorder):
    """Echoes all messages except `close CODE REASON`, which it obeys."""

    def on_message(self, ws, message):
        if isinstance(message, str) and message.startswith("close "):
            _, code, reason = message.split(" ", 2)
            return ws.close(int(code), reason)
        return message


class WebsocketsClient:
    def __init__(self, socket):
        self.socket = socket

    @classmethod
    @asynccontextmanager
    async def open(cls, url):
        async with websockets.connect(url, max_size=2 * MEBIBYTE) as socket:
            yield cls(socket)

    async def echo(self, message):
        await self.socket.send(message)
        return await self.socket.recv()

    async def echo_fragments(self, parts):
        await self.socket.send(parts)
        return await self.socket.recv()

    async def ping(self, payload):
        await (await self.socket.ping(payload))

    async def close(self, code, reason):
        await self.socket.close(code, reason)
        return self.socket.close_code

    async def closed_by(self, command):
        await self.socket.send(command)
        await self.socket.wait_closed()
        return self.socket.close_code, self.socket.close_reason


class AiohttpClient:
    def __init__(self, socket):
        self.socket = socket

    @classmethod
    @asynccontextmanager
    async def open(cls, url):
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, max_msg_size=2 * MEBIBYTE, autoping=False) as socket,
        ):
            yield cls(socket)

    async def echo(self, message):
        if isinstance(message, str):
            await self.socket.send_str(message)
        else:
            await self.socket.send_bytes(message)
        return (await self.socket.receive()).data

    async def ping(self, payload):
        await self.socket.ping(payload)
        got = await self.socket.receive()
        assert (got.type, got.data) == (aiohttp.WSMsgType.PONG, payload)

    async def close(self, code, reason):
        await self.socket.close(code=code, message=reason.encode())
        return self.socket.close_code

    async def closed_by(self, command):
        await self.socket.send_str(command)
        got = await self.socket.receive()
        assert got.type == aiohttp.WSMsgType.CLOSE
        return got.data, got.extra


class PicowsClient(picows.WSListener):
    """The callback interface of picows."""

    def __init__(self):
        self.frames = asyncio.Queue()

    @classmethod
    @asynccontextmanager
    async def open(cls, url):
        transport, client = await picows.ws_connect(cls, url, use_aiofastnet=False)
        client.transport = transport
        yield client
        transport.disconnect()
        await transport.wait_disconnected()

    def on_ws_frame(self, transport, frame):
        self.frames.put_nowait((frame.msg_type, frame.get_payload_as_bytes()))

    async def echo(self, message):
        text = isinstance(message, str)
        kind = picows.WSMsgType.TEXT if text else picows.WSMsgType.BINARY
        self.transport.send(kind, message)
        got, payload = await self.frames.get()
        assert got == kind
        return payload.decode() if text else payload

    async def echo_fragments(self, parts):
        first, *rest = parts
        self.transport.send(picows.WSMsgType.TEXT, first, fin=False)
        for part in rest:
            self.transport.send(picows.WSMsgType.CONTINUATION, part, fin=part is rest[-1])
        return (await self.frames.get())[1].decode()

    async def ping(self, payload):
        self.transport.send_ping(payload)
        assert await self.frames.get() == (picows.WSMsgType.PONG, payload)

    async def close(self, code, reason):
        payload = struct.pack("!H", code) + reason.encode()
        self.transport.send(picows.WSMsgType.CLOSE, payload)
        got, payload = await self.frames.get()
        assert got == picows.WSMsgType.CLOSE
        await self.transport.wait_disconnected()
        return struct.unpack("!H", payload[:2])[0]

    async def closed_by(self, command):
        self.transport.send(picows.WSMsgType.TEXT, command)
        got, payload = await self.frames.get()
        assert got == picows.WSMsgType.CLOSE
        self.transport.send(picows.WSMsgType.CLOSE, payload)
        await self.transport.wait_disconnected()
        return struct.unpack("!H", payload[:2])[0], payload[2:].decode()


class NodeClient:
    def __init__(self, process):
        self.process = process

    @classmethod
    @asynccontextmanager
    async def open(cls, url, offer=False):
        """With compression as ``offer`` says, in the options of ws."""
        if shutil.which("node") is None or not (NODE / "node_modules" / "ws").is_dir():
            missing = "Node's ws is not installed: run npm install in tests/interop/node"
            if os.environ.get("CI") == "true":
                pytest.fail(missing)
            pytest.skip(missing)
        process = await asyncio.create_subprocess_exec(
            *("node", "client.js", url, json.dumps(offer)), cwd=NODE, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            yield cls(process)
        finally:
            process.kill()
            await process.communicate()

    async def does(self, *action):
        self.process.stdin.write(json.dumps(action).encode() + b"\n")
        return json.loads(await self.process.stdout.readline())

    async def echo(self, message):
        if isinstance(message, str):
            kind, got = await self.does("text", message)
            assert kind == "text"
            return got
        if len(message) > 1000:
            assert await self.does("size", len(message)) == ["size", len(message), True]
            return bytes(len(message))
        kind, got = await self.does("binary", message.hex())
        assert kind == "binary"
        return bytes.fromhex(got)

    async def echo_fragments(self, parts):
        return (await self.does("fragments", parts))[1]

    async def ping(self, payload):
        assert await self.does("ping", payload.decode()) == ["pong", payload.decode()]

    async def close(self, code, reason):
        return (await self.does("close", code, reason))[1]

    async def closed_by(self, command):
        kind, code, reason = await self.does("text", command)
        assert kind == "closed"
        return code, reason


CLIENTS = {
    "websockets": WebsocketsClient,
    "aiohttp": AiohttpClient,
    "picows": PicowsClient,
    "ws on Node": NodeClient,
}


@pytest.fixture
async def recorder(serve):
    recorder = EchoRecorder()
    recorder.url = f"{(await serve(recorder)).url}/ws/cars"
    return recorder


@pytest.fixture(params=CLIENTS)
async def client(request, recorder):
    async with asyncio.timeout(20), CLIENTS[request.param].open(recorder.url) as client:
        yield client


async def test_text_and_binary_come_back(client):
    assert await client.echo("Grüße 🚗") == "Grüße 🚗"
    assert await client.echo(b"\x00\xff\x80") == b"\x00\xff\x80"
    assert await client.echo("") == ""


async def test_a_mebibyte_comes_back(client):
    assert await client.echo(bytes(MEBIBYTE)) == bytes(MEBIBYTE)


@pytest.mark.parametrize("client", [name for name in CLIENTS if name != "aiohttp"], indirect=True)
async def test_fragments_come_back_as_one_message(client):
    assert await client.echo_fragments(["Grü", "ße ", "", "🚗"]) == "Grüße 🚗"


async def test_a_ping_is_answered(client):
    await client.ping(b"are you there?")


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
async def test_the_clients_close_code_reaches_the_listener_and_is_echoed(client, recorder, code):
    assert await client.close(code, "that's all") == code
    assert await recorder.until("on_close") == (code, "that's all")


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1013, 3000, 4000, 4999])
async def test_the_servers_close_code_reaches_the_client(client, recorder, code):
    assert await client.closed_by(f"close {code} enough é") == (code, "enough é")
    # aiohttp answers every close with 1000.
    assert (await recorder.until("on_close"))[0] == (1000 if isinstance(client, AiohttpClient) else code)
