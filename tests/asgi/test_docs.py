"""docs/asgi.md: its programs do what the page says."""

import json
import re
from urllib.request import Request, urlopen

import pytest
from websockets.sync.client import connect

from ..lib.command import TIMEOUT, port_of, serving
from ..lib.pages import DOCS, block

PAGE = DOCS / "asgi.md"
PROGRAMS = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))


@pytest.fixture
def port(folder, request):
    target = request.param
    folder.joinpath(target.partition(":")[0] + ".py").write_text(PROGRAMS[target.partition(":")[0] + ".py"])
    with serving(target, "--port", "0") as (process, line):
        assert line, process.stderr.read()
        yield port_of(line)


def fetch(port, path, method="GET"):
    with urlopen(Request(f"http://127.0.0.1:{port}{path}", method=method), timeout=TIMEOUT) as answer:
        return json.loads(answer.read())


def test_every_program_is_tried_here():
    assert set(PROGRAMS) == {"main.py", "rooms.py", "together.py"}
    assert len(re.findall(r"^```python$", PAGE.read_text(), re.MULTILINE)) == len(PROGRAMS) + 1


@pytest.mark.parametrize("port", ["main:app"], indirect=True)
def test_the_loop(port):
    with connect(f"ws://127.0.0.1:{port}/ws/ann") as ann, connect(f"ws://127.0.0.1:{port}/ws/bob") as bob:
        bob.send("hi")
        assert ann.recv(TIMEOUT) == bob.recv(TIMEOUT) == "bob: hi"


@pytest.mark.parametrize("port", ["rooms:app"], indirect=True)
def test_channels(port):
    with connect(f"ws://127.0.0.1:{port}/ws/cars/ann") as ann, connect(f"ws://127.0.0.1:{port}/ws/cars/bob") as bob:
        bob.send("hi")
        assert bob.recv(TIMEOUT) == "bob: hi"  # both have subscribed: the handshakes were in this order
        assert ann.recv(TIMEOUT) == "bob: hi"
        assert fetch(port, "/members/cars") == {"ann": 1, "bob": 1}
        assert fetch(port, "/say/cars?text=all", "POST") == {"connections": 2}
        assert fetch(port, "/say/cars?text=psst&to=ann", "POST") == {"connections": 1}
        assert [ann.recv(TIMEOUT), ann.recv(TIMEOUT), bob.recv(TIMEOUT)] == ["all", "psst", "all"]


@pytest.mark.parametrize("port", ["together:create"], indirect=True)
def test_both(port):
    with connect(f"ws://127.0.0.1:{port}/ask") as one, connect(f"ws://127.0.0.1:{port}/feed/cars") as other:
        one.send("why")
        assert one.recv(TIMEOUT) == "you asked: why"
        other.send("to all")
        assert other.recv(TIMEOUT) == "to all"


async def test_the_messages(apply, join):
    names = {}
    exec(block(PAGE, "Channels instead of the loop", "python", 1), names)
    url, server = await apply(names["application"])
    assert await (await join(url)).closed() == (1000, "")
    assert server.asgi.stats["broadcasts"] == 1
