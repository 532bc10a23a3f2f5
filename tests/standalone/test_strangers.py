"""Three strangers in one conversation: curl, Chromium with /fastws.js, a plain script. PHP decides who enters."""

import asyncio
import json
import os
import shutil
import subprocess
import sys

import pytest

from ..lib.command import TIMEOUT, port_of, serving
from .conftest import ROOT

BACKEND = ROOT / "examples" / "hooks" / "backend.php"
KEY = "a-key-of-the-strangers-0123456789"
SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSBzdHJhbmdlcnMsIDMyIGJ5dGVz"
TOML = """
port = 0

[[api.keys]]
name = "curl"
key = "{key}"

[hooks]
url = "http://127.0.0.1:{port}/"
secret = "{secret}"

[[channels]]
pattern = "cars"
subscribe = "user"
publish = "member"
presence = true
"""

SCRIPT = """
import asyncio, json, sys
from websockets.asyncio.client import connect
async def main():
    async with connect(sys.argv[1], additional_headers={"Cookie": "user=bob"}) as ws:
        await ws.send(json.dumps({"type": "hello", "version": 1, "channels": {"cars": None}}))
        async for frame in ws:
            print(frame, flush=True)
            if "from ann" in frame:
                await ws.send(json.dumps({"type": "publish", "channel": "cars", "message": "from bob"}))
asyncio.run(main())
"""

PAGE = """
import { connect } from "/fastws.js"
window.heard = []
const ws = connect("/ws")
ws.on("state", ({ state, code, reason }) => window.state = [state, code, reason])
window.cars = ws.channel("cars")
cars.on("message", (message, { user }) => heard.push([user ?? null, message]))
cars.on("subscribed", () => window.joined = true)
"""


@pytest.fixture
def backend(folder, unused_tcp_port):
    """PHP's own server; what it is told of is in the file `gone`."""
    if shutil.which("php") is None:
        pytest.skip("php is not installed")
    environment = {**os.environ, "FASTWS_SECRET": SECRET, "GONE": str(folder / "gone")}
    command = ["php", "-S", f"127.0.0.1:{unused_tcp_port}", BACKEND]
    with (folder / "php.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    yield f"http://127.0.0.1:{unused_tcp_port}/"
    process.kill()
    process.wait()


@pytest.fixture
def port(folder, backend, unused_tcp_port):
    (folder / "fastws.toml").write_text(TOML.format(key=KEY, port=unused_tcp_port, secret=SECRET))
    with serving(command=["fastws"]) as (process, line):
        yield port_of(line)
        process.terminate()
        _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert KEY not in err
    assert SECRET not in err
    assert "user=" not in err


async def visit(browser, port, user=None):
    context = await browser.new_context()
    if user is not None:
        await context.add_cookies([{"name": "user", "value": user, "domain": "127.0.0.1", "path": "/"}])
    page = await context.new_page()
    await page.goto(f"http://127.0.0.1:{port}/fastws.js")  # any document of the server's: its origin counts
    await page.add_script_tag(content=PAGE, type="module")
    return page


async def curl(port, path, *arguments):
    command = ["curl", "-s", "-H", f"Authorization: Bearer {KEY}", *arguments, f"http://127.0.0.1:{port}/api/{path}"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), TIMEOUT)
    return json.loads(out)


async def until(what):
    async with asyncio.timeout(TIMEOUT):
        while not what():
            await asyncio.sleep(0.05)


def test_the_script_has_ten_lines():
    assert len(SCRIPT.strip().splitlines()) == 10


async def test_each_hears_all_and_the_backend_is_told_who_left(folder, port, browser):
    ann = await visit(browser, port, "ann")
    await ann.wait_for_function("window.joined")
    script = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SCRIPT, f"ws://127.0.0.1:{port}/ws", stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            heard = [json.loads(await script.stdout.readline()) for _ in range(3)]
            assert [frame["type"] for frame in heard] == ["welcome", "subscribed", "presence"]
            assert (heard[0]["user"], heard[0]["data"]) == ("bob", "hello bob")

            there = await curl(port, "channels/cars")
            assert {member["user"] for member in there["users"]} == {"ann", "bob"}
            assert await curl(port, "channels/cars", "-d", "from curl") == {"connections": 2}
            assert await ann.evaluate("cars.publish('from ann')") == {"connections": 2}

            messages = []
            while len(messages) < 3:
                frame = json.loads(await script.stdout.readline())
                if frame.get("type") == "message":
                    messages.append([frame["from"] and frame["from"]["user"], frame["message"]])
        said = [[None, "from curl"], ["ann", "from ann"], ["bob", "from bob"]]
        assert messages == said
        await ann.wait_for_function("heard.length == 3")
        assert await ann.evaluate("heard") == said
    finally:
        script.kill()
        await script.wait()
    gone = folder / "gone"
    await until(lambda: gone.exists() and gone.read_text() == "bob\n")
    await ann.close()
    await until(lambda: gone.read_text() == "bob\nann\n")


async def test_whoever_the_backend_does_not_let_in_reads_why(port, browser):
    stranger = await visit(browser, port)
    await stranger.wait_for_function("window.state?.[0] == 'closed'")
    _, code, reason = await stranger.evaluate("state")
    assert code == 4403
    assert reason.startswith("log in first (")
    refusals = (await curl(port, "refusals"))["refusals"]
    assert (403, "log in first") in [(entry["status"], entry["message"]) for entry in refusals]
