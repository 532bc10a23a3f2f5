"""Fixtures: `serve` starts a server for the test, `join` connects a client, `dial` a raw socket."""

import os
import socket
import ssl
from contextlib import AsyncExitStack

import hypothesis
import pytest
import uvloop

from fastws import Listener, Server
from fastws.testing import connect, running

from .lib.command import APP
from .lib.raw import TIMEOUT, Raw
from .lib.support import CERTIFICATE, Site, unused_port

# How long an example takes says more about the machine than about the code. (Hypothesis has no deadline in CI, either.)
hypothesis.settings.register_profile("untimed", deadline=None)
if "CI" not in os.environ:
    hypothesis.settings.load_profile("untimed")

# These take longest, or share what takes long to build.
FIRST = ("tests/house/test_package.py", "tests/protocol/test_autobahn.py", "tests/soak/")


def pytest_collection_modifyitems(items):
    """One of the workers of pytest-xdist begins with them, so that none is left with them at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def serve():
    """`await serve(listener, path, **server_options)` starts a server with one endpoint."""
    async with AsyncExitStack() as servers:

        async def start(listener=None, path="/ws/{channel}", **options) -> Site:
            server = Server(port=0, **options)
            manager = server.endpoint(path, listener or Listener())
            return Site(server, manager, await servers.enter_async_context(running(server)))

        yield start


@pytest.fixture
async def join(serve):
    """`await join(url, ...)` is a client that closes after the test, before its server stops."""
    async with AsyncExitStack() as clients:

        async def enter(url, **options):
            return await clients.enter_async_context(connect(url, **{"timeout": TIMEOUT, **options}))

        yield enter


@pytest.fixture
async def dial(serve):
    """`await dial(url)` is a raw socket; with `target` it opens a WebSocket at that path."""
    opened = []

    async def call(url, target=None, receive_buffer=None) -> Raw:
        raw = await Raw.open(url, receive_buffer=receive_buffer)
        opened.append(raw)
        if target is not None:
            await raw.upgrade(target)
        return raw

    yield call
    for raw in opened:
        raw.close()


@pytest.fixture
def server_side():
    """A TLS context for a server."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    return context


@pytest.fixture
def client_side():
    """A TLS context for a client, which trusts that server."""
    return ssl.create_default_context(cafile=CERTIFICATE)


@pytest.fixture(params=["epoll", "transport"])
def wire(request, monkeypatch):
    """Both kinds of wire must give the same answers."""
    if request.param == "transport":
        monkeypatch.setattr("fastws.server.has_epoll", False)


@pytest.fixture(params=["epoll", "tls", "no epoll"])
def any_wire(request, monkeypatch):
    """Options of the server and the client for each kind of wire, including TLS."""
    if request.param == "no epoll":
        monkeypatch.setattr("fastws.server.has_epoll", False)
    if request.param != "tls":
        return {}, {}
    return {"ssl": request.getfixturevalue("server_side")}, {"ssl": request.getfixturevalue("client_side")}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The test runs in its own folder, with an application in app.py and no options in the environment."""
    tmp_path.joinpath("app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("FASTWS_", "LISTEN_"))]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def unused_tcp_port():
    """A port where nobody listens unless the test does."""
    with unused_port() as port:
        yield port


@pytest.fixture
def listening():
    """A listening TCP socket that somebody else opened."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as sock:
        yield sock
