"""The first commands of README.md and docs/start.md take a stranger from nothing to a message in a browser."""

import asyncio
import re
import shlex
import socket
import subprocess

import pytest

from ..lib.command import TIMEOUT, serving
from .conftest import ROOT

PORT = "8765"  # of the pages; the tests take one that is free


def commands(page):
    """The lines of the first block of a page's part "Start"; what is behind # is for people."""
    text = (ROOT / page).read_text()
    part = re.split(r"^#+ Start$", text, maxsplit=1, flags=re.MULTILINE)[1]
    block = re.search(r"```sh\n(.*?)```", part, re.DOTALL)[1]
    return [line.partition("  #")[0].strip() for line in block.splitlines()]


def sh(line):
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=TIMEOUT, check=False)


def use(port, *paths):
    for path in paths:
        path.write_text(path.read_text().replace(PORT, port))


@pytest.mark.parametrize("document", ["README.md", "docs/start.md"])
async def test_three_commands_end_in_a_message_in_a_browser(document, folder, page, unused_tcp_port):
    init, serve, publish = commands(document)
    assert sh(init).returncode == 0
    use(str(unused_tcp_port), folder / "fastws.toml", folder / "fastws.html")
    *command, subcommand = shlex.split(serve)
    with serving(command=command, subcommand=subcommand) as (server, line):
        assert line.startswith(f"fastws listening on http://127.0.0.1:{unused_tcp_port}")
        await page.goto((folder / "fastws.html").as_uri())
        await page.wait_for_function("document.querySelector('#state').textContent.includes('open')")
        async with asyncio.timeout(TIMEOUT):
            while (said := await asyncio.to_thread(sh, publish)).stdout != "1 connection\n":
                assert (said.returncode, said.stdout) == (0, "0 connections\n"), said
        await page.wait_for_function("document.querySelector('#news').textContent.includes('hello')")
        (by_curl,) = re.findall(r"^curl .*$", (ROOT / "docs" / "start.md").read_text(), re.MULTILINE)
        said = await asyncio.to_thread(sh, by_curl.replace(PORT, str(unused_tcp_port)))
        assert said.stdout == '{"connections":1}'
        await page.wait_for_function("document.querySelectorAll('#news li').length == 2")
        server.terminate()
        _, err = await asyncio.to_thread(server.communicate)
    assert (server.returncode, err) == (0, "")


def test_nothing_configured_says_what_to_do(folder):
    said = sh("fastws serve")
    assert (said.returncode, said.stdout) == (2, "")
    assert "fastws demo" in said.stderr
    assert "fastws init" in said.stderr


def test_the_port_that_is_taken_is_named(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sh("fastws init")
        said = sh(f"fastws serve --port {port}")
    assert (said.returncode, said.stderr) == (1, f"fastws: cannot listen on 127.0.0.1:{port}: Address already in use\n")


def test_a_page_that_is_there_stays(folder):
    (folder / "fastws.html").write_text("mine")
    assert sh("fastws init").returncode == 0
    assert (folder / "fastws.html").read_text() == "mine"
