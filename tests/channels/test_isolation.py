"""docs/architecture.md#isolation: endpoints and servers share nothing."""

import asyncio
import math

import pytest

from fastws import ConfigurationError, JWTAuth, Listener, Server
from fastws.testing import running

from ..lib.support import Echo, Named, Recorder


@pytest.fixture
async def pair(serve):
    """Two endpoints on one server, or two servers with the same path: (url, manager) of each."""
    one = await serve(Named(), "/one/{channel}")
    two = one.server.endpoint("/two/{channel}", Named())
    other = await serve(Named(), "/one/{channel}")
    return [
        (f"{one.url}/one", one.manager),
        (f"{one.url}/two", two),
        (f"{other.url}/one", other.manager),
    ]


async def test_channels_and_users_of_the_same_name_are_different_ones(pair, join):
    clients = [await join(f"{url}/cars?user=ann") for url, _ in pair]
    for client in clients:
        await client.ping()
    for number, (_, manager) in enumerate(pair):
        assert manager.broadcast("cars", f"b{number}") == 1
        assert manager.send_to_user("ann", f"u{number}") == 1
        assert len(manager.connections) == 1
        assert set(manager.users) == {"ann"}
        assert set(manager.channels) == {"cars"}
    for number, client in enumerate(clients):
        assert await client.received() == [f"b{number}", f"u{number}"]


async def test_ids_are_distinct_and_foreign_ids_are_nobody(pair, join):
    clients = [await join(f"{url}/cars") for url, _ in pair]
    for client in clients:
        await client.ping()
    ids = [next(iter(manager.connections)) for _, manager in pair]
    assert len(set(ids)) == 3
    for number, (_, manager) in enumerate(pair):
        foreign = [identity for identity in ids if identity != ids[number]]
        assert manager.send(foreign, "x") == 0
        assert manager.broadcast("cars", "x", to=foreign) == 0
        assert manager.broadcast("cars", "y", exclude=foreign) == 1
    assert [await client.received() for client in clients] == [["y"], ["y"], ["y"]]


async def test_a_foreign_connection_object_is_nobody(pair, join):
    clients = [await join(f"{url}/cars") for url, _ in pair]
    for client in clients:
        await client.ping()
    foreign = next(iter(pair[1][1].connections.values()))
    for _, manager in (pair[0], pair[2]):
        assert manager.send(foreign, "x") == 0
        assert manager.broadcast("cars", "x", to=foreign) == 0
        with pytest.raises(ValueError, match="endpoint"):
            manager.subscribe("cars", foreign)
        assert manager.broadcast("cars", "z") == 1
    assert [await client.received() for client in clients] == [["z"], [], ["z"]]


async def test_stopping_one_server_leaves_the_other(join):
    first, second = Server(port=0), Server(port=0)
    first.endpoint("/", Echo())
    second.endpoint("/", Echo())
    async with running(second) as url:
        client = await join(f"{url}/")
        async with running(first) as other:
            assert other != url
            gone = await join(f"{other}/")
        assert (await gone.closed())[0] == 1001
        await client.send("x")
        assert await client.receive() == "x"


async def test_state_is_each_servers_own_and_plain():
    first, second = Server(port=0), Server(port=0)
    first.state.database = "one"
    assert first.state.database == "one"
    assert not hasattr(second.state, "database")


async def test_one_listener_may_serve_two_endpoints(serve, join):
    shared = Recorder()
    site = await serve(shared, "/a/{channel}")
    second = site.server.endpoint("/b/{channel}", shared)
    await join(f"{site.url}/a/cars")
    await join(f"{site.url}/b/cars")
    await shared.until("on_subscribe", 2)
    assert [ws.manager for ws in shared.sockets] == [site.manager, second]
    assert shared.of("on_channel_open") == [("cars",), ("cars",)]


async def test_options_of_an_endpoint_override_the_servers(serve, join):
    site = await serve(Echo(), max_message_size=100)
    site.server.endpoint("/big", Echo(), max_message_size=1000)
    small, big = await join(f"{site.url}/ws/cars"), await join(f"{site.url}/big")
    await big.send("x" * 1000)
    assert await big.receive() == "x" * 1000
    await small.send("x" * 101)
    assert (await small.closed())[0] == 1009
    await big.send("x" * 1001)
    assert (await big.closed())[0] == 1009


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_message_size", 0),
        ("max_message_size", "1 MiB"),
        ("max_connections", -1),
        ("max_backlog", 0),
        ("overflow", "panic"),
        ("max_header_size", 0),
        ("port", 70000),
        ("port", "http"),
        ("flush_threads", 0),
        ("origins", "https://example.org"),
        ("subprotocols", "chat"),
    ],
)
def test_a_bad_option_is_refused_in_one_sentence_that_names_it(option, value):
    with pytest.raises((ValueError, TypeError), match=option) as refused:
        Server(**{"port": 0, option: value})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("max_message_size", True, "max_message_size=True must be a whole number"),
        ("max_message_size", 0, "max_message_size=0 is out of range: use 1 to 4,611,686,018,427,387,904"),
        ("max_connections", "many", "max_connections='many' must be a whole number"),
        ("max_connections", 0, "max_connections=0 is out of range: use 1 or more"),
        ("idle_timeout", None, "idle_timeout=None must be a number"),
        ("idle_timeout", math.nan, "idle_timeout=nan is out of range: use 0 or more"),
        ("close_timeout", 0, "close_timeout=0 is out of range: use 0.01 or more"),
        ("offline_after", 1e6, "offline_after=1000000.0 is out of range: use 0 to 86,400"),
        ("overflow", ["close"], "overflow=['close']: choose close, drop_oldest or drop_newest"),
        ("over_rate", None, "over_rate=None: choose pause or close"),
        ("restart", 1, "restart=1 must be True or False"),
        ("origins", 5, "origins=5 must be a list of strings"),
        ("origins", [""], "origins=[''] must be a list of strings"),
        ("subprotocols", None, "subprotocols=None must be a list of strings"),
        ("host", None, "host=None must be a name or an address, as a string"),
        ("uds", "", "uds='' must be a path of 1 to 107 bytes"),
        ("uds_permissions", 0o440, "uds_permissions=0o440 is out of range: use 0o600 to 0o777"),
        ("uds_permissions", "660", "uds_permissions='660' is out of range: use 0o600 to 0o777"),
        ("fd", 3, "fd=3 must be a list of file descriptors, such as [3]"),
        ("fd", [-1], "fd=[-1] must be a list of file descriptors, such as [3]"),
        ("ready_path", "up", "ready_path='up' must be a path that begins with a slash"),
        ("sessions", 5, "sessions=5 must be a SignedCookieSessions or a StoreSessions"),
        ("auth", JWTAuth, f"auth={JWTAuth!r} must be a JWTAuth"),
        ("ssl", True, "ssl=True must be an ssl.SSLContext"),
        ("http", 5, "http=5 must be an ASGI app"),
    ],
)
def test_a_bad_option_says_what_to_give(option, value, message):
    with pytest.raises(ConfigurationError) as refused:
        Server(**{option: value})
    assert str(refused.value) == message


def test_an_unknown_option_is_a_type_error():
    with pytest.raises(TypeError, match="max_mesage_size"):
        Server(port=0, max_mesage_size=1)
    with pytest.raises(TypeError, match="max_mesage_size"):
        Server(port=0).endpoint("/", Listener(), max_mesage_size=1)


def test_reconfiguring_reaches_the_endpoints_where_they_said_nothing_themselves():
    server = Server(port=0, max_backlog=7, overflow="drop_oldest")
    plain = server.endpoint("/plain")
    own = server.endpoint("/own", max_backlog=7, idle_timeout=300)
    server.reconfigure(max_backlog=8, idle_timeout=5, restart=True)
    server.reconfigure(host="::1", ping_timeout=3)
    assert (server.host, server.options.restart, server.options.overflow) == ("::1", True, "drop_oldest")
    for options, said in ((plain.options, (8, 5)), (own.options, (7, 300))):
        assert (options.max_backlog, options.idle_timeout) == said
        assert (options.ping_timeout, options.overflow) == (3, "drop_oldest")
    assert server.endpoint("/late").options.max_backlog == 8


def test_what_cannot_be_reconfigured_changes_nothing():
    server = Server(port=0)
    manager = server.endpoint("/")
    before = server.options, manager.options
    with pytest.raises(ConfigurationError, match="port=-1"):
        server.reconfigure(max_backlog=8, port=-1)
    with pytest.raises(TypeError, match="max_mesage_size"):
        server.reconfigure(max_backlog=8, max_mesage_size=1)
    assert (server.options, manager.options) == before


async def test_a_server_that_runs_is_not_reconfigured(serve):
    site = await serve(Echo())
    with pytest.raises(RuntimeError, match="the server is running"):
        site.server.reconfigure(max_message_size=8)
    await site.server.stop()
    site.server.reconfigure(max_message_size=8)
    assert site.manager.options.max_message_size == 8


async def test_a_server_can_be_started_again_after_a_stop(join):
    server = Server(port=0)
    manager = server.endpoint("/ws/{channel}", Echo())
    for _ in range(3):
        async with running(server) as url:
            client = await join(f"{url}/ws/cars")
            await client.send("x")
            assert await client.receive() == "x"
        assert (await client.closed())[0] == 1001
        assert len(manager.connections) == 0


async def test_a_taken_port_is_an_os_error(serve):
    site = await serve()
    with pytest.raises(OSError, match="in use"):
        async with Server(port=site.server.port):
            pass


async def test_the_port_is_the_real_one_while_running(serve, join):
    site = await serve(Echo())
    assert site.server.port > 0
    client = await join(f"ws://127.0.0.1:{site.server.port}/ws/cars")
    assert await client.received() == []


async def test_start_and_stop_are_what_async_with_does(join):
    server = Server(port=0)
    server.endpoint("/", Echo())
    await server.start()
    client = await join(f"ws://127.0.0.1:{server.port}/")
    await client.send("x")
    assert await client.receive() == "x"
    await server.stop()
    assert (await client.closed())[0] == 1001
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection("127.0.0.1", server.port)
    await server.stop()
