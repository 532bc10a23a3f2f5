"""docs/howto/backends.md: the same conversation with each backend of the page, run as it is printed."""

import asyncio
import os
import re
import shutil
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from fastws.command.settings import load
from fastws.hooks import shapes
from fastws.standalone import create_server
from fastws.testing import running

from ..lib import pages
from ..lib.raw import TIMEOUT
from ..lib.support import unused_port
from ..lib.v1 import Client as V1
from ..lib.v1 import connect

PAGE = pages.DOCS / "howto" / "backends.md"
BLOCKS = pages.blocks(PAGE)
STANDINS = Path(__file__).parent / "standins"
(FILE,) = [block.text for block in BLOCKS if block.language == "toml"]
ENVIRONMENT = {
    "FASTWS_SECRET": re.search(r'secret = "(.+?)"', FILE)[1],
    "FASTWS_KEY": re.search(r'key = "(.+?)"', FILE)[1],
    "SECRET_KEY": "a secret of the shop",
}


def part(title, language, number=0):
    return pages.block(PAGE, title, language, number)


@asynccontextmanager
async def serving(folder, backend, port=0):
    """The server of the page's file, whose backend is at a port."""
    file = folder / "fastws.toml"
    file.write_text(FILE.replace("127.0.0.1:8500", f"127.0.0.1:{backend}"))
    server = create_server(load(file, {}, {"port": port}))
    async with running(server) as url:
        yield url


@asynccontextmanager
async def started(command, port, **environment):
    """A backend in a process of its own, once it listens; its log is what it says at last."""
    tool = "go" if command[0] == "bash" else command[0]
    if shutil.which(tool) is None:
        pytest.skip(f"optional: {tool} is not installed")
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(pages.ROOT), "PYTHONUNBUFFERED": "1", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    log = []

    async def read():
        while line := await process.stdout.readline():
            log.append(line.decode())

    reading = asyncio.ensure_future(read())
    try:
        async with asyncio.timeout(60):  # `go run` compiles
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    assert process.returncode is None, "".join(log)
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield log
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        async with asyncio.timeout(TIMEOUT):
            await reading


def php(folder, port, api):
    (folder / "shop.php").write_text(at(part("PHP", "php"), port, api))
    return ["php", "-d", "display_errors=stderr", "-S", f"127.0.0.1:{port}", str(folder / "shop.php")], {}


def laravel(folder, port, api):
    (folder / "web.php").write_text(at(part("Laravel", "php"), port, api))
    return ["php", "-S", f"127.0.0.1:{port}", str(STANDINS / "laravel.php")], {"ROUTES": str(folder / "web.php")}


def rails(folder, port, api):
    files = [folder / "fastws.rb", folder / "fastws_controller.rb"]
    for number, file in enumerate(files):
        file.write_text(at(part("Ruby on Rails", "ruby", number), port, api))
    return ["ruby", "-w", str(STANDINS / "rails.rb"), *map(str, files), str(port)], {}


def go(folder, port, api):
    (folder / "shop.go").write_text(at(part("Go", "go"), port, api))
    built, source = str(folder / "shop"), str(folder / "shop.go")
    return ["bash", "-ec", f"go build -o {built} {source} && exec {built}"], {
        "HOME": str(folder),
        "GOFLAGS": "-mod=mod",
    }


def node(folder, port, api):
    (folder / "shop.mjs").write_text(at(part("Node", "js"), port, api))
    return ["node", str(folder / "shop.mjs")], {}


def dotnet(folder, port, api):
    (folder / "Program.cs").write_text(at(part(".NET", "csharp"), port, api))
    project = '<Project Sdk="Microsoft.NET.Sdk.Web"><PropertyGroup><TargetFramework>net8.0</TargetFramework>'
    project += "<ImplicitUsings>enable</ImplicitUsings><Nullable>enable</Nullable></PropertyGroup></Project>"
    (folder / "shop.csproj").write_text(project)
    return ["dotnet", "run", "--project", str(folder)], {"DOTNET_CLI_HOME": str(folder)}


def flask(folder, port, api):
    (folder / "shop.py").write_text(at(part("Flask", "python"), port, api))
    return [sys.executable, str(folder / "shop.py")], {}


def at(text, port, api):
    """A program of the page, with ports that are free."""
    return re.sub(r"\b8500\b", str(port), text).replace("127.0.0.1:8765", f"127.0.0.1:{api}")


async def dial(url, cookie=None, **options):
    """A client of fastws.v1 that offers it, and so hears why it is refused."""
    headers = {"Origin": "https://shop.example.org", **({} if cookie is None else {"Cookie": cookie})}
    return V1(await connect(f"{url}/ws", subprotocols=["fastws.v1"], additional_headers=headers, **options))


@pytest.mark.parametrize("backend", [php, laravel, rails, go, node, dotnet, flask], ids=lambda made: made.__name__)
async def test_a_backend_decides_publishes_logs_out_and_is_told(backend, tmp_path):
    with unused_port() as port, unused_port() as api:
        command, environment = backend(tmp_path, port, api)
        async with started(command, port, **environment) as log, serving(tmp_path, port, api) as url:
            front = f"http://127.0.0.1:{port}"
            async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
                code, reason = await (await dial(url)).closed()
                assert (code, reason.partition(" (")[0]) == (4403, "log in first"), "".join(log)
                async with http.post(f"{front}/fastws", data=b'{"event": "connect"}') as forged:
                    assert forged.status == 401
                async with http.post(f"{front}/login", data={"user": "ann"}) as response:
                    assert response.status == 200, await response.text()
                ann = await dial(url, cookies_of(http))
                await ann.hello(channels={"orders": None})
                assert ann.welcome["user"] == "ann"
                async with http.post(f"{front}/order") as response:
                    assert response.status == 200, await response.text()
                assert (await ann.receive())["message"] == {"order": 7}
                async with http.post(f"{front}/logout") as response:
                    assert response.status == 200, await response.text()
                assert (await ann.closed())[0] == 4001
                assert (await (await dial(url, cookies_of(http))).closed())[0] == 4403
                async with asyncio.timeout(TIMEOUT):
                    while not told(log, "online"):
                        await asyncio.sleep(0.02)


def cookies_of(http):
    return "; ".join(f"{cookie.key}={cookie.value}" for cookie in http.cookie_jar)


def told(log, state):
    return any(re.search(rf"\bann is {state}\b", line) for line in log)


async def test_a_server_in_python_reads_the_cookie_of_flask(join, monkeypatch):
    import flask

    monkeypatch.setenv("SECRET_KEY", ENVIRONMENT["SECRET_KEY"])
    server = pages.run(part("Flask", "python", 1))["server"]
    app = flask.Flask("shop")
    app.secret_key = ENVIRONMENT["SECRET_KEY"]

    @app.post("/login")
    def log_in():
        flask.session["user"] = "ann"
        return ""

    cookie = app.test_client().post("/login").headers["Set-Cookie"].partition(";")[0]
    async with running(server) as url:
        client = await join(f"{url}/ws/orders", headers=[("Origin", "https://shop.example.org"), ("Cookie", cookie)])
        assert server.endpoints["/ws/{channel}"].broadcast("orders", "hi", users=["ann"]) == 1
        assert await client.receive() == "hi"


CELERY = """
import json, shop
shop.app.conf.task_always_eager = True
print(shop.shipped.delay(7, "ann").get())
"""


async def test_a_task_of_celery_and_curl_publish(tmp_path):
    with unused_port() as port, unused_port() as api:
        command, environment = node(tmp_path, port, api)
        async with started(command, port, **environment), serving(tmp_path, port, api) as url:
            async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
                await http.post(f"http://127.0.0.1:{port}/login", data={"user": "ann"})
                ann = await dial(url, cookies_of(http))
            await ann.hello(channels={"orders": None})
            (tmp_path / "shop.py").write_text(at(part("Celery and scripts", "python"), port, api))
            for number, run in enumerate(([sys.executable, "-c", CELERY], ["bash", "-ec", at(curl(), port, api)])):
                process = await asyncio.create_subprocess_exec(
                    *run,
                    cwd=tmp_path,
                    env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(pages.ROOT)},
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                )
                out, err = await process.communicate()
                assert process.returncode == 0, err.decode()
                assert b"1" in out
                message = {"order": 7, "state": "shipped"} if number == 0 else {"order": 7}
                assert (await ann.receive())["message"] == message
            await ann.ws.close()


def curl():
    (text,) = [block.text for block in BLOCKS if block.language == "sh"]
    return text


def test_what_cannot_run_everywhere_uses_the_names_of_the_others():
    """Of C#: the routes, the fields of the signature, and the keys that fastws knows."""
    text = part(".NET", "csharp")
    assert set(re.findall(r'PostAsJsonAsync\("(\w+)"', text)) == {"broadcast", "close"}
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature", "X-API-Key", "FASTWS_KEY", "FASTWS_SECRET"):
        assert f'"{name}"' in text
    answered = set(re.findall(r"Results\.Json\(new \{ (\w+)", text))
    assert answered - {"error"} <= set(shapes.ConnectAnswer.__struct_fields__)
    assert text.count("{") == text.count("}")
    assert text.count("(") == text.count(")")


def test_every_block_is_one_of_those_that_are_tested():
    found = {(block.part, block.language) for block in BLOCKS}
    languages = ["php", "php", "ruby", "go", "js", "csharp", "python", "python"]
    titles = ["PHP", "Laravel", "Ruby on Rails", "Go", "Node", ".NET", "Flask", "Celery and scripts"]
    more = {("Backends", "toml"), ("Backends", "js"), ("Celery and scripts", "sh")}
    assert found == {*zip(titles, languages, strict=True)} | more
