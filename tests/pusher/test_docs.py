"""docs/pusher.md: what its programs and configurations do for real clients."""

import asyncio
import os
import shutil
import subprocess
from contextlib import asynccontextmanager

import pytest

from fastws.command.settings import load
from fastws.pusher.settings import Webhook
from fastws.standalone import create_server
from fastws.testing import running

from ..lib import pages
from ..lib.raw import TIMEOUT
from ..lib.support import eventually
from . import conftest
from .conftest import NODE, App, needs_node

PAGE = pages.DOCS / "pusher.md"
FIRST = "Pusher's protocol"


@pytest.fixture
async def app(tmp_path, monkeypatch):
    """What the first configuration of the page serves."""
    file = tmp_path / "fastws.toml"
    file.write_text(pages.block(PAGE, FIRST, "toml").replace("port = 8765", "port = 0").replace("origins", "# origins"))
    server = create_server(load(file, {}, {}))
    monkeypatch.setattr(conftest, "SECRET", "a secret of 16 characters or more")
    monkeypatch.setattr(conftest, "ID", "4242")
    async with running(server) as url:
        yield App(server, server.endpoints["/app/{key}"].listener, url)


@asynccontextmanager
async def script(app, part, auth=None):
    """A program of the page in Node; `await line()` is the next line that it prints."""
    needs_node()
    text = pages.block(PAGE, part, "js").replace("8765", str(app.port))
    if auth is not None:
        text = text.replace("http://127.0.0.1:5000/pusher/auth", f"{auth.url}/auth")
    command = ("node", "--input-type=module", "--eval", text)
    process = await asyncio.create_subprocess_exec(*command, cwd=NODE, stdout=subprocess.PIPE)

    async def line():
        async with asyncio.timeout(TIMEOUT):
            return (await process.stdout.readline()).decode().strip()

    try:
        yield line
    finally:
        process.kill()
        await process.communicate()


async def test_pusher_js_as_it_is_printed(app, auth, dial_pusher):
    async with script(app, "In the browser", auth) as line:
        assert await line() == "here 1"
        await app.call("trigger", "news", "headline", {"text": "hello"})
        assert await line() == "news { text: 'hello' }"
        wire = await dial_pusher(app)
        await wire.join("presence-room", "bob", name="Bob")
        assert await line() == "came bob { name: 'Bob' }"
        await wire.send("client-typing", {"who": "bob"}, channel="presence-room")
        assert await line() == "typing { who: 'bob' }"


async def test_echo_and_the_library_for_python_as_they_are_printed(app):
    async with script(app, "Laravel") as line:
        await eventually(lambda: app.manager.channels == {"news": 1})
        text = pages.block(PAGE, "Python, and any other backend", "python").replace("8765", str(app.port))
        names = {}
        await asyncio.to_thread(exec, text, names)
        assert await line() == "news { text: 'hello' }"
        signed = names["authorize"]("presence-room", "1.2", {"id": 1, "name": "Ann"})
        assert signed["auth"].startswith("app-key:")
        assert signed["channel_data"] == '{"user_id": 1, "user_info": {"name": "Ann"}}'


async def test_a_server_of_your_own_as_it_is_printed(dial_pusher):
    names = pages.run(pages.block(PAGE, "In a server of your own", "python").replace("sleep(1)", "sleep(0.01)"))
    running_it = asyncio.ensure_future(names["main"]())
    await eventually(lambda: names["server"].is_ready)
    wire = await dial_pusher(App(names["server"], names["news"], f"ws://127.0.0.1:{names['server'].port}"))
    await wire.subscribe("news")
    assert await wire.receive() == ("headline", "news", {"text": "hello"})
    running_it.cancel()
    await asyncio.wait((running_it,))


def test_the_configurations_are_ones(tmp_path):
    file, secret = tmp_path / "fastws.toml", tmp_path / "secret"
    secret.write_text("a secret of 16 characters or more")
    text = pages.block(PAGE, "Webhooks", "toml").replace("/run/secrets/fastws_pusher", str(secret))
    file.write_text(text)
    assert set(load(file, {}, {}).pusher.webhook_events) == set(Webhook.__args__)


@pytest.mark.skipif(shutil.which("php") is None and os.environ.get("CI") != "true", reason="optional: no php here")
def test_the_configuration_of_laravel_is_php():
    text = pages.block(PAGE, "Laravel", "php")
    assert "No syntax errors" in subprocess.run(["php", "-l"], input=text, capture_output=True, text=True).stdout
