"""docs/howto/frontends.md: each page and component shows what was said, in Chromium or in a DOM of Node."""

import asyncio
import os
import re
import shutil
import textwrap
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from fastws.answers import Answer
from fastws.command.settings import load
from fastws.standalone import create_server
from fastws.testing import running

from ..clients import test_docs as clients
from ..clients.js import CLIENT
from ..clients.test_package import needs_npm
from ..lib import pages
from ..lib.raw import TIMEOUT
from ..lib.tab import CHROMIUM, CI, async_playwright, expect

PAGE = pages.DOCS / "howto" / "frontends.md"
BLOCKS = pages.blocks(PAGE)
NODE = Path(__file__).parent / "node"
MODULES = NODE / "node_modules"
HOST = "wss://example.org"
UNPKG = re.compile(r"https://unpkg\.com/(@?[^@\"]+)@\d+/([^\"]+)")
(FILE,) = [block.text for block in BLOCKS if block.language == "toml"]
KEY = re.search(r'key = "(.+?)"', FILE)[1]

needs_modules = pytest.mark.skipif(not MODULES.is_dir() and not CI, reason="optional: npm is not there to install them")
needs_chromium = pytest.mark.skipif(CHROMIUM is None and not CI, reason="optional: chromium is not installed")


def part(title, language, number=0):
    return pages.block(PAGE, title, language, number)


@pytest.fixture
async def server(tmp_path):
    """The server of the page's file."""
    (tmp_path / "fastws.toml").write_text(FILE)
    server = create_server(load(tmp_path / "fastws.toml", {}, {"port": 0}))
    async with running(server):
        yield server


@pytest_asyncio.fixture
async def page(server):
    """`await page(html)` is a tab of Chromium with that page, which the server serves; what it loads is from npm."""
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)

        async def show(html):
            web, errors = server.options.http, []
            for name, path in set(UNPKG.findall(html)):
                script = Answer(200, (MODULES / name / path).read_bytes(), {"Content-Type": "text/javascript"})
                web.add("GET", f"/npm/{name}/{path}", lambda request, script=script: script)
            html = UNPKG.sub(r"/npm/\1/\2", html).replace(HOST, f"ws://127.0.0.1:{server.port}")
            web.add("GET", "/page", lambda request: Answer(200, html, {"Content-Type": "text/html"}))
            tab = await browser.new_page()
            tab.on("pageerror", lambda error: errors.append(error))
            await tab.goto(f"http://127.0.0.1:{server.port}/page")
            assert errors == []
            return tab

        yield show
        await browser.close()


async def publish(title, server):
    """What the page has curl publish, once somebody is there to hear it."""
    managers = server.endpoints.values()
    async with asyncio.timeout(TIMEOUT):
        while not any(manager.channels.get("news") for manager in managers):
            await asyncio.sleep(0.01)
    text = part(title, "sh").replace("127.0.0.1:8765", f"127.0.0.1:{server.port}")
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-ec",
        text,
        env={**os.environ, "KEY": KEY},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert out == b'{"connections":1}', out + err


@needs_chromium
async def test_no_build_step(page):
    tab = await page(part("No build step", "html"))
    await expect(tab.locator("#state")).to_contain_text("open")
    await tab.locator("#text").fill("<b>hello</b>")
    await tab.locator("#text").press("Enter")
    await expect(tab.locator("li")).to_have_text("<b>hello</b>")


@needs_modules
@needs_chromium
async def test_htmx(page, server):
    tab = await page(part("htmx", "html"))
    await publish("htmx", server)
    await expect(tab.locator("#news li")).to_have_text("It rains")


@needs_modules
@needs_chromium
@pytest.mark.parametrize("with_client", [False, True], ids=["by its own element", "by the client"])
async def test_turbo(page, server, with_client):
    html = part("Turbo", "html")
    if with_client:
        html = re.sub(r"<turbo-stream-source.*\n", "", html) + part("Turbo", "html", 1)
    tab = await page(html)
    await publish("Turbo", server)
    await expect(tab.locator("#news li")).to_have_text("It rains")


def at(text, server):
    """A block with the server that there is, and with the client that is here."""
    text = text.replace(HOST, f"ws://127.0.0.1:{server.port}")
    return text.replace('"fastws-client"', f'"{CLIENT / "fastws.js"}"')


@asynccontextmanager
async def folder_of_modules(name):
    """A folder from which Node finds the modules."""
    folder = NODE / f".{name}-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


async def node(*arguments):
    process = await asyncio.create_subprocess_exec(
        "node", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output = (await asyncio.wait_for(process.communicate(), 2 * TIMEOUT))[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, output
    return output


@needs_modules
@pytest.mark.parametrize(("kind", "language"), [("vue", "vue"), ("svelte", "html")])
async def test_a_component(server, kind, language):
    async with folder_of_modules(kind) as folder:
        (folder / "channel.js").write_text(at(part(kind.title(), "js"), server))
        (folder / f"Cars.{kind}").write_text(part(kind.title(), language))
        said = await node("--conditions", "browser", str(NODE / "mount.mjs"), kind, str(folder))
    assert said == "open hi\n"


@needs_npm
async def test_react(server):
    process = await asyncio.create_subprocess_exec("node", str(clients.PACKAGE / "copy.js"))
    assert await process.wait() == 0
    name = f".howto-{os.getpid()}.mjs"
    block = part("React", "jsx").replace(HOST, f"ws://127.0.0.1:{server.port}")
    try:
        said = await clients.run(clients.HARNESS.replace("block.mjs", name), BLOCK=block)
    finally:
        (clients.PACKAGE / name).unlink(missing_ok=True)
    assert "hi" in said


FOREGROUND = """
import { WebSocketServer } from "ws"
import WebSocket from "ws"
globalThis.WebSocket ??= WebSocket
const { connectAs } = await import("./app.mjs")
const { AppState } = await import("./react-native.mjs")

let tokens = 0
const server = new WebSocketServer({ port: 0 }, () => server.close())
const ws = connectAs(async () => `token ${++tokens}`)
await new Promise((resolve) => ws.on("state", ({ state }) => state === "closed" && resolve()))
const before = tokens
AppState.change("background")
AppState.change("active")
console.log(ws.state)
ws.close()
process.exit()
"""
REACT_NATIVE = """
export const AppState = { addEventListener(type, listener) { this[type] = listener } }
"""


@needs_modules
async def test_react_native(server):
    """What is here of React Native is its AppState; the token is none that this server takes."""
    async with folder_of_modules("native") as folder:
        app = at(part("React Native", "js"), server).replace('"react-native"', '"./react-native.mjs"')
        for name, text in (("app", app), ("react-native", REACT_NATIVE), ("main", FOREGROUND)):
            (folder / f"{name}.mjs").write_text(text)
        said = await node(str(folder / "main.mjs"))
    assert said == "connecting\n"


async def test_python(server, capsys):
    block = textwrap.dedent(part("Python", "python")).replace(HOST, f"ws://127.0.0.1:{server.port}")
    names = {}
    exec(compile(block.replace("asyncio.run(main())", ""), str(PAGE), "exec"), names)
    await asyncio.wait_for(names["main"](), TIMEOUT)
    assert capsys.readouterr().out == "None {'text': 'hi'}\n"


def test_every_block_is_one_of_those_that_are_tested():
    found = sorted((block.part, block.language) for block in BLOCKS)
    assert found == [
        ("Front ends", "toml"),
        ("No build step", "html"),
        ("Python", "python"),
        ("React", "jsx"),
        ("React Native", "js"),
        ("Svelte", "html"),
        ("Svelte", "js"),
        ("Turbo", "html"),
        ("Turbo", "html"),
        ("Turbo", "sh"),
        ("Vue", "js"),
        ("Vue", "vue"),
        ("htmx", "html"),
        ("htmx", "sh"),
    ]
