"""fastws.js, driven from Python: in Node, and in pages of Chromium."""

import asyncio
import functools
import itertools
import json
import os
import shutil
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

import fastws

HERE = Path(__file__).parent
CLIENT = Path(fastws.__file__).parent / "client"
TIMEOUT = 20  # seconds

PAGE = """<!doctype html><meta charset="utf-8"><script type="module">
import * as fastws from "./fastws.js"
import { driver } from "./driver.mjs"
console.warn = (text) => tell({ event: "console", type: "warn", values: [text] })
addEventListener("error", (event) => tell({ event: "process", type: "uncaught", values: [event.error.message] }))
window.act = driver(fastws, (what) => tell(what))
tell({ event: "page", type: "ready", values: [] })
</script>"""


class Refusal(Exception):
    """What a promise was rejected with."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.__dict__.update(error)


class Driven:
    """A client that does what it is asked, and the events that its listeners hear."""

    def __init__(self):
        self.events = []
        self._answers = {}
        self._numbers = itertools.count(1)
        self._changed = asyncio.Event()

    async def _command(self, command):
        raise NotImplementedError

    def heard(self, what):
        if "answer" in what:
            self._answers.pop(what["answer"]).set_result(what)
        else:
            self.events.append((what["event"], what["type"], what["values"]))
            self._changed.set()

    def begin(self, *command):
        """Ask, and return what to await for the answer."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        sent = asyncio.ensure_future(self._command([number, *command]))

        async def answered():
            await sent
            what = await asyncio.wait_for(answer, TIMEOUT)
            if "error" in what:
                raise Refusal(what["error"])
            return what["value"]

        return asyncio.ensure_future(answered())

    async def ask(self, *command):
        return await self.begin(*command)

    async def do(self, name, method, *values):
        return await self.ask("do", name, method, *values)

    async def connect(self, url, name="ws", **options):
        await self.ask("connect", name, url, options)

    async def channel(self, channel, name=None, connection="ws", **options):
        await self.ask("channel", name or channel, connection, channel, options)

    async def until(self, source, kind, *values, **fields):
        """Wait for an event and return its values; it and those before it are passed over.

        `values` are those that it begins with, `fields` are among those of the first value that is an object.
        """

        def fits(event):
            if event[:2] != (source, kind) or event[2][: len(values)] != list(values):
                return False
            return not fields or any(isinstance(v, dict) and fields.items() <= v.items() for v in event[2])

        try:
            async with asyncio.timeout(TIMEOUT):
                while True:
                    for index, event in enumerate(self.events):
                        if fits(event):
                            del self.events[: index + 1]
                            return event[2]
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"no {source} {kind} {values} {fields} among {self.events}") from None

    async def state(self, state, source="ws", **fields):
        (event,) = await self.until(source, "state", state=state, **fields)
        return event

    def of(self, source, kind):
        return [values for each, name, values in self.events if (each, name) == (source, kind)]


class Node(Driven):
    def __init__(self, process):
        super().__init__()
        self._process = process

    async def _command(self, command):
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()

    async def read(self):
        while line := await self._process.stdout.readline():
            self.heard(json.loads(line))


@functools.cache
def what_node_lacks():
    """Why no client runs in Node; "" where one does. Before version 22 it has no WebSocket of its own."""
    if shutil.which("node") is None:
        return "node is not installed"
    if (HERE.parent / "interop" / "node" / "node_modules" / "ws").is_dir():
        return ""
    said = subprocess.run(["node", "-p", "typeof WebSocket"], capture_output=True, text=True, check=True).stdout
    return "" if said == "function\n" else "Node's ws is not installed: run npm install in tests/interop/node"


@asynccontextmanager
async def node(*flags):
    lack = what_node_lacks()
    if lack:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(lack)
    process = await asyncio.create_subprocess_exec(
        shutil.which("node"),
        *flags,
        str(HERE / "node.mjs"),
        str(CLIENT / "fastws.js"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    client = Node(process)
    reading = asyncio.create_task(client.read())
    try:
        yield client
    finally:
        process.stdin.close()
        await process.wait()
        await reading


class Page(Driven):
    def __init__(self, page):
        super().__init__()
        self.page = page

    async def _command(self, command):
        # What it returns is a promise that nobody has to wait for.
        await self.page.evaluate("(command) => void act(command)", command)


@asynccontextmanager
async def pages(browser):
    """Gives a function that opens a page with the driver in it."""
    app = web.Application()

    def file(path, kind):
        async def answer(request):
            return web.Response(text=path if isinstance(path, str) else path.read_text(), content_type=kind)

        return answer

    app.router.add_get("/", file(PAGE, "text/html"))
    app.router.add_get("/fastws.js", file(CLIENT / "fastws.js", "text/javascript"))
    app.router.add_get("/driver.mjs", file(HERE / "driver.mjs", "text/javascript"))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    opened = []

    async def open_page():
        page = await browser.new_page()
        opened.append(page)
        client = Page(page)
        await page.expose_function("tell", client.heard)
        await page.goto(f"http://127.0.0.1:{port}/")
        await client.until("page", "ready")
        return client

    try:
        yield open_page
    finally:
        for page in opened:
            await page.close()
        await runner.cleanup()
