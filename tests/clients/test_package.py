"""clients/js: its own tests, its types, and what is in the package."""

import asyncio
import json
import os
import shutil
import tomllib

import pytest

import fastws
from fastws import History

from .conftest import CI
from .js import CLIENT, HERE
from .real import create

ROOT = HERE.parent.parent
PACKAGE = ROOT / "clients" / "js"
IS_INSTALLED = (PACKAGE / "node_modules" / "react").is_dir()

needs_npm = pytest.mark.skipif(not IS_INSTALLED and not CI, reason="clients/js has no node_modules: run make test")


async def run(*command, **environment):
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=PACKAGE,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.fixture
async def copied():
    await run(shutil.which("node"), "copy.js")


def test_its_version_is_that_of_the_server():
    version = json.loads((PACKAGE / "package.json").read_text())["version"]
    assert version == fastws.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@needs_npm
async def test_react_itself_is_content():
    async with create(logs={"kept-*": History()}) as server:
        output = await run(shutil.which("npm"), "test", "--silent", FASTWS_URL=f"ws://127.0.0.1:{server.port}/ws")
    assert "# fail 0" in output
    assert "# pass 0" not in output


@needs_npm
async def test_the_types_are_those_of_a_program_that_uses_them(copied):
    await run(str(PACKAGE / "node_modules" / ".bin" / "tsc"), "--project", ".")


@needs_npm
async def test_the_package_holds_the_one_script_and_nothing_of_the_tests(copied):
    packed = json.loads(await run(shutil.which("npm"), "pack", "--dry-run", "--json", "--ignore-scripts", "--silent"))
    names = {file["path"] for file in (packed[0] if isinstance(packed, list) else packed["fastws-client"])["files"]}
    assert names == {"LICENSE", "fastws.js", "fastws.d.ts", "README.md", "package.json", "react.js", "react.d.ts"}
    assert (PACKAGE / "fastws.js").read_bytes() == (CLIENT / "fastws.js").read_bytes()
