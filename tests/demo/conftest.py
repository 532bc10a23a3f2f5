"""Fixtures: `server` is the demo; `enter` and `join` bring a user into its chat."""

from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect

import fastws.demo
from fastws.demo import create_server

from ..lib.chat import RELOAD, SECRET, Client, log_in


@pytest.fixture
async def server(monkeypatch):
    monkeypatch.setattr(fastws.demo, "RELOAD_SECONDS", RELOAD)
    async with create_server(port=0, secret=SECRET) as server:
        yield server


@pytest.fixture
async def opened(server):
    """Opens sockets, and closes them at the end."""
    sockets = []

    async def opened(path, cookie=None):
        headers = {"Cookie": cookie} if cookie else {}
        socket = await connect(f"ws://127.0.0.1:{server.port}{path}", additional_headers=headers)
        sockets.append(socket)
        return socket

    yield opened
    for opened_one in sockets:
        await opened_one.close()


@pytest.fixture
def enter(server, opened):
    """A tab with all messages from the welcome on, in the same browser as `tab` or in a new one."""

    async def enter(name, channel="cars", tab=None):
        cookie = tab.cookie if tab else await log_in(server, name)
        return Client(await opened(f"/ws/chat/{quote(channel, safe='')}", cookie), cookie)

    return enter


@pytest.fixture
def join(enter):
    """A tab that has received the list of its channel."""

    async def join(name, channel="cars", tab=None):
        client = await enter(name, channel, tab)
        await client.members(channel)
        return client

    return join
