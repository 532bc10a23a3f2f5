"""docs/howto/tasks.md: each program runs as it is printed, and does for real clients what the page says."""

import asyncio
import json
import os
import re
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from fastws import Server
from fastws.command.settings import load
from fastws.standalone import create_server
from fastws.testing import Refused, running

from ..lib import pages
from ..lib.raw import TIMEOUT
from ..lib.support import eventually

PAGE = pages.DOCS / "howto" / "tasks.md"
BLOCKS = pages.blocks(PAGE)
KEY = "a-key-of-the-tests-0123456789"


def part(title, number=0):
    return pages.block(PAGE, title, "python", number)


@pytest.fixture
async def program(join):
    """`await program(title)` runs the program of that part; returns how to join it, and what it defines."""
    opened = []

    async def start(title, instead=None):
        names = pages.run(part(title), instead)
        context = running(names["server"])
        url = await context.__aenter__()
        opened.append(context)
        return (lambda path, **options: join(url + path, **options)), names, url

    yield start
    for context in opened:
        await context.__aexit__(None, None, None)


def test_every_part_with_a_program_has_a_test():
    titles = {block.part for block in BLOCKS if block.language == "python"}
    own = Path(__file__).read_text()
    assert [title for title in titles if f'"{title}"' not in own] == []


async def test_whisper(program):
    enter, _, _ = await program("Whisper to some in a room")
    ann, bob, eve = [await enter(f"/ws/cars?user={user}") for user in ("ann", "bob", "eve")]
    await ann.send({"text": "hi"})
    hi = {"from": "ann", "text": "hi", "to": None}
    assert [await client.receive_json() for client in (ann, bob, eve)] == [hi] * 3
    assert await ann.receive_json() == {"reached": 3}
    await ann.send({"text": "psst", "to": ["bob"]})
    psst = {"from": "ann", "text": "psst", "to": ["bob"]}
    assert [await client.receive_json() for client in (ann, bob)] == [psst] * 2
    assert await ann.receive_json() == {"reached": 2}
    assert await eve.received() == []


async def test_several_devices(program):
    enter, names, _ = await program("Several devices of one user", {"offline_after=5": "offline_after=0.05"})
    bob = await enter("/ws/friends?user=bob")
    phone = await enter("/ws/private?user=ann")
    assert await bob.receive_json() == {"online": "ann"}
    desk = await enter("/ws/private?user=ann")
    await phone.send("milk")
    assert await desk.receive() == "milk"
    assert await phone.received() == []
    assert set(names["notes"].users) == {"ann", "bob"}
    for device in (phone, desk):
        await device.close()
    assert await bob.receive_json() == {"offline": "ann"}


async def test_typing(program):
    enter, _, _ = await program("Typing")
    ann, bob = [await enter(f"/ws/cars?user={user}") for user in ("ann", "bob")]
    for frame in ({"typing": True}, {"typing": True}, {"text": "hi"}):
        await ann.send(frame)
    assert await ann.receive_json() == {"from": "ann", "text": "hi"}
    assert [await bob.receive_json() for _ in range(2)] == [{"typing": "ann"}, {"from": "ann", "text": "hi"}]


async def test_block(program):
    enter, names, _ = await program("Block somebody")
    ann, eve, bob = [await enter(f"/ws/cars?user={user}") for user in ("ann", "eve", "bob")]
    for client in (ann, eve, bob):
        await eventually_hears(client, lambda said: said.get("user") == "bob" or len(said.get("users", ())) == 3)
    await ann.send({"block": "eve"})
    for client, other in ((eve, "ann"), (ann, "eve")):
        left = await eventually_hears(client, lambda said: said.get("event") == "leave")
        assert left["user"] == other
    await eve.send({"text": "hello?"})
    await bob.send({"text": "hi"})
    assert (await ann.receive_json())["from"] == "bob"
    assert [(await bob.receive_json())["from"] for _ in range(2)] == ["eve", "bob"]
    assert set(names["chat"].presence("cars", viewer="eve")) == {"eve", "bob"}


async def eventually_hears(client, wanted):
    while not wanted(said := await client.receive_json()):
        pass
    return said


async def test_log_out_everywhere(program):
    enter, _, url = await program("Log out everywhere")
    front = url.replace("ws:", "http:")
    browsers = [aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) for _ in range(2)]
    try:
        sockets = []
        for http in browsers:
            assert (await http.post(f"{front}/login?user=ann")).status == 200
            cookie = "; ".join(f"{cookie.key}={cookie.value}" for cookie in http.cookie_jar)
            sockets.append([await enter("/ws/cars", headers=[("Cookie", cookie)]) for _ in range(2)])
        assert await (await browsers[0].post(f"{front}/logout")).json() == {"closed": 2}
        assert [await socket.closed() for socket in sockets[0]] == [(4001, "logged out")] * 2
        sockets[0] = []
        assert await (await browsers[1].post(f"{front}/logout-everywhere")).json() == {"closed": 2}
        assert [await socket.closed() for socket in sockets[1]] == [(4001, "logged out")] * 2
        with pytest.raises(Refused):
            await enter("/ws/cars", headers=[("Cookie", cookie)])
    finally:
        for http in browsers:
            await http.close()


async def test_tokens(program):
    enter, names, _ = await program("Tokens and their renewal")
    make = {}
    exec(part("Tokens and their renewal", 1), make)

    def token(user, seconds=600):
        return make["token_for"](user, names["KEY"], seconds)

    for subprotocols in (["bearer", "nonsense"], []):
        with pytest.raises(Refused) as refused:
            await enter("/ws/cars", subprotocols=subprotocols)
        assert refused.value.status == 401
    with pytest.raises(Refused) as refused:
        await enter("/ws/bikes", subprotocols=["bearer", token("ann")])
    assert refused.value.status == 403
    ann = await enter("/ws/cars", subprotocols=["bearer", token("ann", 20)])
    bob = await enter("/ws/cars", subprotocols=["bearer", token("bob", 4)])
    await ann.send({"type": "authenticate", "token": token("ann")})
    answer = await ann.receive_json()
    assert answer["type"] == "authenticated"
    assert answer["expires"] > time.time() + 500
    assert (await bob.closed())[0] == 4001
    await ann.send("still here")
    assert await ann.receive_json() == {"from": "ann", "text": "still here"}


async def test_limits(program):
    title = "Limit what strangers send"
    enter, _, _ = await program(title)
    page = [("Origin", "https://chat.example.org")]
    with pytest.raises(Refused) as refused:
        await enter("/ws/cars", headers=[("Origin", "https://evil.example.org")])
    assert refused.value.status == 403
    client = await enter("/ws/cars", headers=page)
    await client.send("x" * 20_000)
    assert (await client.closed())[0] == 1009
    client = await enter("/ws/cars", headers=page)
    for number in range(100):
        await client.send(str(number))
    assert (await client.closed())[0] == 1008


async def test_slow_readers(program, dial):
    _, names, url = await program("Readers that are too slow")
    assert names["lost"]() == (0, 0)
    for name in ("prices", "chat"):
        await dial(url, f"/ws/{name}/cars", receive_buffer=4096)  # and nobody reads
        await eventually(lambda name=name: names[name].channels == {"cars": 1})
    async with asyncio.timeout(TIMEOUT):
        while not all(names["lost"]()):
            for name in ("prices", "chat"):
                names[name].broadcast("cars", "x" * 60_000)
            await asyncio.sleep(0)
    assert (names["prices"].channels, names["chat"].channels) == ({"cars": 1}, {})


async def test_a_language_model(program):
    enter, _, _ = await program("Tokens of a language model, to one user")
    phone, desk = [await enter("/ws/assistant?user=ann") for _ in range(2)]
    await phone.send({"ask": "why?"})
    for device in (phone, desk):
        said = [await device.receive_json() for _ in range(9)]
        assert "".join(piece["text"] for piece in said[:-1]) == "You asked: why? . I do not know "
        assert said[-1] == {"done": 8}
    await phone.send({"ask": "why " * 1000})
    assert (await phone.receive_json())["number"] == 0
    await phone.send({"stop": True})
    await phone.send({"ask": "and?"})
    said = await eventually_hears(phone, lambda said: "done" in said)
    assert said == {"done": 8}


async def test_large_rooms(program):
    title = "Large rooms"
    enter, _, _ = await program(title, {"PAUSE = 0.2": "PAUSE = 0.02"})
    clients = [await enter("/ws/final") for _ in range(3)]
    for client in clients:
        await client.send({"cheers": 2})
    for client in clients:
        assert await eventually_hears(client, lambda said: said["cheers"] == 6) == {"cheers": 6, "here": 3}


async def test_push_from_a_thread_and_a_task(program):
    enter, _, _ = await program("Push from a thread, a task, another process")
    client = await enter("/ws/news")
    for word in ("thread", "task"):
        await client.send(word)
        assert await client.receive_json() == {"from": f"a {word}"}


FILE = f"""
[[api.keys]]
name = "tests"
key = "{KEY}"

[[channels]]
pattern = "*"
subscribe = "anyone"

[raw]
"""


async def test_push_from_another_process(join, tmp_path):
    title = "Push from a thread, a task, another process"
    file = tmp_path / "fastws.toml"
    file.write_text(FILE)
    server = create_server(load(file, {}, {"port": 0}))
    assert isinstance(server, Server)
    async with running(server) as url:
        port = url.rpartition(":")[2]
        file.write_text(f"port = {port}\n{FILE}")
        client = await join(f"{url}/raw/news")
        fastws = f"{sys.executable} -m fastws "
        for text in [part(title, 1), *(block.text for block in BLOCKS if block.language == "sh")]:
            text = re.sub(r"127\.0\.0\.1:8765", f"127.0.0.1:{port}", re.sub(r"^fastws ", fastws, text))
            command = ["bash", "-ec", text] if text.startswith(("curl", fastws)) else [sys.executable, "-c", text]
            environment = {**os.environ, "KEY": KEY, "PYTHONPATH": str(pages.ROOT)}
            process = await asyncio.create_subprocess_exec(
                *command, cwd=tmp_path, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            async with asyncio.timeout(TIMEOUT):
                out, err = await process.communicate()
            assert process.returncode == 0, err.decode()
            assert b"1" in out
        said = [json.loads(await client.receive())["from"] for _ in range(3)]
        assert said == ["another process", "curl", "a shell"]
