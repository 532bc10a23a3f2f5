"""Fixtures: `open_site` starts a server with the application `app`, `dial_http` connects to it."""

import asyncio

import pytest

from ..lib.http import GET, MAX, App, Peer
from ..lib.support import Echo, eventually, nothing_left


@pytest.fixture
async def app():
    return App()


@pytest.fixture
async def open_site(serve, any_wire, app):
    """`await open_site(listener, **options)`: a server with the application; in the end all its places are free."""
    sites = []

    async def start(listener=None, **options):
        options = {"max_connections_per_ip": 100, "max_header_size": MAX, **any_wire[0], **options}
        sites.append(await serve(listener or Echo(), http=app.asgi, **options))
        return sites[-1]

    yield start
    for site in sites:
        await eventually(lambda site=site: nothing_left(site) and site.server._admission.http.connection_count == 0)


@pytest.fixture
async def dial_http(open_site, any_wire):
    """`await dial_http(site)` is a Peer that leaves after the test; `kept_alive`: after one request."""
    peers = []

    async def call(site, kept_alive=True, **options):
        peer = Peer(*await asyncio.open_connection("127.0.0.1", site.server.port, **any_wire[1], **options))
        peers.append(peer)
        if kept_alive:
            await peer.send(GET)
            assert (await peer.answer())[0] == 200
        return peer

    yield call
    for peer in peers:
        peer.leave()
