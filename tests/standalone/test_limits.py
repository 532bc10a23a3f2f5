"""Settings and limits of the standalone server that no single part has to itself."""

import gc
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from fastws.access.rules import ChannelRule
from fastws.command import running
from fastws.command.settings import Settings
from fastws.demo import create_server as create_demo
from fastws.nesting import MOST_LEVELS, nesting_fault
from fastws.standalone import create_server
from fastws.v1.settings import V1Settings

from ..lib.command import run
from ..lib.raw import Raw, request
from ..lib.v1 import Client, connect

OPEN = ChannelRule(pattern="*", subscribe="anyone", publish="member", whisper="member")


def nested(levels, inner="1", left="[", right="]"):
    return left * levels + inner + right * levels


@pytest.mark.parametrize(
    ("encoded", "is_fine"),
    [
        (nested(MOST_LEVELS), True),
        (nested(MOST_LEVELS + 1), False),
        (nested(MOST_LEVELS, left='{"a":', right="}"), True),
        (nested(MOST_LEVELS + 1, left='{"a":', right="}"), False),
        (nested(MOST_LEVELS // 2, nested(MOST_LEVELS // 2 + 1, left='{"a":', right="}")), False),
        (nested(1, ",".join(["[]"] * 1000)), True),
        (nested(1, ",".join(["[]"] * 1000 + [nested(MOST_LEVELS)])), False),
        (json.dumps(["[" * 100, '"' + "{" * 100, "\\", "[" * 100, '\\"' + "[" * 100]), True),
        (json.dumps(["]" * 100, nested(MOST_LEVELS)])[:-1] + "," + nested(MOST_LEVELS) + "]", False),
        (json.dumps("[" * 1000), True),
    ],
)
def test_levels_are_counted_outside_of_strings(encoded, is_fine):
    json.loads(encoded)
    assert (nesting_fault(encoded.encode()) == "") is is_fine


async def dial(server, offered=("fastws.v1",)):
    return Client(await connect(f"ws://127.0.0.1:{server.port}/ws", subprotocols=offered))


async def test_what_is_nested_too_deeply_is_not_published_and_costs_nothing_else():
    async with create_server(Settings(options={"port": 0}, channels=(OPEN,))) as server:
        client = await dial(server)
        await client.hello(channels={"a": None})
        deep = nested(MOST_LEVELS + 1)
        answer = await client.ask(f'{{"type": "publish", "id": 1, "channel": "a", "message": {deep}}}')
        assert (answer["code"], answer["id"]) == ("bad_field", 1)
        assert f"{MOST_LEVELS} levels" in answer["message"]
        frame = f'{{"type": "publish", "channel": "a", "message": {nested(MOST_LEVELS)}}}'
        assert (await client.ask(frame))["message"] == json.loads(nested(MOST_LEVELS))
        await client.ws.close()


async def test_settings_of_v1_count():
    v1 = V1Settings(max_channels=2, heartbeat=0.05)
    async with create_server(Settings(options={"port": 0}, channels=(OPEN,), v1=v1)) as server:
        client = await dial(server)
        await client.send({"type": "hello", "version": 1, "channels": dict.fromkeys(["a", "b", "c", "d\n", "e"])})
        frames = [await client.receive() for _ in range(5)]
        assert frames[0]["heartbeat"] == 0.05
        (error,) = [frame for frame in frames if frame.get("type") == "error"]
        assert (error["code"], error["channels"]) == ("too_many", ["c", "e"])
        assert {} in frames or await client.receive() == {}
        await client.ws.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [("[v1]\nmax_channels = 0", "max_channels"), ("[v1]\nheartbeat = -1", "heartbeat"), ("[v1]\nbeat = 1", "'beat'")],
)
def test_settings_of_v1_that_cannot_work_are_named(folder, text, said):
    (folder / "fastws.toml").write_text(text)
    ended = run("check")
    assert ended.returncode == 2
    assert f"[v1] {said}" in ended.stderr


def test_check_fetches_nothing_unless_it_is_to_be_online(folder):
    asked = []

    class Issuer(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(503)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Issuer) as issuer:
        threading.Thread(target=issuer.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{issuer.server_port}/keys"
        (folder / "fastws.toml").write_text(f'[auth]\njwks_url = "{url}"\n')
        ended = run("check")
        assert (ended.returncode, ended.stderr, asked) == (0, "", [])
        ended = run("check", "--online")
        assert (ended.returncode, asked) == (2, ["/keys"])
        assert ended.stderr == f"fastws: jwks_url={url!r} answers with status 503\n"
        issuer.shutdown()


@pytest.mark.parametrize(
    ("host", "origin", "status"), [("evil.example", None, 421), (None, "http://evil.example", 403)]
)
async def test_the_demo_tells_pages_of_others_nothing_that_a_script_could_read(host, origin, status):
    async with create_demo(port=0) as server:
        raw = await Raw.open(f"ws://127.0.0.1:{server.port}")
        extra = [("Host", host or f"127.0.0.1:{server.port}"), ("Sec-WebSocket-Protocol", "fastws.v1")]
        extra += [] if origin is None else [("Origin", origin)]
        await raw.send(request("/ws/chat", without=["Host"], extra=extra))
        assert (await raw.response()).status == status
        raw.close()


def test_what_is_there_at_the_start_is_spared_by_the_garbage_collector():
    assert gc.get_freeze_count() == 0
    running.spare_what_is_here_to_stay()
    try:
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
