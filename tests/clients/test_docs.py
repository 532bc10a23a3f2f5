"""docs/clients.md: each of its blocks does what it says, at a real server."""

import asyncio
import os
import re
import shutil
import textwrap

import pytest
import pytest_asyncio

from fastws.answers import Answer
from fastws.command.settings import load

from .conftest import CHROMIUM, CI
from .js import HERE, TIMEOUT
from .real import create, token_of
from .test_package import PACKAGE, needs_npm

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = HERE.parent.parent / "docs" / "clients.md"
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))
HOST = "ws://127.0.0.1:8765"

# React without a browser; the block's JSX is compiled by TypeScript.
HARNESS = """
import { writeFileSync } from "node:fs"
import { Window } from "happy-dom"
import { StrictMode, createElement } from "react"
import typescript from "typescript"
import WebSocket from "ws"

const window = new Window()
const globals = { window, document: window.document, navigator: window.navigator, WebSocket }
for (const [name, value] of Object.entries(globals)) {
  Object.defineProperty(globalThis, name, { value, configurable: true })
}
const compilerOptions = { jsx: "react-jsx", module: "esnext", target: "es2022" }
const { outputText } = typescript.transpileModule(process.env.BLOCK, { compilerOptions })
const file = new URL("block.mjs", import.meta.url)
writeFileSync(file, outputText)
const { App } = await import(file)
const { createRoot } = await import("react-dom/client")
createRoot(document.body).render(createElement(StrictMode, null, createElement(App)))
const button = () => document.querySelector("button:not([disabled])")
while (!button()) await new Promise((resolve) => setTimeout(resolve, 10))
button().click()
while (!document.querySelector("li")) await new Promise((resolve) => setTimeout(resolve, 10))
console.log(document.body.textContent)
process.exit()
"""


@pytest_asyncio.fixture(loop_scope="module")
async def server():
    async with create() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def copied():
    if shutil.which("node"):
        await (await asyncio.create_subprocess_exec(shutil.which("node"), str(PACKAGE / "copy.js"))).wait()


async def run(script, folder=PACKAGE, **environment):
    """Run a module in the package's folder, where its names are known; returns what it says."""
    path = folder / f".docs-{os.getpid()}.mjs"
    path.write_text(script)
    try:
        process = await asyncio.create_subprocess_exec(
            shutil.which("node"),
            str(path),
            env={**os.environ, **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await asyncio.wait_for(process.communicate(), 60))[0].decode()
    finally:
        path.unlink()
    assert process.returncode == 0, output
    return output


@needs_npm
async def test_javascript(server):
    block = BLOCKS["js"].replace(HOST, f"ws://127.0.0.1:{server.port}")
    ws = 'import WebSocket from "ws"\nglobalThis.WebSocket ??= WebSocket\n'
    said = await run(ws + block, TOKEN=token_of("ann"))
    for line in ("open null", "load what is shown: new", "ann { text: 'hi' }", "user: 'ann'", "devices: 1", "\n3\n"):
        assert line in said, said
    assert "no_recipient none of those named is in the channel false" in said
    assert "to the others" not in said
    assert said.rstrip().endswith("closed 1000")


@needs_npm
async def test_react(server):
    block = BLOCKS["jsx"].replace(HOST, f"ws://127.0.0.1:{server.port}").replace("/ws", "/ws?user=ann")
    harness = HARNESS.replace("block.mjs", f".block-{os.getpid()}.mjs")
    try:
        said = await run(harness, BLOCK=block)
    finally:
        (PACKAGE / f".block-{os.getpid()}.mjs").unlink(missing_ok=True)
    assert "open" in said
    assert "ann: hi" in said


async def test_python(server, capsys, monkeypatch):
    monkeypatch.setenv("TOKEN", token_of("ann"))
    block = textwrap.dedent(BLOCKS["python"]).replace(HOST, f"ws://127.0.0.1:{server.port}")
    block = block.replace("asyncio.run(main())", "")
    names = {}
    exec(compile(block, str(PAGE), "exec"), names)
    await asyncio.wait_for(names["main"](), TIMEOUT)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("ann {'text': 'hi'} ")
    assert (second, third) == ("3", "no_recipient none of those named is in the channel False")


async def test_the_page(browser, server):
    if browser is None:
        assert CHROMIUM is None, "playwright is missing"
        assert not CI, "chromium is missing"
        pytest.skip("chromium is not installed")
    server.options.http.add("GET", "/chat", lambda request: Answer(200, BLOCKS["html"], {"Content-Type": "text/html"}))
    pages = [await browser.new_page() for _ in range(2)]
    for page in pages:
        await page.goto(f"http://127.0.0.1:{server.port}/chat")
        await page.locator("#state", has_text="open").wait_for()
    await pages[0].locator("#text").fill("hello")
    await pages[0].locator("#text").press("Enter")
    for page in pages:
        await page.locator("li", has_text="hello").wait_for()
        await page.close()


@pytest.mark.asyncio(loop_scope="module")
async def test_every_block_is_one_of_those_that_are_tested():
    found = re.findall(r"^```(\w+)$", PAGE.read_text(), re.MULTILINE)
    assert sorted(found) == sorted(BLOCKS) == ["html", "js", "jsx", "python", "toml"]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_rule_allows_what_the_blocks_do(tmp_path):
    file = tmp_path / "fastws.toml"
    file.write_text(BLOCKS["toml"])
    (rule,) = load(file, {}, {}).channels
    assert (rule.subscribe, rule.publish, rule.whisper, rule.presence) == ("anyone", "member", "member", True)
