"""One conversation with each of the backends in examples/hooks: PHP's own server, a WSGI function, Node."""

import asyncio
import os
import re
import shutil
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
from websockets.exceptions import ConnectionClosed

from fastws.hooks import HookListener, HookSettings

from ..lib.v1 import serving
from .conftest import SECRET

EXAMPLES = Path(__file__).parents[2] / "examples" / "hooks"
TIMEOUT = 10

BACKENDS = {
    "backend.php": ["php", "-d", "display_errors=1", "-S", "127.0.0.1:{port}"],
    "backend.py": [sys.executable, "-W", "error"],
    "backend.mjs": ["node"],
}


@asynccontextmanager
async def running(name, port, log):
    """The example as a process of its own, once it listens."""
    command = [part.format(port=port) for part in BACKENDS[name]]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    environment = {**os.environ, "FASTWS_SECRET": SECRET, "PORT": str(port), "GONE": str(log / "gone")}
    with (log / "log").open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command, EXAMPLES / name, env=environment, stdout=output, stderr=output
        )
    try:
        async with asyncio.timeout(TIMEOUT):
            while not await listens(port):
                assert process.returncode is None, (log / "log").read_text()
                await asyncio.sleep(0.02)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def listens(port):
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


@pytest.fixture
def port(unused_tcp_port):
    return unused_tcp_port


@pytest.mark.parametrize("name", BACKENDS)
def test_an_example_is_short(name):
    lines = [line for line in (EXAMPLES / name).read_text().splitlines() if line.strip()]
    assert len(lines) <= 30


def test_the_page_of_hooks_has_the_backend_whole_and_every_key():
    page = (EXAMPLES.parents[1] / "docs" / "hooks.md").read_text()
    assert (EXAMPLES / "backend.php").read_text() in page
    keys = page.partition("## What is asked")[0]
    rows = dict(re.findall(r"^\| `(\w+)`(?:, `secret_file`)? \| +([^|]*)\|", keys, re.MULTILINE))
    for key in msgspec.structs.fields(HookSettings):
        if key.name not in ("url", "secret", "secret_file", "node"):
            default = list(key.default) if isinstance(key.default, tuple) else key.default
            assert rows[key.name].strip("` ") == str(default).replace("'", '"'), key.name
    assert {"url", "secret", "node"} <= set(rows)


@pytest.mark.parametrize("name", BACKENDS)
async def test_a_visitor_who_is_not_fastws_is_refused(name, port, tmp_path):
    """Such as `fastws check --online`, which takes any answer below 500."""
    async with (
        running(name, port, tmp_path),
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/") as answer,
    ):
        assert answer.status in (401, 403)


@pytest.mark.parametrize("name", BACKENDS)
async def test_connect_subscribe_publish_call_and_disconnected(name, port, tmp_path):
    settings = HookSettings(
        url=f"http://127.0.0.1:{port}/", secret=SECRET, ask=["connect", "subscribe", "publish", "call"], heartbeat=0
    )
    listener = HookListener(settings)
    async with running(name, port, tmp_path), serving(listener, subprotocols=["fastws.v1"]) as site:
        stranger = await site.dial()
        code, reason = await stranger.closed()
        assert code == 4403
        assert "log in first" in reason or "Forbidden" in reason

        ann = await site.dial(additional_headers={"Cookie": "theme=dark; user=ann"})
        await ann.hello()
        assert (ann.welcome["user"], ann.welcome["data"]) == ("ann", "hello ann")

        subscribed = await ann.ask({"type": "subscribe", "id": 1, "channel": "cars"})
        assert (subscribed["type"], subscribed["id"], subscribed["message"]) == ("subscribed", 1, "all about cars")
        refused = await ann.ask({"type": "subscribe", "id": 2, "channel": "secret"})
        assert (refused["type"], refused["id"], refused["code"]) == ("error", 2, "forbidden")

        message = await ann.ask({"type": "publish", "id": 3, "channel": "cars", "message": {"h\u00e9": "ho"}})
        assert message["message"] == {"from": "ANN", "text": {"h\u00e9": "ho"}}
        assert message["from"]["user"] == "ann"
        assert await ann.receive() == {"type": "ack", "id": 3, "connections": 1}

        result = await ann.ask({"type": "call", "id": 4, "method": "add", "params": [1, 2, 39]})
        assert result == {"type": "result", "id": 4, "result": 42}

        await ann.ws.close()
        bob = await site.dial(additional_headers={"Cookie": "user=bob"})
        await bob.hello()
        async with asyncio.timeout(TIMEOUT):
            while (await bob.ask({"type": "call", "id": 5, "method": "gone", "params": []}))["result"] != ["ann"]:
                await asyncio.sleep(0.05)
    assert listener.hooks.figures.dropped == 0


@pytest.mark.parametrize("name", BACKENDS)
async def test_what_is_not_signed_is_not_heard(name, port, tmp_path):
    async with running(name, port, tmp_path), aiohttp.ClientSession() as session:
        forged = {"webhook-id": "msg_1", "webhook-timestamp": "1", "webhook-signature": "v1,x", "Cookie": "user=ann"}
        for headers in ({}, forged):
            for body in (b'{"event": "connect"}', b"not JSON"):
                async with session.post(f"http://127.0.0.1:{port}/", data=body, headers=headers) as response:
                    assert response.status in (401, 403)


@pytest.mark.parametrize("name", BACKENDS)
async def test_a_backend_killed_and_back(name, port, tmp_path):
    """Nobody is let in meanwhile, and who left meanwhile is told afterwards."""
    listener = HookListener(f"http://127.0.0.1:{port}/", secret=SECRET)
    async with serving(listener) as site:
        async with running(name, port, tmp_path) as process:
            ann = await site.dial(additional_headers={"Cookie": "user=ann"})
            await ann.hello()
            process.kill()
            await process.wait()
            await ann.ws.close()
            stranger = await site.dial(additional_headers={"Cookie": "user=bob"})
            with pytest.raises(ConnectionClosed) as caught:
                await stranger.text()
            assert caught.value.rcvd.code == 4503
        async with running(name, port, tmp_path):
            bob = await site.dial(additional_headers={"Cookie": "user=bob"})
            await bob.hello()
            async with asyncio.timeout(TIMEOUT):
                while (await bob.ask({"type": "call", "id": 5, "method": "gone", "params": []})).get("result") != [
                    "ann"
                ]:
                    await asyncio.sleep(0.05)
            assert listener.hooks.figures.dropped == 0
            await site.server.stop()  # while it is there to be told
