"""`/healthz` and `/readyz`."""

import asyncio

import pytest
from websockets.exceptions import ConnectionClosedError

from fastws import ConfigurationError
from fastws.command.settings import Settings, TopLevel, load
from fastws.hooks import HookSettings
from fastws.life.admission import SPARE
from fastws.standalone import create_server
from tests.hooks.conftest import answers, reply
from tests.lib.raw import Raw
from tests.lib.support import Holding, eventually

NEEDS_HOOKS = TopLevel(ready_needs_hooks=True)


async def test_a_server_that_runs_is_alive_and_ready(serve):
    site = await serve(metrics=None)
    alive, ready = await site.get("/healthz"), await site.get("/readyz")
    assert (alive.status, alive.text) == (200, '{"status":"ok"}')
    assert (ready.status, ready.text) == (200, '{"ready":true}')
    assert alive.headers["cache-control"] == "no-store"


async def test_they_answer_while_the_server_is_full(serve):
    site = await serve(options={"port": 0, "max_connections": 1})
    await site.join()
    assert (await site.get("/fastws.js")).status == 503
    assert (await site.get("/healthz")).status == 200
    assert (await site.get("/readyz")).status == 200


async def test_metrics_answer_while_the_server_is_full(serve):
    site = await serve(options={"port": 0, "max_connections": 1})
    await site.join()
    assert (await site.scrape())["fastws_connections", "/ws"] == 1
    assert (await site.get("/fastws.js")).status == 503
    with pytest.raises(ConnectionClosedError, match="the server is full"):
        await site.join()


async def test_who_fills_the_server_further_with_scrapes_is_refused(serve):
    site = await serve(options={"port": 0, "max_connections": 1})
    await site.join()
    raws = [await Raw.open(site.url) for _ in range(SPARE + 1)]
    assert [await ask(raw, "/metrics") for raw in raws] == [*[200] * SPARE, 503]
    for raw in raws:
        raw.close()


async def ask(raw, path):
    """The status of a GET on a connection that stays."""
    await raw.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return (await raw.response()).status


async def test_a_server_that_stops_is_alive_and_not_ready(serve):
    site = await serve()
    held = Holding()
    site.server.endpoint("/held", held)
    raw = await Raw.open(site.url)
    assert await ask(raw, "/fastws.js") == 200  # which hands the connection over to HTTP, where it stays
    assert await ask(raw, "/readyz") == 200
    stopping = asyncio.ensure_future(site.server.stop())
    async with asyncio.timeout(10):
        await held.draining.wait()
    assert await ask(raw, "/readyz") == 503
    assert await ask(raw, "/healthz") == 200
    held.release.set()
    await stopping
    raw.close()


@pytest.mark.parametrize("needs", [False, True])
async def test_a_backend_counts_only_where_it_is_asked_for(serve, backend, needs):
    answers(backend, connect={"user": "ann"})
    hooks = HookSettings(url=backend.url, ask=("connect",), tell=(), heartbeat=0)
    site = await serve(hooks=hooks, top=TopLevel(ready_needs_hooks=needs))
    figures = site.manager.listener.backend.figures
    assert (await site.get("/readyz")).status == 200
    await site.join()
    backend.says(reply(500))
    assert (await site.get("/ws", Upgrade="websocket", Connection="Upgrade")).status in (400, 426, 503)
    await backend.stop()
    client = await site.dial()
    assert (await client.closed())[0] == 4503
    await eventually(lambda: not figures.is_reachable)
    assert (await site.get("/readyz")).status == (503 if needs else 200)
    assert (await site.get("/healthz")).status == 200
    await backend.start()
    answers(backend, connect={"user": "ann"})
    await site.join()
    assert (await site.get("/readyz")).status == 200


def test_hooks_that_are_not_there_cannot_be_needed():
    with pytest.raises(ConfigurationError, match=r"ready_needs_hooks=True needs \[hooks\]"):
        create_server(Settings(top=NEEDS_HOOKS))


def test_the_file_says_so(tmp_path):
    file = tmp_path / "fastws.toml"
    file.write_text("ready_needs_hooks = true\n")
    assert load(file, {}, {}).ready_needs_hooks is True
    assert load(file, {"FASTWS_READY_NEEDS_HOOKS": "false"}, {}).ready_needs_hooks is False
