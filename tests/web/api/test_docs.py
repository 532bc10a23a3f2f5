"""docs/api.md: every shell block, and every language whose tool is here, does what it says."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastws import History, Latest
from fastws.testing import connect, running
from tests.lib.support import eventually
from tests.web.api.site import KEY, curl

PAGE = Path(__file__).parents[3] / "docs" / "api.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def blocks(language):
    return [text for kind, text in BLOCKS if kind == language]


async def run(site, text, *command, name):
    """Run a block against the server; what it prints."""
    await site.join("/raw/cars?user=ann")
    (ws,) = site.hub.user("ann")
    path = site.folder / name
    path.write_text(text.replace("127.0.0.1:8765", f"127.0.0.1:{site.server.port}"))
    process = await asyncio.create_subprocess_exec(
        *command,
        path,
        env={**os.environ, "KEY": KEY, "CONNECTION": ws.id, "GOCACHE": str(site.folder / "go")},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


@pytest.fixture
async def site(make_site):
    return await make_site(logs={"news": History(), "prices": Latest()})


@pytest.fixture
def folder(site, tmp_path):
    site.folder = tmp_path
    return tmp_path


def test_there_are_blocks_of_every_language():
    assert {kind for kind, _ in BLOCKS} == {"cfc", "csharp", "go", "js", "json", "php", "python", "ruby", "sh", "toml"}


@pytest.mark.parametrize("text", blocks("sh"))
async def test_a_shell_block_runs(site, folder, text):
    said = await run(site, text, "bash", "-e", name="block.sh")
    assert said.startswith("{")
    assert '{"error"' not in said


def test_every_route_has_a_line_of_curl():
    from fastws.web.operations import OPERATIONS

    lines = "\n".join(blocks("sh"))
    examples = {"name": "(cars|ann|news|prices)", "id": r"\$CONNECTION", "key": "AAPL"}
    for operation in OPERATIONS:
        path = re.sub(r"\{(\w+)\}", lambda match: examples[match[1]], operation.path)
        assert re.search(rf"/api{path}(?:['?\s]|$)", lines, re.MULTILINE), operation.path


def has_curl_extension():
    done = subprocess.run(["php", "-r", "echo function_exists('curl_init') ? 1 : 0;"], capture_output=True, check=False)
    return done.stdout == b"1"


LANGUAGES = [
    ("python", blocks("python")[1:], [sys.executable], "block.py"),
    ("js", blocks("js"), ["node"], "block.mjs"),
    ("php", blocks("php"), ["php"], "block.php"),
    ("ruby", blocks("ruby"), ["ruby"], "block.rb"),
    ("go", blocks("go"), ["go", "run"], "block.go"),
]


@pytest.mark.parametrize(
    ("text", "command", "name"),
    [
        pytest.param(text, command, name, id=f"{language}-{number}")
        for language, texts, command, name in LANGUAGES
        for number, text in enumerate(texts)
    ],
)
async def test_a_block_of_another_language_publishes(site, folder, text, command, name):
    if shutil.which(command[0]) is None:
        pytest.skip(f"optional: {command[0]} is not installed")
    if "curl_init" in text and not has_curl_extension():
        pytest.skip("optional: this PHP has no curl")
    said = await run(site, text, *command, name=name)
    assert re.search(r"\b1\b", said), said


def test_the_configuration_shown_is_valid():
    import tomllib

    import msgspec

    from fastws.web.api import ApiSettings

    shown = tomllib.loads(blocks("toml")[0])
    uncommented = re.sub(r"^# (\w+ =)", r"\1", blocks("toml")[0], flags=re.MULTILINE)
    for said in (shown, tomllib.loads(uncommented)):
        assert msgspec.convert(said["api"], ApiSettings).keys[0].name == "shop"


async def test_the_program_shown_serves(monkeypatch):
    monkeypatch.setenv("KEY", KEY)
    names = {"__name__": "page"}
    exec(blocks("python")[0].replace("8765", "0"), names)
    async with running(names["server"]) as url, connect(f"{url}/ws/cars") as client:
        await eventually(lambda: names["server"].endpoints["/ws/{channel}"].channels)
        status, _, said = await curl(
            "-H", f"X-API-Key: {KEY}", "-d", "hello, all", url.replace("ws:", "http:") + "/api/channels/cars"
        )
        assert (status, said) == (200, {"connections": 1})
        assert await client.receive() == "hello, all"
